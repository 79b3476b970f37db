#include <gtest/gtest.h>

#include <cmath>

#include "halftone/halftone.hpp"
#include "tests/io/temporary_folder.hpp"

// What is particular to a number system; that it learns, and its control does not, is in learning_test.cpp and, on real
// data, in systems_slow_test.cpp.
namespace halftone {
namespace {

/// Gupta's net or another on drawn digits.
struct Task {
  Loader train, test;
  Graph graph;
  Inputs in;
  Value logits, loss, hits;

  explicit Task(const std::string& net, std::int64_t images = 1000)
      : train(std::make_shared<Dataset>(rendered_digits(Split::train, images)), {.batch = 50}),
        test(std::make_shared<Dataset>(rendered_digits(Split::test, 200)), {.batch = 100}),
        in(inputs(graph, train)),
        logits(net_by_name(net).build(in.images, 10)),
        loss(cross_entropy(logits, in.labels)),
        hits(accuracy(logits, in.labels)) {}

  TrainerOptions options(const Precision& precision) const {
    TrainerOptions result;
    result.device = cpu_device({.threads = 2});
    result.precision = precision;
    return result;
  }
};

float scale_of(const Parameters& parameters, const std::string& value) {
  const auto states = parameters.read_ranges();
  for (std::size_t i = 0; i < states.size(); ++i)
    if (parameters.ranges[i].value == value) return states[i].scale;
  return 0;
}

TEST(DynamicFixed, RangesAreFoundFirstAndWeightsBornAnew) {
  const Task task("gupta");
  Trainer trainer(task.loss, task.options(Precision::dynamic_fixed(10, 12)));
  Parameters& p = trainer.parameters();
  for (const RangeState& state : p.read_ranges()) EXPECT_TRUE(state.scale == 0x1p-4f || state.scale == 0x1p-6f);
  trainer.find_ranges(task.train, 60);
  EXPECT_EQ(trainer.attempts(), 0);
  const auto& ranges = p.ranges;
  const auto states = p.read_ranges();
  float smallest = 1, largest = 0;
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    EXPECT_EQ(std::exp2(std::round(std::log2(states[i].scale))), states[i].scale) << ranges[i].value;
    smallest = std::min(smallest, states[i].scale), largest = std::max(largest, states[i].scale);
  }
  EXPECT_GT(largest / smallest, 16) << "gradients lie binades below activations";
  Trainer exact(task.loss, task.options(Precision::f32()));
  for (const ParameterSlot& slot : p.entries) {
    const auto born = exact.parameters().truth(exact.parameters().find(slot.name)).read(), here = p.truth(slot).read();
    const float step = scale_of(p, name_in(slot.truth(), slot.name));
    for (std::size_t i = 0; i < born.size(); ++i) EXPECT_NEAR(here[i], born[i], step / 2) << slot.name;
  }
}

TEST(DynamicFixed, AnObserverMayEndTheSearchForRanges) {
  const Task task("gupta", 200);
  Trainer stopped(task.loss, task.options(Precision::dynamic_fixed(10, 12)));
  const auto before = scale_of(stopped.parameters(), "conv1");
  int seen = 0;
  EXPECT_FALSE(stopped.find_ranges(task.train, 60, [&](const StepReport&) { return ++seen < 30; }));
  EXPECT_EQ(seen, 30);
  EXPECT_EQ(scale_of(stopped.parameters(), "conv1"), before);

  // Ranges that were found are not looked for again, and an epoch finds the same.
  Trainer found(task.loss, task.options(Precision::dynamic_fixed(10, 12))), other(task.loss, found.options());
  EXPECT_TRUE(found.find_ranges(task.train, 200, [](const StepReport&) { return true; }));
  found.epoch(task.train), other.epoch(task.train);
  EXPECT_EQ(scale_of(found.parameters(), "conv1"), scale_of(other.parameters(), "conv1"));
  for (const ParameterSlot& slot : found.parameters().entries)
    EXPECT_EQ(found.parameters().truth(slot).read_bytes(), other.parameters().truth(slot).read_bytes());
}

TEST(DynamicFixed, EveryTensorHasARangeAndTakesTwoBytesANumber) {
  const Task task("gupta");
  const Trainer trainer(task.loss, task.options(Precision::dynamic_fixed(10, 12)));
  const Parameters& p = trainer.parameters();
  for (const ParameterSlot& slot : p.entries)
    for (const Store store : {Store::weights, Store::masters, Store::gradients, Store::slot0})
      EXPECT_NE(p.range(name_in(store, slot.name)), nullptr) << name_in(store, slot.name);
  EXPECT_NE(p.range("conv1"), nullptr) << "what a convolution gives is rounded before the relu";
  EXPECT_NE(p.range("relu1"), nullptr);
  const MemoryReport half = Trainer(task.loss, task.options(Precision::bf16())).memory(), here = trainer.memory();
  EXPECT_EQ(here.weights, half.weights);
  EXPECT_EQ(here.masters, half.weights);
  EXPECT_EQ(here.gradients, half.gradients);
}

TEST(DynamicFixed, AModelTakesItsRangesAlong) {
  const TemporaryFolder folder;
  const Task task("gupta");
  Trainer trainer(task.loss, task.options(Precision::dynamic_fixed(10, 12)));
  trainer.epoch(task.train);
  trainer.save(folder / "model");
  Trainer loaded(task.loss, task.options(Precision::dynamic_fixed(10, 12)));
  load_model(folder / "model/model.safetensors", loaded.parameters());
  EXPECT_EQ(loaded.evaluate(task.test, task.loss), trainer.evaluate(task.test, task.loss));
}

TEST(Fp8, TakesAByteANumberAndScalesFollowTheTensors) {
  const Task task("gupta");
  Trainer trainer(task.loss, task.options(Precision::fp8()));
  const MemoryReport half = Trainer(task.loss, task.options(Precision::bf16())).memory(), here = trainer.memory();
  EXPECT_LE(here.weights, half.weights / 2 + 64 * trainer.parameters().entries.size());
  EXPECT_EQ(here.masters, half.masters);
  trainer.epoch(task.train);
  for (const ParameterSlot& slot : trainer.parameters().entries) {
    const TensorView weights = trainer.parameters().weight(slot);
    const float scale = scale_of(trainer.parameters(), slot.name);
    float largest = 0;
    for (const float w : weights.read()) largest = std::max(largest, std::abs(w));
    EXPECT_LE(largest, 448 * scale);
    EXPECT_GT(largest, 448 * scale / 4) << slot.name;  // half, and what a step may change
  }
}

/// From a file or a trainer of f32, and at birth, where batch norm's weights are 1.
/// A cast behind a kernel writes when all has been read, so it may write where an input lies that nobody reads later.
TEST(Fp8, ScalesThatComeAfterTheNumbersTakeNoMoreMemory) {
  const Task task("gupta", 100);
  const auto activations = [&](const char* name) {
    return Trainer(task.loss, task.options(precision_by_name(name))).memory().activations;
  };
  EXPECT_LT(activations("fp8:current"), activations("fp8:delayed") * 101 / 100);
}

TEST(MovingScales, MakeRoomForNumbersThatComeFromElsewhere) {
  const TemporaryFolder folder;
  Graph graph;
  const Value x = graph.input("x", Shape::matrix(2, 4)), y = dense(batch_norm(dense(x, 4)), 1, {.name = "last"});
  const Value loss = mean_squared_error(y, graph.input("target", Shape::matrix(2, 1)));
  TrainerOptions options;
  options.device = cpu_device({.threads = 1});
  Trainer exact(loss, options);
  const std::vector<float> large = {5, -3, 2, 1};
  exact.parameters().assign(exact.parameters().find("last.weight"), large);
  exact.save(folder / "");
  for (const char* name : {"int8", "int4", "fp8:current", "fp8:delayed", "dynamic_fixed:10/12"}) {
    options.precision = precision_by_name(name);
    Trainer taking(loss, options);
    const auto norm = taking.parameters().weight(taking.parameters().find("norm1.weight")).read();
    EXPECT_EQ(norm, std::vector<float>(4, 1)) << name;
    Predictor predictor(y, {.device = options.device, .precision = options.precision});
    predictor.load(folder / "model.safetensors");
    taking.take(exact.parameters());
    Trainer loading(loss, options);
    load_model(folder / "model.safetensors", loading.parameters());
    for (const Parameters* parameters : {&std::as_const(taking).parameters(), &std::as_const(loading).parameters()}) {
      EXPECT_EQ(parameters->weight(parameters->find("last.weight")).read(), large) << name;
      EXPECT_EQ(parameters->truth(parameters->find("last.weight")).read(), large) << name;
    }
  }
}

/// A value that training did not have has no scale that was found.
TEST(MovingScales, ValuesThatTrainingDidNotHaveAreExact) {
  Graph graph;
  const Value x = graph.input("x", Shape::matrix(1, 4)), y = dense(x, 3);
  const Value loss = mean_squared_error(y, graph.input("target", Shape::matrix(1, 3)));
  TrainerOptions options;
  options.device = cpu_device({.threads = 1});
  options.precision = Precision::dynamic_fixed(10, 12);
  Trainer trainer(loss, options);
  const float numbers[] = {0.5f, 0.25f, -0.5f, 1};
  Predictor plain(y, trainer), beyond(scale(scale(y, 1024), 0x1p-10f), trainer);
  const auto exact = plain(std::as_bytes(std::span(numbers))), rounded = beyond(std::as_bytes(std::span(numbers)));
  const float step = scale_of(trainer.parameters(), "dense1");
  for (std::size_t i = 0; i < exact.size(); ++i) EXPECT_NEAR(rounded[i], exact[i], step / 2);
}

TEST(MovingScales, KeepWithinNormalNumbersInOtherWords) {
  const Task task("gupta", 100);
  Trainer narrow(task.loss, task.options(Precision::dynamic_fixed(2, 2))),
      wide(task.loss, task.options(Precision::dynamic_fixed(24, 24)));
  auto states = narrow.parameters().read_ranges();
  for (auto& state : states) state.scale = state.next = smallest_scale;
  narrow.parameters().write_ranges(states);
  wide.parameters().take_ranges(narrow.parameters());
  for (const RangeState& state : wide.parameters().read_ranges()) EXPECT_EQ(state.scale, smallest_scale);
}

/// In the wide words of the first training a delayed scale fits the words too.
TEST(MovingScales, OfEveryKindAreFound) {
  const Task task("gupta", 500);
  Trainer trainer(task.loss, task.options(precision_by_name("dynamic_fixed:10/12+weights=int8")));
  trainer.find_ranges(task.train, 20);
  for (const ParameterSlot& slot : trainer.parameters().entries) {
    const auto truth = trainer.parameters().truth(slot).read(), weights = trainer.parameters().weight(slot).read();
    float largest = 0, working = 0;
    for (const float w : truth) largest = std::max(largest, std::abs(w));
    for (const float w : weights) working = std::max(working, std::abs(w));
    EXPECT_NEAR(working, largest, largest / 4) << slot.name;
  }
}

TEST(Precisions, ThatNoTrainingCanHaveAreRefused) {
  Precision precision;
  precision.storage.weights = Storage::scaled(DType::e4m3);
  const Task task("gupta");
  EXPECT_THROW(Trainer(task.loss, task.options(precision)), Error);
  EXPECT_THROW(Precision::dynamic_fixed(1, 12), Error);
  EXPECT_THROW(Precision::dynamic_fixed(10, 25), Error);
  EXPECT_THROW(Precision::static_fixed(5), Error);
  EXPECT_THROW(Precision::mx(DType::e5m2), Error);
  EXPECT_THROW(cast(task.logits, Storage::blocks(DType::e4m3, 24)), Error);
  precision.storage.weights = Storage::blocks(DType::e4m3, 24);
  EXPECT_THROW(Predictor(task.logits, {.device = cpu_device(), .precision = precision}), Error);
}

std::vector<std::string> nodes_of(const Graph& graph) {
  std::vector<std::string> names;
  for (const Node& node : graph->nodes) names.push_back(node.op->name());
  return names;
}

TEST(Binary, HiddenLayersMultiplySignsByNormalisedSigns) {
  const Task task("mlp");
  Graph graph = task.graph.clone();
  EXPECT_EQ(binarize(graph, Precision::binary()), (std::vector<std::string>{"dense2.weight", "dense3.weight"}));
  EXPECT_EQ(nodes_of(graph),
            (std::vector<std::string>{"normalize", "dense", "batch_norm", "activation", "cast", "dense", "batch_norm",
                                      "activation", "cast", "dense", "batch_norm", "activation", "dense",
                                      "softmax_cross_entropy", "accuracy"}));
  Graph kept = task.graph.clone();
  EXPECT_EQ(binarize(kept, precision_by_name("binary+dense2=f32")), std::vector<std::string>{"dense3.weight"});

  Trainer trainer(task.loss, task.options(Precision::binary()));
  trainer.epoch(task.train);
  const Parameters& p = trainer.parameters();
  for (const char* name : {"dense2.weight", "dense3.weight"}) {
    const ParameterSlot& slot = p.find(name);
    EXPECT_EQ(p.weight(slot).spec.bytes(), 512u * 512 / 8);
    const auto masters = p.truth(slot).read(), signs = p.weight(slot).read();
    for (std::size_t i = 0; i < masters.size(); ++i) {
      EXPECT_LE(std::abs(masters[i]), 1);
      EXPECT_EQ(signs[i], masters[i] >= 0 ? 1 : -1);
    }
  }
  for (const char* name : {"dense1.weight", "dense2.bias", "dense4.weight", "dense2.norm.weight"})
    EXPECT_EQ(p.find(name).truth(), Store::weights) << name;
}

/// Numbers that were cast into something else are no signs.
TEST(Binary, OnlySignsCountAsSigns) {
  Graph graph;
  Value x = dense(graph.input("x", Shape::matrix(2, 4)), 4);
  dense(dense(cast(relu(batch_norm(x)), DType::bf16), 4), 4);
  binarize(graph, Precision::binary());
  for (const Node& node : graph->nodes) {
    if (node.name == "dense2") {
      EXPECT_EQ(graph.info(node.inputs[0]).spec.storage, Storage(DType::sign));
    }
  }
}

TEST(Binary, ShiftBasedNormsAreAllNormsButThoseOfExceptions) {
  const Task task("mlp", 100);
  Graph graph = task.graph.clone();
  batch_norm(graph.value(graph->inputs[0]), {.name = "own"});
  binarize(graph, precision_by_name("binary:shift+dense2=f32"));
  std::map<std::string, bool> shift_based;
  for (const Node& node : graph->nodes)
    if (const auto* norm = dynamic_cast<const BatchNorm*>(node.op.get())) shift_based[node.name] = norm->shift_based;
  EXPECT_EQ(shift_based, (std::map<std::string, bool>{
                             {"dense1.norm", true}, {"dense2.norm", false}, {"dense3.norm", true}, {"own", true}}));
  const auto identity = [&](const Precision& precision) { return identity_of(task.options(precision)).fixed; };
  EXPECT_NE(identity(Precision::binary(true)), identity(Precision::binary()));
  Precision renamed = Precision::binary(true);
  renamed.name = "binary";
  EXPECT_NE(identity(renamed), identity(Precision::binary())) << "whatever it is called";
}

/// What a step leaves of weights before a batch norm and of its bias, where all that AP2 sees are powers of two but
/// gamma.
std::vector<float> after_a_step(bool shift_based, float gamma) {
  Graph graph;
  const Value x = graph.input("x", Shape::matrix(4, 2)), target = graph.input("target", Shape::matrix(4, 2));
  const Value y = batch_norm(dense(x, 2, {.bias = false, .name = "layer"}),
                             {.epsilon = 0, .name = "norm", .shift_based = shift_based});
  Trainer trainer(mean_squared_error(y, target),
                  {.device = cpu_device({.threads = 1}), .optimizer = Sgd{}, .schedule = Schedule::constant(1)});
  Parameters& p = trainer.parameters();
  p.assign(p.find("layer.weight"), std::vector<float>{1, 0, 0, 1});
  p.assign(p.find("norm.weight"), std::vector<float>{gamma, -gamma});
  const std::vector<float> values = {3, 10, -1, 2, 3, 2, -1, 10}, targets = {1, 0, 0.5f, 0.25f, -1, 2, 3, 0.75f};
  const std::span<const std::byte> inputs[] = {std::as_bytes(std::span(values)), std::as_bytes(std::span(targets))};
  trainer.step(inputs);
  std::vector<float> result = p.truth(p.find("layer.weight")).read();
  for (const float bias : p.truth(p.find("norm.bias")).read()) result.push_back(bias);
  return result;
}

TEST(ShiftBasedNorm, HasTheOrdinaryGradientWithItsFactors) {
  EXPECT_EQ(after_a_step(true, 0.25f), after_a_step(false, 0.25f));
  EXPECT_EQ(after_a_step(true, 0.3f), after_a_step(false, 0.25f)) << "AP2(0.3) is 1/4";
  EXPECT_NE(after_a_step(false, 0.3f), after_a_step(false, 0.25f)) << "the control";
}

TEST(ShiftBasedNorm, IsBatchNorm) {
  Graph graph;
  const Value x = graph.input("x", {2, 2, 2, 4});
  try {
    group_norm(x, 2, {.name = "norm", .shift_based = true});
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "norm: only batch norm can be shift-based");
  }
  EXPECT_THROW(layer_norm(x, {.shift_based = true}), Error);
}

