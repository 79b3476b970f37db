#include "halftone/train/onnx.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "halftone/numeric/philox.hpp"
#include "halftone/ops/dense.hpp"
#include "halftone/ops/loss.hpp"
#include "halftone/ops/norm.hpp"
#include "halftone/ops/pointwise.hpp"
#include "halftone/ops/pool2d.hpp"
#include "halftone/ops/softmax.hpp"
#include "halftone/ops/spatial.hpp"
#include "halftone/train/inputs.hpp"
#include "halftone/train/predictor.hpp"
#include "tests/data/files.hpp"

namespace halftone {
namespace {

using testing::contains;
using testing::error;
using testing::file_error;

class Onnx : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_onnx()) GTEST_SKIP() << "built without libonnx";
  }

  std::filesystem::path file() const { return dir_ / "net.onnx"; }

  /// Writes the net with other numbers than those of its birth and returns what it makes of some images.
  std::vector<float> write(const Net& net) {
    Graph graph;
    Shape images = net.image;
    images.n = 3;
    const Value logits = net.build(graph.input("images", images), net.classes);
    const int wanted[] = {logits.id()};
    Parameters parameters(for_inference(graph, wanted), cpu_device({.threads = 1}), {.gradients = false, .seed = 5});
    for (std::size_t i = 0; i < parameters.statistics.size(); ++i) {
      std::vector<float> values(static_cast<std::size_t>(parameters.statistics[i].shape.elements()));
      for (std::size_t k = 0; k < values.size(); ++k) values[k] = 0.5f + static_cast<float>(k % 7) / 8;
      parameters.assign_statistic(i, values);
    }
    write_onnx(file(), logits, parameters);
    const std::vector<float> numbers = numbers_for(images);
    return Predictor(logits, parameters, Precision::f32())(std::as_bytes(std::span(numbers)));
  }

  static std::vector<float> numbers_for(const Shape& shape) {
    std::vector<float> numbers;
    for (std::int64_t i = 0; i < shape.elements(); ++i)
      numbers.push_back(static_cast<float>(bits(3, 0, 1, static_cast<std::uint64_t>(i)) % 2048) / 1024 - 1);
    return numbers;
  }

  static std::vector<float> run(const Net& net) {
    Graph graph;
    Shape images = net.image;
    images.n = 3;
    Predictor predict(net.build(graph.input("images", images), net.classes), {.device = cpu_device({.threads = 1})});
    const std::vector<float> numbers = numbers_for(images);
    return predict(std::as_bytes(std::span(numbers)));
  }

  TemporaryFolder dir_;
};

/// Operations that a file can hold, besides those of the known nets.
Value everything(Value x, int classes) {
  x = silu(batch_norm(conv2d(x, 8, {3, 2}, {.stride = {1, 2}})));
  x = concat({x, silu(conv2d(x, 8, 3, {.dilation = 2, .groups = 4, .bias = false}))});
  x = tanh(max_pool2d(x, 3, {.stride = 2, .ceil_mode = true})) * tanh(scale(avg_pool2d(x, 2), 0.5f));
  x = hard_tanh(leaky_relu(x, 0.2f)) + relu6(sigmoid(x));
  return dense(softmax(dense(relu(flatten(x)), 12)), classes);
}

/// The first half of the channels, and a part of what is left of them.
Value halves(Value x, int classes) {
  x = relu(conv2d(x, 8, 3));
  x = concat({slice(x, 0, 4), tanh(slice(x, 4, 4))});
  return slice(dense(flatten(slice(x, 3, 2)), classes + 2), 1, classes);
}

Value shift_based(Value x, int classes) {
  x = relu(batch_norm(conv2d(x, 8, 3), {.shift_based = true}));
  return dense(flatten(batch_norm(x, {.shift_based = true})), classes);
}

/// Values that are images in one place and features in another.
Value parts(Value x, int classes) {
  x = gelu(conv2d(x, 8, 3));
  x = scale_channels(x, sigmoid(dense(relu(dense(flatten(global_avg_pool(x)), 4)), 8)));
  const Value of_all = dense(scale(softmax(flatten(max_pool2d(x, 2))), 50), 6);
  return dense(concat({of_all, global_max_pool(x)}), classes);
}

