#include "halftone/nn/blocks.hpp"

#include <cmath>

#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/initializers.hpp"
#include "halftone/ops/norm.hpp"
#include "halftone/ops/pointwise.hpp"

namespace halftone {
namespace {

Initializer he_normal(int channels, int kernel) {
  return normal(std::sqrt(2.0f / static_cast<float>(channels * kernel * kernel)));
}

bool same_shape(Value x, int channels, int stride) { return stride == 1 && x.channels() == channels; }

}  // namespace

Value conv_norm(Value x, int channels, int kernel, int stride, std::optional<Initializer> weight_init) {
  return batch_norm(
      conv2d(x, channels, kernel, {.stride = stride, .bias = false, .weight_init = std::move(weight_init)}));
}

Value basic_block(Value x, int channels, int stride) {
  Value y = relu(conv_norm(x, channels, 3, stride));
  y = conv_norm(y, channels, 3);
  if (!same_shape(x, channels, stride)) {
    const Scope scope(graph_of(x), "shortcut");
    x = conv_norm(x, channels, 1, stride);
  }
  return relu(y + x);
}

Value bottleneck_block(Value x, int channels, int stride) {
  const int wide = 4 * channels;
  Value y = relu(conv_norm(x, channels, 1, 1, he_normal(channels, 1)));
  y = relu(conv_norm(y, channels, 3, stride, he_normal(channels, 3)));
  y = conv_norm(y, wide, 1, 1, he_normal(wide, 1));
  if (!same_shape(x, wide, stride)) {
    const Scope scope(graph_of(x), "shortcut");
    x = conv_norm(x, wide, 1, stride, he_normal(wide, 1));
  }
  return relu(y + x);
}

}  // namespace halftone
