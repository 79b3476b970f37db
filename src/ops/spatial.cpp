#include "halftone/ops/spatial.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "halftone/ops/initializers.hpp"
#include "halftone/ops/sum_rows.hpp"

namespace halftone {
namespace {

constexpr int most = 1 << 20;  ///< no sum of extents overflows

ValueSpec gradient_spec(const Shape& shape) { return {shape, DType::f32, Role::activation_gradient}; }

}  // namespace

Value pad2d(Value x, const Margins& margins) { return graph_of(x).add_one(std::make_shared<Pad2d>(margins), {x}); }

Value upsample2d(Value x, Extent factor, Interpolation interpolation) {
  return graph_of(x).add_one(std::make_shared<Upsample2d>(factor, interpolation), {x});
}

Value scale_channels(Value x, Value factors) {
  return graph_of(x).add_one(std::make_shared<ScaleChannels>(), {x, factors});
}

Value add_channels(Value x, Value numbers) {
  return graph_of(x).add_one(std::make_shared<AddChannels>(), {x, numbers});
}

Value conv_transpose2d(Value x, int channels, Extent kernel, const ConvTranspose2dOptions& options) {
  Graph g = graph_of(x);
  const std::string name = options.name.empty() ? g.numbered("conv_transpose") : options.name;
  const auto op = std::make_shared<ConvTranspose2d>(
      ConvAttributes{options.stride, options.padding, options.dilation, options.groups}, options.output_padding);
  const Shape shape{x.channels(), kernel.h, kernel.w, channels / std::max(options.groups, 1)};
  naming(g.scoped(name), [&] {  // before any parameter is made
    if (channels < 1 || kernel.h < 1 || kernel.w < 1) fail("channels and kernel must be at least 1");
    if (channels % std::max(options.groups, 1) != 0)
      fail(fmt::format("{} groups do not divide {} channels", options.groups, channels));
    op->infer(std::vector<ValueSpec>{x.spec(), {shape}});
  });
  const float bound = 1 / std::sqrt(static_cast<float>(shape.features()));
  const Value weight = g.parameter(name + ".weight", shape, options.weight_init.value_or(uniform(bound)), 4);
  const Value y = g.add_one(op, {x, weight}, name);
  if (!options.bias) return y;
  return add_channels(y, g.parameter(name + ".bias", Shape::vector(channels), uniform(bound), 1));
}

std::vector<ValueSpec> Pad2d::infer(std::span<const ValueSpec> inputs) const {
  Shape y = inputs[0].shape;
  const auto [top, bottom, left, right] = margins;
  for (const int margin : {top, bottom, left, right})
    if (std::abs(std::int64_t{margin}) >= most) fail("margins must be less than 2^20");
  for (const auto& [extent, first, last] : {std::tuple(y.h, top, bottom), std::tuple(y.w, left, right)})
    if (std::min({extent + first, extent + last, extent + first + last}) < 1)
      fail(fmt::format("margins of {}, {}, {} and {} leave nothing of {}", top, bottom, left, right, to_string(y)));
  y.h += top + bottom, y.w += left + right;
  return {{y, DType::f32, result_role(inputs)}};
}

std::vector<Value> Pad2d::gradient(const GradientRequest& request) const {
  const auto [top, bottom, left, right] = margins;
  return {graph_of(request.d_outputs[0])
              .add_one(std::make_shared<Pad2d>(Margins{-top, -bottom, -left, -right}), {request.d_outputs[0]})};
}

std::vector<ValueSpec> Upsample2d::infer(std::span<const ValueSpec> inputs) const {
  if (std::min(factor.h, factor.w) < 1 || std::max(factor.h, factor.w) >= most)
    fail(fmt::format("factors {} and {} are not between 1 and 2^20", factor.h, factor.w));
  Shape y = inputs[0].shape;
  y.h *= factor.h, y.w *= factor.w;
  return {{y}};
}

std::vector<Value> Upsample2d::gradient(const GradientRequest& request) const {
  return {graph_of(request.d_outputs[0])
              .add_one(std::make_shared<Upsample2dGradient>(factor, interpolation), {request.d_outputs[0]})};
}

std::vector<ValueSpec> Upsample2dGradient::infer(std::span<const ValueSpec> inputs) const {
  Shape x = inputs[0].shape;
  x.h /= factor.h, x.w /= factor.w;
  return {gradient_spec(x)};
}

std::vector<ValueSpec> ScaleChannels::infer(std::span<const ValueSpec> inputs) const {
  const Shape &x = inputs[0].shape, &f = inputs[1].shape;
  if (f != Shape{x.n, 1, 1, x.c})
    fail(fmt::format("factors {} are not one for each channel of each image of {}", to_string(f), to_string(x)));
  return {{x, DType::f32, result_role(inputs)}};
}

std::vector<Value> ScaleChannels::gradient(const GradientRequest& request) const {
  Graph g = graph_of(request.d_outputs[0]);
  const Value& d_y = request.d_outputs[0];
  std::vector<Value> d(2);
  if (request.wanted[0]) d[0] = g.add_one(std::make_shared<ScaleChannels>(), {d_y, request.inputs[1]});
  if (request.wanted[1]) d[1] = g.add_one(std::make_shared<ScaleChannelsGradient>(), {d_y, request.inputs[0]});
  return d;
}

std::vector<ValueSpec> ScaleChannelsGradient::infer(std::span<const ValueSpec> inputs) const {
  const Shape& x = inputs[1].shape;
  return {gradient_spec({x.n, 1, 1, x.c})};
}

std::vector<ValueSpec> AddChannels::infer(std::span<const ValueSpec> inputs) const {
  if (inputs[1].shape != Shape::vector(inputs[0].shape.c))
    fail(fmt::format("{} does not fit the channels of {}", to_string(inputs[1].shape), to_string(inputs[0].shape)));
  return {{inputs[0].shape}};
}

std::vector<Value> AddChannels::gradient(const GradientRequest& request) const {
  const Value& d_y = request.d_outputs[0];
  std::vector<Value> d = {d_y, {}};
  if (request.wanted[1]) d[1] = graph_of(d_y).add_one(std::make_shared<SumRows>(), {d_y});
  return d;
}

std::vector<ValueSpec> ConvTranspose2d::infer(std::span<const ValueSpec> inputs) const {
  conv.check();
  const Shape x = inputs[0].shape, w = inputs[1].shape;
  if (x.c != w.n || w.n % conv.groups != 0)
    fail(fmt::format("input {} does not fit weights {} in {} groups", to_string(x), to_string(w), conv.groups));
  const auto extent = [](std::int64_t in, std::int64_t taps, int stride, int padding, int dilation, int more) {
    if (more < 0 || more >= std::max(stride, dilation)) fail("output padding must be less than stride or dilation");
    return (in - 1) * stride - 2 * std::int64_t{padding} + dilation * (taps - 1) + more + 1;
  };
  const Shape y{x.n, extent(x.h, w.h, conv.stride.h, conv.padding.h, conv.dilation.h, output_padding.h),
                extent(x.w, w.w, conv.stride.w, conv.padding.w, conv.dilation.w, output_padding.w), w.c * conv.groups};
  if (y.h < 1 || y.w < 1) fail(fmt::format("the padding leaves nothing of {}", to_string(x)));
  return {{y}};
}

double ConvTranspose2d::operations(std::span<const ValueSpec> inputs, std::span<const ValueSpec>) const {
  return 2.0 * static_cast<double>(inputs[0].shape.elements()) * static_cast<double>(inputs[1].shape.features());
}

std::vector<Value> ConvTranspose2d::gradient(const GradientRequest& request) const {
  const Value &x = request.inputs[0], &w = request.inputs[1], &d_y = request.d_outputs[0];
  Graph g = graph_of(x);
  std::vector<Value> d(2);
  if (request.wanted[0]) {
    d[0] = g.add_one(std::make_shared<Conv2d>(conv), {d_y, w});
    // Where the output padding reaches the stride, there are pixels more than x has.
    const Margins margins{.bottom = static_cast<int>(x.shape().h - d[0].shape().h),
                          .right = static_cast<int>(x.shape().w - d[0].shape().w)};
    if (margins.bottom != 0 || margins.right != 0) d[0] = g.add_one(std::make_shared<Pad2d>(margins), {d[0]});
  }
  if (request.wanted[1]) d[1] = g.add_one(std::make_shared<Conv2dDWeight>(conv, w.shape()), {d_y, x});
  return d;
}

}  // namespace halftone