Value conv_head(Value x, int classes) { return global_avg_pool(conv2d(x, classes, 3)); }

/// And what nets of mobile devices and decoders need.
Value spatial(Value x, int classes) {
  x = hard_swish(batch_norm(conv2d(pad2d(x, {0, 1, 2, -1}), 8, 3, {.stride = 2, .padding = Extent(0)})));
  x = scale_channels(x, hard_sigmoid(conv2d(relu(conv2d(global_avg_pool(x), 4, 1)), 8, 1)));
  x = conv_transpose2d(x, 6, 3, {.stride = 2, .padding = 1, .output_padding = 1, .groups = 2});
  x = concat({upsample2d(x, 2), upsample2d(conv2d(x, 2, 3), {2, 2}, Interpolation::bilinear)});
  return dense(flatten(conv_transpose2d(max_pool2d(x, 4), 3, 2, {.bias = false})), classes);
}

TEST_F(Onnx, WhatIsWrittenIsReadAsTheSameNet) {
  std::vector<Net> all = {
      {"everything", {1, 12, 16, 3}, 5, everything}, {"spatial", {1, 12, 16, 3}, 5, spatial},
      {"halves", {1, 12, 16, 3}, 5, halves},         {"parts", {1, 12, 16, 3}, 5, parts},
      {"conv_head", {1, 12, 16, 3}, 5, conv_head},   {"shift_based", {1, 12, 16, 3}, 5, shift_based}};
  for (const char* name : {"lenet5", "gupta", "mlp", "resnet20"}) all.push_back(net_by_name(name));
  for (const Net& net : all) {
    const std::vector<float> before = write(net);
    const Net read = read_onnx(file());
    EXPECT_EQ(read.name, "net.onnx");
    EXPECT_EQ(read.image, net.image) << net.name;
    EXPECT_EQ(read.classes, net.classes);
    EXPECT_EQ(parameter_count(read), parameter_count(net)) << net.name;
    const std::vector<float> after = run(read);
    ASSERT_EQ(after.size(), before.size());
    float largest = 0;
    for (const float x : before) largest = std::max(largest, std::abs(x));
    for (std::size_t i = 0; i < before.size(); ++i) EXPECT_NEAR(after[i], before[i], 1e-5f * largest) << net.name;
    EXPECT_GT(largest, 0);
  }
}

TEST_F(Onnx, ItTrainsAndItsCheckpointNeedsNoFile) {
  write(net_by_name("lenet5"));
  const Net net = find_net(file().string());
  Graph graph;
  const Value images = graph.input("images", {4, 28, 28, 1}), labels = graph.input("labels", {4, 1, 1, 1}, DType::i32);
  Trainer trainer(cross_entropy(net.build(images, 10), labels), {.schedule = Schedule::constant(0.05f)});
  const std::vector<float> numbers = numbers_for({4, 28, 28, 1});
  const std::vector<std::int32_t> classes = {1, 2, 3, 4};
  const std::span<const std::byte> inputs[] = {std::as_bytes(std::span(numbers)), std::as_bytes(std::span(classes))};
  const float first = trainer.step(inputs).loss;
  for (int i = 0; i < 60; ++i) trainer.step(inputs);
  EXPECT_LT(trainer.step(inputs).loss, 0.5f * first);
  trainer.save(dir_ / "run", {{"net", net.name},
                              {"graph", net.graph},
                              {"classes", "10"},
                              {"image", "28x28x1"},
                              {"dtype", "f32"},
                              {"mean", "0"},
                              {"stddev", "1"}});
  std::filesystem::remove(file());
  EXPECT_LT(net.graph.size(), 10000u) << "a graph without the numbers of its weights";
  Predictor predict(dir_ / "run");
  const std::vector<float> shares = predict(std::as_bytes(std::span(numbers)));
  for (std::size_t i = 0; i < 4; ++i) EXPECT_GT(shares[i * 10 + static_cast<std::size_t>(classes[i])], 0.2f) << i;
  export_onnx(dir_ / "run", file());
  EXPECT_GT(std::filesystem::file_size(file()), 61706u * 4);
}