TEST(Binary, FindsRangesWithoutDoublingItsGroups) {
  const Task task("mlp", 100);
  Precision precision = Precision::binary();
  precision.range_steps = 2;
  EXPECT_TRUE(std::isfinite(Trainer(task.loss, task.options(precision)).epoch(task.train).loss));
}

TEST(Binary, SignsAreNoticedToo) {
  const Task task("mlp", 100);
  Trainer trainer(task.loss, task.options(Precision::binary().noticing()));
  trainer.epoch(task.train);
  const auto tensors = trainer.numerics().tensors;
  const auto has = [&](const char* name) {
    return std::any_of(tensors.begin(), tensors.end(),
                       [&](const auto& t) { return t.tensor == name && t.numbers > 0; });
  };
  EXPECT_TRUE(has("dense2.weight"));
  EXPECT_TRUE(has("dense1.weight"));
}

TEST(Binary, APackedFileHoldsABitAWeight) {
  const TemporaryFolder folder;
  const Task task("lenet5", 200);
  Trainer trainer(task.loss, task.options(Precision::binary())), other(task.loss, task.options(Precision::binary()));
  trainer.epoch(task.train);
  save_packed(folder / "packed", trainer.parameters(), {});
  SafeTensors file = read_safetensors(folder / "packed");
  EXPECT_EQ(file.at("conv2.weight").shape, std::vector<std::int64_t>{16 * 5 * 5 * 6 / 8});
  EXPECT_EQ(file.at("conv1.weight").dtype, DType::f32);
  load_model(folder / "packed", other.parameters());
  const auto bytes = [](const Trainer& trained, const ParameterSlot& slot) {
    return trained.parameters().weight(slot).read_bytes();
  };
  for (const ParameterSlot& slot : trainer.parameters().entries)
    EXPECT_EQ(bytes(trainer, slot), bytes(other, slot)) << slot.name;
  for (StoredTensor& tensor : file.tensors)
    if (tensor.name == "conv2.weight") tensor.data.pop_back(), --tensor.shape[0];
  write_safetensors(folder / "short", file.tensors, file.metadata);
  EXPECT_THROW(load_model(folder / "short", other.parameters()), FileError);

  file = read_safetensors(folder / "packed");
  for (StoredTensor& tensor : file.tensors)
    if (tensor.name == "dense3.bias") tensor = {tensor.name, DType::u8, {2}, std::vector<std::byte>(2)};
  write_safetensors(folder / "vector", file.tensors, file.metadata);
  EXPECT_THROW(load_model(folder / "vector", other.parameters()), FileError);

  TrainerOptions averaged = task.options(Precision::binary());
  averaged.average_decay = 0.9f;
  const Trainer with_average(task.loss, averaged);
  EXPECT_THROW(save_packed(folder / "average", with_average.parameters(), {}), Error);
}

