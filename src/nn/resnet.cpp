#include <fmt/format.h>

#include <cmath>

#include "halftone/nn/blocks.hpp"
#include "halftone/nn/models.hpp"
#include "halftone/ops/dense.hpp"
#include "halftone/ops/initializers.hpp"
#include "halftone/ops/pointwise.hpp"
#include "halftone/ops/pool2d.hpp"

namespace halftone {
namespace {

using Block = Value (*)(Value x, int channels, int stride);

struct Stage {
  int blocks, channels;
};

/// All stages but the first begin with a stride of 2.
Value stages(Value x, Block block, std::initializer_list<Stage> stages) {
  int number = 0;
  for (const Stage& stage : stages) {
    const Scope scope(graph_of(x), fmt::format("stage{}", ++number));
    for (int i = 0; i < stage.blocks; ++i) {
      const Scope inner(graph_of(x), fmt::format("block{}", i));
      x = block(x, stage.channels, number > 1 && i == 0 ? 2 : 1);
    }
  }
  return x;
}

}  // namespace

Value resnet20(Value images, int classes) {
  const Value x = relu(conv_norm(images, 16, 3));
  return dense(global_avg_pool(stages(x, basic_block, {{3, 16}, {3, 32}, {3, 64}})), classes);
}

Value resnet18(Value images, int classes) {
  const Value x = relu(conv_norm(images, 64, 3));
  return dense(global_avg_pool(stages(x, basic_block, {{2, 64}, {2, 128}, {2, 256}, {2, 512}})), classes);
}

Value resnet50(Value images, int classes) {
  Value x = relu(conv_norm(images, 64, 7, 2, normal(std::sqrt(2.0f / (64 * 7 * 7)))));
  x = max_pool2d(x, 3, {.stride = 2, .padding = 1});
  return dense(global_avg_pool(stages(x, bottleneck_block, {{3, 64}, {4, 128}, {6, 256}, {3, 512}})), classes);
}

}  // namespace halftone