TEST_F(Onnx, ImagesAreNormalisedOnce) {
  const Loader train = digits(Split::train, {.batch = 8, .limit = 16});
  Graph graph;
  const Value logits = lenet5(inputs(graph, train).images);
  const int wanted[] = {logits.id()};
  Parameters parameters(for_inference(graph, wanted), cpu_device({.threads = 1}), {.gradients = false, .seed = 5});
  write_onnx(file(), logits, parameters);
  const std::vector<float> before = Predictor(logits, parameters, Precision::f32())(train);

  const Net net = read_onnx(file());
  Dataset data = train.dataset();
  EXPECT_TRUE(net.of_bytes);
  EXPECT_EQ(net.mean, data.mean);
  EXPECT_EQ(net.stddev, data.stddev);
  data.mean = {0.5f}, data.stddev = {2};
  normalize_as(net, data);
  const Loader again(std::make_shared<const Dataset>(data), {.batch = 8});
  Graph other;
  Predictor predict(net.build(inputs(other, again).images, 10), {.device = cpu_device({.threads = 1})});
  EXPECT_EQ(predict(again), before);
  data.image.c = 3;
  normalize_as(net, data);
  EXPECT_EQ(data.mean.size(), 3u) << "one for all channels";
  EXPECT_TRUE(read_onnx(file()).note.find("batch norm") != std::string::npos);
}

TEST_F(Onnx, ANewHeadTellsOtherClassesApart) {
  for (const char* name : {"lenet5", "resnet20"}) {
    const Net known = net_by_name(name);
    write(known);
    const Net net = read_onnx(file(), true), whole = read_onnx(file());
    Graph graph, old;
    Shape images = known.image;
    images.n = 2;
    const Value logits = net.build(graph.input("images", images), 7),
                before = whole.build(old.input("images", images), 10);
    EXPECT_EQ(logits.channels(), 7);
    const std::vector<std::string> head = head_of(logits);
    EXPECT_EQ(head.size(), 2u);
    EXPECT_EQ(head, head_of(before));
    const Parameters p(graph, cpu_device({.threads = 1}), {.gradients = false}),
        q(old, cpu_device(), {.gradients = false});
    for (const ParameterSlot& slot : p.entries) {
      const auto values = p.weight(slot).read();
      if (std::find(head.begin(), head.end(), slot.name) == head.end()) {
        EXPECT_EQ(values, q.weight(q.find(slot.name)).read()) << slot.name;
      } else {
        EXPECT_NE(values[0], values[1]) << "drawn";
      }
    }
    Graph checkpoint;
    const Net hollow = onnx_net("mine", net.graph);
    EXPECT_EQ(hollow.build(checkpoint.input("images", images), 7).channels(), 7) << "as a checkpoint knows it";
  }
}

TEST_F(Onnx, ACheckpointHoldsANetThatNobodyElseKnows) {
  const Loader train = digits(Split::train, {.batch = 16, .limit = 64});
  Graph graph;
  const auto [images, labels] = inputs(graph, train);
  const auto stage = [](Value x, int channels) {
    return max_pool2d(hard_swish(batch_norm(conv2d(x, channels, 3), {.shift_based = channels == 8})), 2);
  };
  const Value logits = dense(dropout(stage(stage(images, 4), 8), 0.1f), 10);
  Trainer trainer(cross_entropy(logits, labels), {.device = cpu_device({.threads = 1})});
  trainer.epoch(train);
  trainer.save(dir_ / "own", describe("own", logits));
  const std::vector<float> before = Predictor(softmax(logits), trainer)(train);
  EXPECT_EQ(read_model_description(dir_ / "own").net->name, "own");
  const std::vector<float> after = Predictor(dir_ / "own", {.device = cpu_device({.threads = 1})})(train);
  ASSERT_EQ(after.size(), before.size());
  for (std::size_t i = 0; i < after.size(); ++i) EXPECT_NEAR(after[i], before[i], 1e-5f) << i;
  const auto nobody = [x = images] { describe("no", dense(group_norm(x, 1), 10)); };
  EXPECT_TRUE(contains(error(nobody), "has no counterpart"));
}

