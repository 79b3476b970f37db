#include "halftone/ops/conv2d.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "halftone/ops/initializers.hpp"
#include "halftone/ops/sum_rows.hpp"

namespace halftone {
namespace {

constexpr int largest_attribute = 1 << 20;  ///< no sum of extents overflows

std::int64_t output_extent(std::int64_t in, std::int64_t kernel, int stride, int padding, int extra, int dilation) {
  const std::int64_t span = in + 2 * std::int64_t{padding} + extra - dilation * (kernel - 1) - 1;
  return span < 0 ? 0 : span / stride + 1;
}

ConvAttributes attributes_of(const Conv2dOptions& options, Extent kernel) {
  ConvAttributes conv{options.stride, 0, options.dilation, options.groups};
  if (options.padding) {
    conv.padding = *options.padding;
    return conv;
  }
  const auto all = [](int dilation, int taps) {
    return static_cast<int>(std::min<std::int64_t>(std::int64_t{dilation} * (taps - 1), 2 * largest_attribute));
  };
  const Extent same{all(options.dilation.h, kernel.h), all(options.dilation.w, kernel.w)};
  conv.padding = {same.h / 2, same.w / 2};
  conv.extra = {same.h % 2, same.w % 2};
  return conv;
}

}  // namespace

void ConvAttributes::check() const {
  if (stride.h < 1 || stride.w < 1) fail("stride must be at least 1");
  if (dilation.h < 1 || dilation.w < 1) fail("dilation must be at least 1");
  if (std::min({padding.h, padding.w, extra.h, extra.w}) < 0) fail("padding must not be negative");
  if (groups < 1) fail("groups must be at least 1");
  for (const Extent& e : {stride, padding, dilation, extra})
    if (std::max(e.h, e.w) >= largest_attribute) fail("stride, padding and dilation must be less than 2^20");
}

Value conv2d(Value x, int channels, Extent kernel, const Conv2dOptions& options) {
  Graph g = graph_of(x);
  const std::string name = options.name.empty() ? g.numbered("conv") : options.name;
  const auto op = std::make_shared<Conv2d>(attributes_of(options, kernel));
  const Shape shape{channels, kernel.h, kernel.w, x.channels() / std::max(options.groups, 1)};
  naming(g.scoped(name), [&] {  // before any parameter is made
    if (channels < 1 || kernel.h < 1 || kernel.w < 1) fail("channels and kernel must be at least 1");
    op->infer(std::vector<ValueSpec>{x.spec(), {shape}});
  });
  const float bound = 1 / std::sqrt(static_cast<float>(shape.features()));
  const Value weight = g.parameter(name + ".weight", shape, options.weight_init.value_or(uniform(bound)), 4);
  std::vector<Value> inputs{x, weight};
  if (options.bias) inputs.push_back(g.parameter(name + ".bias", Shape::vector(channels), uniform(bound), 1));
  return g.add_one(op, inputs, name);
}

Value conv2d(Value x, Value weight, Value bias, const Conv2dOptions& options) {
  const Extent kernel(static_cast<int>(weight.shape().h), static_cast<int>(weight.shape().w));
  std::vector<Value> inputs{x, weight};
  if (bias) inputs.push_back(bias);
  return graph_of(x).add_one(std::make_shared<Conv2d>(attributes_of(options, kernel)), inputs, options.name);
}

std::vector<ValueSpec> Conv2d::infer(std::span<const ValueSpec> inputs) const {
  const Shape x = inputs[0].shape, w = inputs[1].shape;
  conv.check();
  if (x.c != w.c * conv.groups || w.n % conv.groups)
    fail(fmt::format("input {} does not fit weights {} in {} groups", to_string(x), to_string(w), conv.groups));
  if (inputs.size() > 2 && inputs[2].shape != Shape::vector(w.n))
    fail(fmt::format("bias {} does not fit {} output channels", to_string(inputs[2].shape), w.n));
  const Shape y{x.n, output_extent(x.h, w.h, conv.stride.h, conv.padding.h, conv.extra.h, conv.dilation.h),
                output_extent(x.w, w.w, conv.stride.w, conv.padding.w, conv.extra.w, conv.dilation.w), w.n};
  if (y.h < 1 || y.w < 1)
    fail(fmt::format("the kernel {}x{} is larger than the padded input {}", w.h, w.w, to_string(x)));
  return {{y}};
}

std::vector<Value> Conv2d::gradient(const GradientRequest& request) const {
  const Value &x = request.inputs[0], &w = request.inputs[1], &d_y = request.d_outputs[0];
  Graph g = graph_of(x);
  std::vector<Value> d(request.inputs.size());
  if (request.wanted[1]) d[1] = g.add_one(std::make_shared<Conv2dDWeight>(conv, w.shape()), {x, d_y});
  if (d.size() > 2 && request.wanted[2]) d[2] = g.add_one(std::make_shared<SumRows>(), {d_y});
  if (request.wanted[0]) {
    const Extent extent(static_cast<int>(x.shape().h), static_cast<int>(x.shape().w));
    d[0] = g.add_one(std::make_shared<Conv2dDInput>(conv, extent), {d_y, w});
  }
  return d;
}

std::vector<ValueSpec> Conv2dDInput::infer(std::span<const ValueSpec> inputs) const {
  return {{{inputs[0].shape.n, extent.h, extent.w, inputs[1].shape.c * conv.groups},
           DType::f32,
           Role::activation_gradient}};
}

std::vector<ValueSpec> Conv2dDWeight::infer(std::span<const ValueSpec>) const {
  return {{shape, DType::f32, Role::weight_gradient}};
}

// Taps that find padding count: 2 times the output's numbers times the taps of a filter, whichever is looked for.

double Conv2d::operations(std::span<const ValueSpec> inputs, std::span<const ValueSpec> outputs) const {
  return 2.0 * static_cast<double>(outputs[0].shape.elements() * inputs[1].shape.features());
}

double Conv2dDInput::operations(std::span<const ValueSpec> inputs, std::span<const ValueSpec>) const {
  return 2.0 * static_cast<double>(inputs[0].shape.elements() * inputs[1].shape.features());
}

double Conv2dDWeight::operations(std::span<const ValueSpec> inputs, std::span<const ValueSpec>) const {
  return 2.0 * static_cast<double>(inputs[1].shape.elements() * shape.features());
}

}  // namespace halftone
