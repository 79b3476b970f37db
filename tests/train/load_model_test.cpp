#include "halftone/train/load_model.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <fstream>

#include "halftone/halftone.hpp"
#include "tests/io/temporary_folder.hpp"

namespace halftone {
namespace {

const Device device = cpu_device({.threads = 1});

/// A tensor as PyTorch would save it.
struct Foreign {
  std::string name, dtype;
  std::vector<std::int64_t> shape;
  std::string bytes;
};

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

/// Writes the format by its description, without Halftone's writer.
void write(const std::filesystem::path& path, const std::vector<Foreign>& tensors, const std::string& metadata = "") {
  std::string header = "{" + metadata, data;
  for (const Foreign& t : tensors) {
    std::string shape;
    for (const auto extent : t.shape) shape.append(shape.empty() ? "" : ",").append(std::to_string(extent));
    header += (header.size() > 1 ? ",\"" : "\"") + t.name + R"(":{"dtype":")" + t.dtype + R"(","shape":[)" + shape +
              R"(],"data_offsets":[)" + std::to_string(data.size()) + "," +
              std::to_string(data.size() + t.bytes.size()) + "]}";
    data += t.bytes;
  }
  header += "}";
  const std::uint64_t length = header.size();
  std::ofstream(path, std::ios::binary) << bytes_of<std::uint64_t>({length}) << header << data;
}

std::vector<float> counted(std::size_t n, float first) {
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = first + static_cast<float>(i);
  return values;
}

/// conv1 [3, 2, 2, 3 of input], norm1, dense1 over 2x2x3.
struct Net {
  Graph graph;
  Value logits = dense(dropout(relu(flatten(batch_norm(conv2d(graph.input("images", {1, 2, 2, 3}), 3, 3)))), 0.5f), 2);
  Parameters parameters{graph, device, {.gradients = false}};

  std::vector<float> at(const std::string& name) const { return parameters.weight(parameters.find(name)).read(); }
};

/// The same net's file in PyTorch's order and with its counter.
std::vector<Foreign> torch_file() {
  return {{"conv1.weight", "F32", {3, 3, 3, 3}, bytes_of(counted(81, 0))},
          {"conv1.bias", "F32", {3}, bytes_of(counted(3, 100))},
          {"norm1.weight", "F32", {3}, bytes_of(counted(3, 200))},
          {"norm1.bias", "F32", {3}, bytes_of(counted(3, 300))},
          {"norm1.running_mean", "F32", {3}, bytes_of(counted(3, 400))},
          {"norm1.running_var", "F32", {3}, bytes_of(counted(3, 500))},
          {"norm1.num_batches_tracked", "I64", {}, bytes_of<std::int64_t>({7})},
          {"dense1.weight", "F32", {2, 12}, bytes_of(counted(24, 600))},
          {"dense1.bias", "F32", {2}, bytes_of(counted(2, 700))}};
}

struct LoadModel : ::testing::Test {
  TemporaryFolder folder;
  std::filesystem::path file = folder / "model.safetensors";
  Net net;
  static constexpr Layout kcrs = Layout::kcrs;
  static constexpr FlattenOrder chw = FlattenOrder::chw;

  /// What it is refused with; the net must stay as it was.
  std::string refusal(const LoadOptions& options) {
    const auto& weights = net.parameters;
    const std::vector<std::byte> before(weights.data(Store::weights),
                                        weights.data(Store::weights) + weights.bytes(Store::weights));
    std::string message = "it was taken";
    try {
      load_model(file, net.parameters, options);
    } catch (const Error& error) {
      message = error.what();
    }
    EXPECT_TRUE(std::equal(before.begin(), before.end(), weights.data(Store::weights))) << message;
    return message;
  }
  void expect_refused(const LoadOptions& options, const std::vector<std::string>& parts) {
    const std::string message = refusal(options);
    for (const std::string& part : parts) EXPECT_NE(message.find(part), std::string::npos) << part << ": " << message;
  }
};

TEST_F(LoadModel, ReadsPyTorchsOrder) {
  write(file, torch_file());
  const LoadReport report = load_model(file, net.parameters, {.layout = kcrs, .flatten = chw});
  EXPECT_EQ(report.unread, std::vector<std::string>{"norm1.num_batches_tracked"});
  EXPECT_TRUE(report.kept.empty());
  const auto conv = net.at("conv1.weight"), dense = net.at("dense1.weight");
  for (int k = 0; k < 3; ++k)
    for (int r = 0; r < 3; ++r)
      for (int s = 0; s < 3; ++s)
        for (int c = 0; c < 3; ++c)
          EXPECT_EQ(conv[at(((k * 3 + r) * 3 + s) * 3 + c)], static_cast<float>(((k * 3 + c) * 3 + r) * 3 + s));
  for (int unit = 0; unit < 2; ++unit)
    for (int h = 0; h < 2; ++h)
      for (int w = 0; w < 2; ++w)
        for (int c = 0; c < 3; ++c)
          EXPECT_EQ(dense[at(unit * 12 + (h * 2 + w) * 3 + c)],
                    static_cast<float>(600 + unit * 12 + (c * 2 + h) * 2 + w));
  EXPECT_EQ(net.at("conv1.bias"), counted(3, 100));
  EXPECT_EQ(net.parameters.statistic(0).read(), counted(3, 400));
  EXPECT_EQ(net.parameters.statistic(1).read(), counted(3, 500));
}

TEST_F(LoadModel, NeverGuessesAnOrder) {
  write(file, torch_file());  // each weight has the same extents in either order
  expect_refused({}, {file.string(), "conv1.weight", "layout", "krsc", "kcrs"});
  expect_refused({.layout = kcrs}, {file.string(), "dense1.weight", "flatten", "hwc", "chw"});
  expect_refused({.flatten = chw}, {"conv1.weight", "layout"});
  load_model(file, net.parameters, {.layout = Layout::krsc, .flatten = FlattenOrder::hwc});
  EXPECT_EQ(net.at("conv1.weight"), counted(81, 0));
  EXPECT_EQ(net.at("dense1.weight"), counted(24, 600));
}

TEST_F(LoadModel, MetadataSayTheOrder) {
  write(file, torch_file(), R"("__metadata__":{"layout":"kcrs","flatten":"chw"})");
  load_model(file, net.parameters);
  EXPECT_EQ(net.at("conv1.weight")[1], 9);
  EXPECT_EQ(net.at("dense1.weight")[1], 604);
  expect_refused({.layout = Layout::krsc}, {file.string(), "layout", "kcrs"});
  write(file, torch_file(), R"("__metadata__":{"layout":"nchw"})");
  expect_refused({.layout = kcrs}, {file.string(), "layout", "nchw"});
}

TEST_F(LoadModel, OrdersMatterOnlyWhereTheyDo) {
  Graph graph;
  dense(dense(graph.input("digit", {1, 2, 2, 1}), 3), 3);  // one channel, then one pixel
  Parameters parameters(graph, device, {.gradients = false});
  write(file, {{"dense1.weight", "F32", {3, 4}, bytes_of(counted(12, 0))},
               {"dense1.bias", "F32", {3}, bytes_of(counted(3, 0))},
               {"dense2.weight", "F32", {3, 3}, bytes_of(counted(9, 20))},
               {"dense2.bias", "F32", {3}, bytes_of(counted(3, 0))}});
  load_model(file, parameters);
  EXPECT_EQ(parameters.weight(parameters.find("dense2.weight")).read(), counted(9, 20));
}

TEST_F(LoadModel, WidensEveryFloatExactly) {
  // 1, -2, the largest, the smallest: codes from the formats' definitions.
  auto tensors = torch_file();
  tensors[1] = {"conv1.bias", "F16", {3}, bytes_of<std::uint16_t>({0x3c00, 0x7bff, 0x0001})};
  tensors[2] = {"norm1.weight", "BF16", {3}, bytes_of<std::uint16_t>({0xc000, 0x7f7f, 0x0001})};
  tensors[3] = {"norm1.bias", "F8_E4M3", {3}, bytes_of<std::uint8_t>({0x38, 0x7e, 0x01})};
  tensors[4] = {"norm1.running_mean", "F8_E5M2", {3}, bytes_of<std::uint8_t>({0x3c, 0x7b, 0x01})};
  write(file, tensors);
  const LoadOptions options{.layout = kcrs, .flatten = chw};
  load_model(file, net.parameters, options);
  EXPECT_EQ(net.at("conv1.bias"), (std::vector<float>{1, 65504, 0x1p-24f}));
  EXPECT_EQ(net.at("norm1.weight"), (std::vector<float>{-2, 0x1.fep127f, 0x1p-133f}));
  EXPECT_EQ(net.at("norm1.bias"), (std::vector<float>{1, 448, 0x1p-9f}));
  EXPECT_EQ(net.parameters.statistic(0).read(), (std::vector<float>{1, 57344, 0x1p-16f}));
  tensors[1] = {"conv1.bias", "F16", {3}, bytes_of<std::uint16_t>({0x3c00, 0x7c00, 0})};
  write(file, tensors);
  expect_refused(options, {file.string(), "conv1.bias", "not finite"});
  tensors[1] = {"conv1.bias", "F64", {3}, bytes_of<double>({1, 2, 3})};
  write(file, tensors);
  expect_refused(options, {file.string(), "conv1.bias", "F64"});
  tensors[1] = {"conv1.bias", "I32", {3}, bytes_of<std::int32_t>({1, 2, 3})};
  write(file, tensors);
  expect_refused(options, {file.string(), "conv1.bias", "i32"});
}

TEST_F(LoadModel, TakesNames) {
  auto tensors = torch_file();
  for (Foreign& tensor : tensors)
    if (tensor.name.starts_with("norm")) tensor.name.replace(0, 4, "layer.bn");
  write(file, tensors);
  LoadOptions options{.layout = kcrs, .flatten = chw};
  expect_refused(options, {"norm1.weight", "missing"});
  options.name = [](const std::string& name) { return name.starts_with("norm") ? "layer.bn" + name.substr(4) : name; };
  load_model(file, net.parameters, options);
  EXPECT_EQ(net.at("norm1.weight"), counted(3, 200));
  options.name = [](const std::string&) { return "conv1.weight"; };
  expect_refused(options, {"conv1.bias", "are called conv1.weight"});
}

TEST_F(LoadModel, TakesAPart) {
  auto tensors = torch_file();
  tensors[7] = {"dense1.weight", "F32", {1000, 12}, bytes_of(counted(12000, 0))};
  write(file, tensors);
  const auto head = net.at("dense1.weight");
  LoadOptions options{.layout = kcrs, .scopes = {"conv1", "norm1"}};
  const LoadReport report = load_model(file, net.parameters, options);
  EXPECT_EQ(report.kept, (std::vector<std::string>{"dense1.weight", "dense1.bias"}));
  EXPECT_EQ(report.unread, (std::vector<std::string>{"norm1.num_batches_tracked", "dense1.weight", "dense1.bias"}));
  EXPECT_EQ(net.at("conv1.bias"), counted(3, 100));
  EXPECT_EQ(net.at("dense1.weight"), head);
  options.scopes = {"conv1", "conv"};
  expect_refused(options, {"\"conv\""});
}

TEST_F(LoadModel, StartsAGraphFromAFileWithANewHead) {
  write(file, torch_file());
  Net net;
  Graph graph;
  const Value x = graph.input("images", {1, 2, 2, 3});
  const Value logits = dense(relu(flatten(batch_norm(conv2d(x, 3, 3)))), 5);  // of five classes, not two
  EXPECT_EQ(head_of(logits), (std::vector<std::string>{"dense1.weight", "dense1.bias"}));
  EXPECT_EQ(head_of(relu(logits)), head_of(logits));
  EXPECT_THROW(head_of(x), Error);

  const LoadOptions options{.layout = Layout::kcrs, .flatten = FlattenOrder::chw};
  EXPECT_THROW(start_from(file, graph, options), FileError) << "the head does not fit";
  LoadOptions trunk = options;
  trunk.left_out = head_of(logits);
  const Parameters born(graph, device, {.seed = 3});
  const LoadReport report = start_from(file, graph, trunk);
  EXPECT_EQ(report.kept, trunk.left_out);
  EXPECT_EQ(report.unread, (std::vector<std::string>{"norm1.num_batches_tracked", "dense1.weight", "dense1.bias"}));
  load_model(file, net.parameters, options);
  for (const std::uint64_t seed : {3, 4}) {
    const Parameters begun(graph, device, {.seed = seed});
    const auto at = [&](const Parameters& p, const std::string& name) { return p.weight(p.find(name)).read(); };
    for (const char* name : {"conv1.weight", "conv1.bias", "norm1.weight", "norm1.bias"})
      EXPECT_EQ(at(begun, name), net.at(name)) << name;
    EXPECT_EQ(begun.statistic(1).read(), counted(3, 500));
    EXPECT_EQ(at(begun, "dense1.weight") == at(born, "dense1.weight"), seed == 3) << "the seed's, not the file's";
  }
  trunk.left_out = {"dense"};
  EXPECT_THROW(start_from(file, graph, trunk), Error) << "nothing lies there";
}

TEST_F(LoadModel, RefusesWhatDoesNotFit) {
  const LoadOptions options{.layout = kcrs, .flatten = chw};
  auto tensors = torch_file();
  tensors.push_back({"conv2.bias", "F32", {1}, bytes_of(counted(1, 0))});
  write(file, tensors);
  expect_refused(options, {file.string(), "conv2.bias", "no place"});
  tensors.pop_back();
  tensors.pop_back();
  write(file, tensors);
  expect_refused(options, {file.string(), "dense1.bias", "missing"});
  tensors = torch_file();
  tensors[0].shape = {3, 1, 9, 3};
  write(file, tensors);
  expect_refused(options, {"conv1.weight", "[3, 1, 9, 3]", "[3, 3, 3, 3]"});
}

}  // namespace
}  // namespace halftone