/// What docs/guide.md shows.
TEST_F(Onnx, TheGuidesExample) {
  namespace ht = halftone;
  write(net_by_name("lenet5"));
  std::filesystem::rename(file(), dir_ / "my.onnx");
  const ht::Loader train = ht::digits(ht::Split::train, {.batch = 32, .limit = 64});
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(dir_ / "");

  const ht::Net net = ht::read_onnx("my.onnx");
  ht::Graph graph;
  const auto [images, labels] = ht::inputs(graph, train);
  const ht::Value logits = net.build(images, train.dataset().classes);
  ht::Trainer trainer(ht::cross_entropy(logits, labels), {.precision = ht::Precision::f16()});
  trainer.epoch(train);
  trainer.save("my_net", {{"net", net.name}, {"graph", net.graph}});
  ht::write_onnx("trained.onnx", logits, trainer.parameters());

  std::filesystem::current_path(before);
  EXPECT_TRUE(std::filesystem::exists(dir_ / "trained.onnx"));
  EXPECT_EQ(Predictor(dir_ / "my_net")(train).size(), 640u);
}

/// A net without weights: what `nodes` make of images [n, 3, 4, 4], then the means of the channels.
std::vector<float> means_of(const std::string& nodes, const std::string& initializers) {
  const auto value = [](const char* name, const char* extents) {
    return fmt::format(R"({{"name": "{}", "type": {{"tensorType": {{"elemType": 1, "shape": {{"dim": [{}]}}}}}}}})",
                       name, extents);
  };
  const std::string text = fmt::format(
      R"({{"irVersion": "8", "opsetImport": [{{"version": "17"}}], "graph": {{
           "input": [{}], "output": [{}], "initializer": [{}],
           "node": [{}, {{"opType": "GlobalAveragePool", "input": ["y"], "output": ["means"]}},
                    {{"opType": "Flatten", "input": ["means"], "output": ["logits"]}}]}}}})",
      value("images", R"({"dimParam": "n"}, {"dimValue": "3"}, {"dimValue": "4"}, {"dimValue": "4"})"),
      value("logits", ""), initializers, nodes);
  Graph graph;
  const Value images = graph.input("images", {1, 4, 4, 3});
  Predictor predict(onnx_net("made", text).build(images, 2), {.device = cpu_device({.threads = 1})});
  std::vector<float> numbers;  // of pixel (h, w) and channel c: 64 c + 8 h + w
  for (int i = 0; i < 48; ++i) numbers.push_back(static_cast<float>(64 * (i % 3) + 8 * (i / 12) + i / 3 % 4));
  return predict(std::as_bytes(std::span(numbers)));
}

std::string whole_numbers(const std::string& name, const std::string& values, int count) {
  return fmt::format(R"({{"name": "{}", "dataType": 7, "dims": ["{}"], "int64Data": [{}]}})", name, count, values);
}

TEST_F(Onnx, PartsOfChannelsAndOfPixels) {
  const std::string slice =
      R"({"opType": "Slice", "name": "cut", "input": ["images", "from", "to", "axes"], "output": ["y"]})";
  const auto numbers = [](const char* from, const char* to, const char* axes) {
    return whole_numbers("from", from, 2) + "," + whole_numbers("to", to, 2) + "," + whole_numbers("axes", axes, 2);
  };
  // Channels 1 and 2 in rows 1 and 2; channels 0 and 1 in columns 2 and 3. The mean row is 1.5 both times.
  EXPECT_EQ(means_of(slice, numbers("1, 1", "3, 3", "1, 2")), (std::vector<float>{64 + 12 + 1.5f, 128 + 12 + 1.5f}));
  EXPECT_EQ(means_of(slice, numbers("0, -2", "-1, 9", "-3, -1")), (std::vector<float>{12 + 2.5f, 64 + 12 + 2.5f}));
  EXPECT_TRUE(contains(file_error([&] { means_of(slice, numbers("0, 0", "1, 1", "0, 1")); }),
                       "made: node cut (Slice) takes a part of the batch"));
  EXPECT_TRUE(contains(file_error([&] { means_of(slice, numbers("2, 0", "2, 1", "1, 2")); }), "takes nothing"));
}

