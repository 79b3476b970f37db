#include <fmt/format.h>

#include <cmath>

#include "halftone/nn/models.hpp"
#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/dense.hpp"
#include "halftone/ops/initializers.hpp"
#include "halftone/ops/norm.hpp"
#include "halftone/ops/pointwise.hpp"
#include "halftone/ops/pool2d.hpp"

namespace halftone {
namespace {

/// Frozen filters for `whiten`, and a bias that is trained.
Value whitening(Value images) {
  Graph g = graph_of(images);
  const std::int64_t channels = images.channels(), filters = 2 * (2 * 2 * channels);
  const float bound = 1 / std::sqrt(static_cast<float>(2 * 2 * channels));
  const Scope scope(g, "whitening");
  const Value weight = g.parameter("weight", {filters, 2, 2, channels}, uniform(bound), 4, false);
  const Value bias = g.parameter("bias", Shape::vector(filters), constant(0), 1);
  return gelu(conv2d(images, weight, bias, {.padding = 0}));
}

/// A 3x3 convolution that begins as the identity on as many channels as go in.
Value conv(Value x, int channels) {
  const float bound = 1 / std::sqrt(static_cast<float>(9 * x.channels()));
  const Shape shape{channels, 3, 3, x.channels()};
  return conv2d(x, channels, 3, {.bias = false, .weight_init = identity_first(shape, uniform(bound))});
}

Value norm(Value x) { return gelu(batch_norm(x, {.epsilon = 1e-12f, .momentum = 0.4f, .scale = false})); }

}  // namespace

Value airbench94(Value images, int classes) {
  Value x = whitening(images);
  int number = 0;
  for (const int channels : {64, 256, 256}) {
    const Scope scope(graph_of(x), fmt::format("group{}", ++number));
    x = norm(max_pool2d(conv(x, channels), 2));
    x = norm(conv(x, channels));
  }
  return scale(dense(global_max_pool(x), classes, {.bias = false}), 1.0f / 9);
}

}  // namespace halftone
