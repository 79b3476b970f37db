#include "halftone/ops/pool2d.hpp"

#include <fmt/format.h>

namespace halftone {
namespace {

PoolAttributes attributes_of(Extent window, const PoolOptions& options) {
  return {.window = window,
          .stride = options.stride.value_or(window),
          .padding = options.padding,
          .ceil_mode = options.ceil_mode,
          .count_include_pad = options.count_include_pad};
}

/// How many windows fit: none where the first one ends behind the padding, unless rounding up allows it.
std::int64_t windows(std::int64_t in, int window, int stride, int padding, bool ceil_mode) {
  const std::int64_t span = in + 2 * std::int64_t{padding} - window + (ceil_mode ? stride - 1 : 0);
  const std::int64_t count = span < 0 ? 0 : span / stride + 1;
  return ceil_mode && (count - 1) * stride >= in + padding ? count - 1 : count;
}

std::vector<ValueSpec> pooled(const PoolAttributes& pool, const ValueSpec& input) {
  const Shape x = input.shape;
  if (pool.window.h < 1 || pool.window.w < 1 || pool.stride.h < 1 || pool.stride.w < 1)
    fail("window and stride must be at least 1");
  if (pool.padding.h < 0 || pool.padding.w < 0 || pool.padding.h >= pool.window.h || pool.padding.w >= pool.window.w)
    fail("padding must be at least 0 and less than the window");
  if (pool.global) return {{{x.n, 1, 1, x.c}}};
  const std::int64_t h = windows(x.h, pool.window.h, pool.stride.h, pool.padding.h, pool.ceil_mode),
                     w = windows(x.w, pool.window.w, pool.stride.w, pool.padding.w, pool.ceil_mode);
  if (h < 1 || w < 1)
    fail(
        fmt::format("the window {}x{} is larger than the padded input {}", pool.window.h, pool.window.w, to_string(x)));
  return {{{x.n, h, w, x.c}}};
}

PoolAttributes whole_image() { return {.window = 1, .stride = 1, .padding = 0, .global = true}; }

}  // namespace

Value max_pool2d(Value x, Extent window, const PoolOptions& options) {
  return graph_of(x).add_one(std::make_shared<MaxPool2d>(attributes_of(window, options)), {x});
}
Value avg_pool2d(Value x, Extent window, const PoolOptions& options) {
  return graph_of(x).add_one(std::make_shared<AvgPool2d>(attributes_of(window, options)), {x});
}
Value global_avg_pool(Value x) { return graph_of(x).add_one(std::make_shared<AvgPool2d>(whole_image()), {x}); }
Value global_max_pool(Value x) { return graph_of(x).add_one(std::make_shared<MaxPool2d>(whole_image()), {x}); }

std::vector<ValueSpec> MaxPool2d::infer(std::span<const ValueSpec> inputs) const { return pooled(pool, inputs[0]); }

std::vector<Value> MaxPool2d::gradient(const GradientRequest& request) const {
  return {graph_of(request.inputs[0])
              .add_one(std::make_shared<MaxPool2dGradient>(pool), {request.d_outputs[0], request.inputs[0]})};
}

std::shared_ptr<const Op> MaxPool2dGradient::with_slope(const Activation& activation) const {
  if (!std::holds_alternative<Relu>(activation)) return nullptr;
  auto fused = std::make_shared<MaxPool2dGradient>(*this);
  fused->rectified = true;
  return fused;
}

std::vector<ValueSpec> AvgPool2d::infer(std::span<const ValueSpec> inputs) const { return pooled(pool, inputs[0]); }

std::vector<Value> AvgPool2d::gradient(const GradientRequest& request) const {
  const Shape x = request.inputs[0].shape();
  const Extent extent(static_cast<int>(x.h), static_cast<int>(x.w));
  return {
      graph_of(request.inputs[0]).add_one(std::make_shared<AvgPool2dGradient>(pool, extent), {request.d_outputs[0]})};
}

std::vector<ValueSpec> AvgPool2dGradient::infer(std::span<const ValueSpec> inputs) const {
  return {{{inputs[0].shape.n, extent.h, extent.w, inputs[0].shape.c}, DType::f32, Role::activation_gradient}};
}

}  // namespace halftone