TEST_F(Onnx, PadsMayBeAnInitializerOrAConstant) {
  const std::string cut = R"({"opType": "Slice", "input": ["images", "from", "to", "axes"], "output": ["two"]},)",
                    pad = R"({"opType": "Pad", "name": "frame", "input": ["two", "pads"], "output": ["y"]})",
                    two = whole_numbers("from", "1", 1) + "," + whole_numbers("to", "3", 1) + "," +
                          whole_numbers("axes", "1", 1),
                    pads = "0, 0, 4, 0, 0, 0, 0, 4";                                // rows above, columns behind
  const std::vector<float> padded = {(64 + 12 + 1.5f) / 4, (128 + 12 + 1.5f) / 4};  // 16 pixels of 64
  EXPECT_EQ(means_of(cut + pad, two + "," + whole_numbers("pads", pads, 8)), padded);
  const auto constant = [](const std::string& attribute) {
    return R"({"opType": "Constant", "output": ["pads"], "attribute": [)" + attribute + "]},";
  };
  const std::string list = fmt::format(R"({{"name": "value_ints", "type": 7, "ints": [{}]}})", pads),
                    tensor = fmt::format(R"({{"name": "value", "type": 4, "t": {}}})", whole_numbers("", pads, 8));
  for (const std::string& attribute : {list, tensor})
    EXPECT_EQ(means_of(cut + constant(attribute) + pad, two), padded) << attribute;
  const std::string computed = R"({"opType": "Relu", "input": ["two"], "output": ["pads"]},)";
  EXPECT_TRUE(contains(file_error([&] { means_of(cut + computed + pad, two); }),
                       "made: node frame (Pad) has not two pads for each axis"));
}

/// As PyTorch writes an F.pad whose numbers it computes while the net runs.
TEST_F(Onnx, PadsMayBeComputed) {
  const std::string steps = R"(
      {"opType": "Slice", "input": ["images", "from", "to", "one"], "output": ["two"]},
      {"opType": "Mul", "input": ["one", "four"], "output": ["count"]},
      {"opType": "ConstantOfShape", "input": ["count"], "output": ["zeros"],
       "attribute": [{"name": "value", "type": 4, "t": {"dataType": 7, "dims": ["1"], "int64Data": [0]}}]},
      {"opType": "Concat", "input": ["given", "zeros"], "output": ["list"]},
      {"opType": "Reshape", "input": ["list", "pairs"], "output": ["rows"]},
      {"opType": "Slice", "input": ["rows", "last", "end", "zero", "last"], "output": ["turned"]},
      {"opType": "Transpose", "input": ["turned"], "output": ["columns"],
       "attribute": [{"name": "perm", "type": 7, "ints": [1, 0]}]},
      {"opType": "Reshape", "input": ["columns", "last"], "output": ["pads"]},
      {"opType": "Pad", "input": ["two", "pads"], "output": ["y"]})";
  std::string all;
  for (const auto& [name, values, count] : {std::tuple("from", "1", 1),
                                            {"to", "3", 1},
                                            {"one", "1", 1},
                                            {"four", "4", 1},
                                            {"given", "0, 4, 4, 0", 4},
                                            {"pairs", "-1, 2", 2},
                                            {"last", "-1", 1},
                                            {"zero", "0", 1}})
    all += whole_numbers(name, values, count) + ",";
  EXPECT_EQ(means_of(steps, all + whole_numbers("end", "-9223372036854775807", 1)),
            (std::vector<float>{(64 + 12 + 1.5f) / 4, (128 + 12 + 1.5f) / 4}));  // rows above, columns behind
}

