// ONNX files: small sound nets that are changed, cut or spliced.
#include "halftone/train/onnx.hpp"

#include "halftone/ops/dense.hpp"
#include "halftone/ops/norm.hpp"
#include "halftone/ops/pointwise.hpp"
#include "halftone/ops/pool2d.hpp"
#include "halftone/ops/softmax.hpp"
#include "halftone/ops/spatial.hpp"
#include "tests/fuzz/input.hpp"

using namespace halftone;

namespace {

Value net(Value x) {
  x = relu6(batch_norm(conv2d(x, 2, 3, {.stride = 2})));
  x = max_pool2d(concat({x, silu(x)}), 2, {.ceil_mode = true});
  x = pad2d(upsample2d(conv_transpose2d(hard_swish(x), 2, 2), 2, Interpolation::bilinear), {0, 1, -1, 0});
  x = scale_channels(x, hard_sigmoid(global_avg_pool(x)));
  x = gelu(scale_channels(x, sigmoid(dense(flatten(global_avg_pool(x)), 2))));
  return dense(dropout(softmax(flatten(x + x)), 0.5f), 3);
}

std::string content_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  static const std::filesystem::path path = fuzz::folder() / "net.onnx";
  static const std::string sound = [] {
    Graph graph;
    const Value y = net(graph.input("images", {1, 6, 6, 1}));
    const int wanted[] = {y.id()};
    write_onnx(path, y, Parameters(for_inference(graph, wanted), cpu_device({.threads = 1}), {.gradients = false}));
    return content_of(path);
  }();
  FuzzedDataProvider input(bytes, size);
  std::string content = sound;
  while (input.remaining_bytes() > 0 && !content.empty()) {
    const auto from = input.ConsumeIntegralInRange<std::size_t>(0, content.size() - 1);
    switch (input.ConsumeIntegralInRange(0, 3)) {
      case 0:
        content[from] = static_cast<char>(input.ConsumeIntegral<std::uint8_t>());
        break;
      case 1:
        content.insert(from, input.ConsumeRandomLengthString(20));
        break;
      case 2:
        content.erase(from, input.ConsumeIntegralInRange<std::size_t>(1, 30));
        break;
      case 3:
        content.insert(from, content.substr(input.ConsumeIntegralInRange<std::size_t>(0, content.size() - 1), 40));
    }
  }
  fuzz::write(path, content);
  fuzz::answered([&] {
    const Net read = read_onnx(path);
    Graph graph;
    read.build(graph.input("images", {2, 6, 6, 1}), 3);
    fuzz::answered([&] { onnx_net("again", read.graph); });
  });
  return 0;
}