/// A net with its own norms keeps them; inputs that no activation gives get a norm and a sign of their own.
TEST(Binary, ConvolutionalNetsAndResiduals) {
  for (const char* net : {"lenet5", "gupta"}) {
    const Task task(net, 200);
    Trainer trainer(task.loss, task.options(Precision::binary()));
    EXPECT_TRUE(std::isfinite(trainer.epoch(task.train).loss));
    EXPECT_EQ(trainer.parameters().find("conv2.weight").truth(), Store::masters);
  }
  Graph graph;
  Value x = graph.input("x", {4, 8, 8, 3});
  x = relu(batch_norm(conv2d(x, 8, 3)));
  x = batch_norm(conv2d(x, 8, 3)) + x;  // no activation before the next
  const Value y = dense(conv2d(x, 8, 3), 10);
  const auto weights = binarize(graph, Precision::binary());
  EXPECT_EQ(weights, (std::vector<std::string>{"conv2.weight", "conv3.weight"}));
  const auto names = nodes_of(graph);
  EXPECT_EQ(std::count(names.begin(), names.end(), "batch_norm"), 4);  // two, conv3.input_norm and conv3.norm
  EXPECT_EQ(std::count(names.begin(), names.end(), "cast"), 2);
  EXPECT_EQ(y.shape(), Shape::matrix(4, 10));
}

}  // namespace
}  // namespace halftone