TEST_F(Onnx, NumbersThatMakeNoSenseAreNamed) {
  const auto refusal = [&](const std::string& nodes) {
    const std::string none = R"({"name": "none", "dataType": 7, "dims": ["0"]},)", one = whole_numbers("one", "1", 1),
                      rows = R"({"name": "rows", "dataType": 7, "dims": ["4", "2"], "int64Data": [0,0,0,0,0,4,0,0]},)";
    return file_error([&] {
      means_of(nodes + R"({"opType": "Identity", "input": ["images"], "output": ["y"]})",
               none + rows + whole_numbers("zero", "0", 1) + "," + whole_numbers("list", "3, 2", 2) + "," +
                   whole_numbers("second", "2", 1) + "," + one);
    });
  };
  const auto node = [](const char* type, const char* inputs, const char* attribute = "") {
    return fmt::format(R"({{"opType": "{}", "name": "odd", "input": [{}], "output": ["a"], "attribute": [{}]}},)", type,
                       inputs, attribute);
  };
  const char* perm = R"({"name": "perm", "type": 7, "ints": [1, 0]})";
  EXPECT_TRUE(contains(refusal(node("Add", R"("none", "one")")), "takes numbers of two shapes"));
  EXPECT_TRUE(contains(refusal(node("Div", R"("one", "zero")")), "divides by 0"));
  EXPECT_TRUE(contains(refusal(node("Reshape", R"("rows", "list")")), "another shape than that of a list or of rows"));
  EXPECT_TRUE(contains(refusal(node("Transpose", R"("rows")", perm)), "changes the order of axes of numbers"));
  EXPECT_TRUE(contains(refusal(node("MatMul", R"("images")")), "has not two inputs"));
  EXPECT_TRUE(contains(refusal(node("Erf", "")), "lacks but in GELU"));
  EXPECT_TRUE(contains(refusal(node("Squeeze", R"("images", "list")")), "takes away another axis"));
  // The row that is left becomes a column: with an extent of 1, too, that is another image.
  const std::string row = node("Slice", R"("images", "zero", "one", "second")");
  EXPECT_TRUE(contains(refusal(row + R"({"opType": "Transpose", "name": "odd", "input": ["a"], "output": ["b"],
                                       "attribute": [{"name": "perm", "type": 7, "ints": [0, 1, 3, 2]}]},)"),
                       "changes the order of axes"));
}

TEST_F(Onnx, OnlyASoftmaxOverFeaturesIsOne) {
  const std::string flat = R"({"opType": "Flatten", "input": ["images"], "output": ["flat"]},)",
                    end = R"({"opType": "Identity", "input": ["images"], "output": ["y"]})";
  const auto over = [&](int axis) {
    return flat +
           fmt::format(R"({{"opType": "Softmax", "name": "share", "input": ["flat"], "output": ["s"],
                                  "attribute": [{{"name": "axis", "type": 2, "i": "{}"}}]}},)",
                       axis) +
           end;
  };
  for (const int axis : {1, -1})
    EXPECT_TRUE(contains(error([&] { means_of(over(axis), ""); }), "net made: it tells 3 classes apart"));
  for (const int axis : {0, 2})
    EXPECT_TRUE(contains(file_error([&] { means_of(over(axis), ""); }),
                         "made: node share (Softmax) is no softmax over the features of an image"));
}

