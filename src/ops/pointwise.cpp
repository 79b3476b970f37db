#include "halftone/ops/pointwise.hpp"

#include <fmt/format.h>

#include "halftone/ops/spatial.hpp"

namespace halftone {

Value activate(Value x, const Activation& activation) {
  return graph_of(x).add_one(std::make_shared<Activate>(activation), {x}, graph_of(x).numbered(name_of(activation)));
}
Value add(Value a, Value b) { return graph_of(a).add_one(std::make_shared<Add>(), {a, b}); }
Value multiply(Value a, Value b) { return graph_of(a).add_one(std::make_shared<Multiply>(), {a, b}); }
Value scale(Value x, float factor) { return graph_of(x).add_one(std::make_shared<Scale>(factor), {x}); }
Value cast(Value x, const Storage& storage) { return graph_of(x).add_one(std::make_shared<Cast>(storage), {x}); }
Value reshape(Value x, Shape shape) { return graph_of(x).add_one(std::make_shared<Reshape>(shape), {x}); }
Value flatten(Value x) { return reshape(x, {-1, 1, 1, x.shape().features()}); }

Value concat(std::span<const Value> parts) {
  if (parts.empty()) fail("concat: there is nothing to join");
  return graph_of(parts[0]).add_one(std::make_shared<Concat>(), {parts.begin(), parts.end()});
}

Value slice(Value x, std::int64_t first, std::int64_t count) {
  return graph_of(x).add_one(std::make_shared<Slice>(first, count), {x});
}

Value dropout(Value x, float rate) {
  return graph_of(x).add_one(std::make_shared<Dropout>(rate, graph_of(x).new_stream()), {x});
}

Value normalize(Value x, std::vector<float> mean, std::vector<float> stddev) {
  return graph_of(x).add_one(std::make_shared<Normalize>(std::move(mean), std::move(stddev)), {x});
}

std::vector<ValueSpec> Activate::infer(std::span<const ValueSpec> inputs) const {
  if (const auto* leaky = std::get_if<LeakyRelu>(&activation); leaky && !(leaky->negative_slope >= 0))
    fail(fmt::format("negative_slope {}: it must not be negative", leaky->negative_slope));
  return Elementwise::infer(inputs);
}

std::vector<Value> Activate::gradient(const GradientRequest& request) const {
  const bool from_output = std::visit([](const auto& f) { return f.slope_from_output; }, activation);
  const Value seen = from_output ? request.outputs[0] : request.inputs[0];
  return {graph_of(seen).add_one(std::make_shared<ActivationGradient>(activation), {request.d_outputs[0], seen})};
}

std::vector<Value> Multiply::gradient(const GradientRequest& request) const {
  std::vector<Value> d(2);
  for (std::size_t i : {0, 1})
    if (request.wanted[i])
      d[i] = graph_of(request.inputs[0])
                 .add_one(std::make_shared<Multiply>(), {request.d_outputs[0], request.inputs[1 - i]});
  return d;
}

std::vector<Value> Scale::gradient(const GradientRequest& request) const {
  return {graph_of(request.d_outputs[0]).add_one(std::make_shared<Scale>(factor), {request.d_outputs[0]})};
}

std::vector<ValueSpec> Concat::infer(std::span<const ValueSpec> inputs) const {
  Shape shape = inputs[0].shape;
  shape.c = 0;
  for (const auto& input : inputs) {
    if (input.shape.n != shape.n || input.shape.h != shape.h || input.shape.w != shape.w)
      fail(fmt::format("{} does not stand beside {}", to_string(input.shape), to_string(inputs[0].shape)));
    shape.c += input.shape.c;
  }
  return {{shape, DType::f32, result_role(inputs)}};
}

std::vector<Value> Concat::gradient(const GradientRequest& request) const {
  std::vector<Value> d;
  std::int64_t first = 0;
  for (const Value& input : request.inputs) {
    const std::int64_t count = input.shape().c;
    d.push_back(graph_of(input).add_one(std::make_shared<Slice>(first, count), {request.d_outputs[0]}));
    first += count;
  }
  return d;
}

std::vector<ValueSpec> Slice::infer(std::span<const ValueSpec> inputs) const {
  Shape shape = inputs[0].shape;
  if (first < 0 || count < 1 || first + count > shape.c)
    fail(fmt::format("channels {} to {} of {}", first, first + count, to_string(shape)));
  shape.c = count;
  return {{shape, DType::f32, result_role(inputs)}};
}

/// The channels that were left out get zeros: rows of pixels, whose channels lie side by side, get margins.
std::vector<Value> Slice::gradient(const GradientRequest& request) const {
  const auto [n, h, w, c] = request.inputs[0].shape();
  const Margins margins{0, 0, static_cast<int>(first), static_cast<int>(c - first - count)};
  return {reshape(pad2d(reshape(request.d_outputs[0], {-1, h * w, count, 1}), margins), {-1, h, w, c})};
}

std::vector<ValueSpec> Dropout::infer(std::span<const ValueSpec> inputs) const {
  if (!(rate >= 0 && rate < 1)) fail(fmt::format("a rate of {} is not in [0, 1)", rate));
  return Elementwise::infer(inputs);
}

std::vector<Value> Dropout::gradient(const GradientRequest& request) const {
  return {graph_of(request.d_outputs[0]).add_one(std::make_shared<Dropout>(rate, stream), {request.d_outputs[0]})};
}

std::shared_ptr<const Op> Dropout::inference() const { return std::make_shared<Scale>(1.0f); }

std::vector<ValueSpec> Normalize::infer(std::span<const ValueSpec> inputs) const {
  const auto c = static_cast<std::size_t>(inputs[0].shape.c);
  if (mean.size() != c || stddev.size() != c)
    fail(fmt::format("{} means and {} deviations for the channels of {}", mean.size(), stddev.size(),
                     to_string(inputs[0].shape)));
  return {{inputs[0].shape}};
}

}  // namespace halftone