TEST_F(Onnx, NamesWhatItLacks) {
  write(net_by_name("lenet5"));
  const std::string sound = testing::read(file());
  const auto without = [&](const std::string& what, const std::string& otherwise) {
    std::string changed = sound;
    for (std::size_t at; (at = changed.find(what)) != std::string::npos;) changed.replace(at, what.size(), otherwise);
    testing::write(file(), changed);
    return file_error([&] { read_onnx(file()); });
  };
  const std::string name = file().string();
  EXPECT_TRUE(without("MaxPool", "MinPool").starts_with(name + ": node "));
  EXPECT_TRUE(contains(without("MaxPool", "MinPool"), " is a MinPool, an operation that Halftone lacks"));
  EXPECT_TRUE(contains(without("conv1.weight", "conv1.wei"), "is no sound ONNX file"));
  EXPECT_TRUE(contains(without("images", "photos"), "no error"));
  EXPECT_TRUE(contains(file_error([&] { read_onnx(dir_ / "absent.onnx"); }), "absent.onnx cannot be opened"));
  testing::write(file(), sound);
  const auto refusal = [&](const Shape& images, int classes) {
    Graph graph;
    return error([&] { read_onnx(file()).build(graph.input("images", images), classes); });
  };
  EXPECT_EQ(refusal({1, 28, 28, 3}, 10), "net net.onnx: it takes images of 1 channels, these have 3");
  EXPECT_EQ(refusal({1, 28, 28, 1}, 7), "net net.onnx: it tells 10 classes apart, the data have 7");
  EXPECT_TRUE(contains(refusal({1, 32, 32, 1}, 10), "takes 400 features, 576 come"));
}

TEST_F(Onnx, WhatWouldChangeNumbersIsNotTakenForNothing) {
  write({"everything", {1, 12, 16, 3}, 5, everything});
  const std::string sound = testing::read(file());
  const auto refusal = [&](const std::string& what, const std::string& otherwise) {
    std::string changed = sound;
    changed.replace(changed.find(what), what.size(), otherwise);
    testing::write(file(), changed);
    return file_error([&] { read_onnx(file()); });
  };
  EXPECT_TRUE(contains(refusal("Tanh", "Cast"), "(Cast) makes something else than floats of a tensor"));
  EXPECT_TRUE(contains(refusal("number 6", "number X"), "takes number X, which is not known before the net runs"));
}

TEST_F(Onnx, ItsChecksumIsOfAllNumbers) {
  write(net_by_name("lenet5"));
  const std::string sound = testing::read(file()), first = read_onnx(file()).checksum;
  EXPECT_EQ(read_onnx(file()).checksum, first);
  std::string other = sound;
  other[other.size() / 2] ^= 1;  // in the middle of the weights
  testing::write(file(), other);
  EXPECT_NE(read_onnx(file()).checksum, first);
}

TEST_F(Onnx, AnyDamageIsAnErrorAtMost) {
  write(net_by_name("gupta"));
  const std::string sound = testing::read(file());
  const auto answered = [&](const std::string& content) {
    testing::write(file(), content);
    try {
      read_onnx(file());
    } catch (const Error&) {
    }
  };
  for (std::size_t size = 0; size < sound.size(); size += 1 + size / 3) answered(sound.substr(0, size));
  for (std::uint64_t i = 0; i < 400; ++i) {
    std::string flipped = sound;
    // The structure lies at both ends, the weights between.
    const std::size_t place = bits(7, 0, 0, 2 * i) % 1200, end = sound.size() - 1;
    flipped[i % 2 == 0 ? place : end - place] = static_cast<char>(bits(7, 0, 0, 2 * i + 1));
    answered(flipped);
  }
}

TEST_F(Onnx, WhatHasNoCounterpartIsNamed) {
  const auto refusal = [&](Value (*layer)(Value)) {
    Graph graph;
    const Value y = layer(graph.input("images", {2, 4, 4, 4}));
    const int wanted[] = {y.id()};
    const Parameters parameters(for_inference(graph, wanted), cpu_device(), {.gradients = false});
    return error([&] { write_onnx(file(), y, parameters); });
  };
  EXPECT_TRUE(contains(refusal([](Value x) { return group_norm(x, 2); }), "onnx: norm1 is a group_norm, which has no"));
  EXPECT_TRUE(contains(refusal([](Value x) { return reshape(x, {-1, 2, 8, 4}); }), "only flatten has a counterpart"));
  EXPECT_TRUE(contains(refusal([](Value x) { return flatten(x); }), "flattened image"));
  EXPECT_FALSE(std::filesystem::exists(file()));
}

}  // namespace
}  // namespace halftone
