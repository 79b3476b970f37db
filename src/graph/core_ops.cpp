#include "halftone/graph/core_ops.hpp"

#include <fmt/format.h>

#include "halftone/graph/graph.hpp"

namespace halftone {

std::vector<Value> Add::gradient(const GradientRequest& request) const {
  return {request.d_outputs[0], request.d_outputs[0]};
}

std::vector<ValueSpec> Cast::infer(std::span<const ValueSpec> inputs) const {
  if (const char* fault = storage.fault()) fail(fmt::format("{}: {}", to_string(storage), fault));
  return {{inputs[0].shape, storage, role}};
}

std::vector<Value> Cast::gradient(const GradientRequest& request) const {
  const Value& d_output = request.d_outputs[0];
  return {graph_of(d_output).add_one(std::make_shared<Cast>(Role::activation_gradient), {d_output})};
}

std::vector<ValueSpec> Reshape::infer(std::span<const ValueSpec> inputs) const {
  Shape result = shape;
  if (result.n == -1) result.n = inputs[0].shape.n;
  if (result.elements() != inputs[0].shape.elements())
    fail(fmt::format("{} cannot be reshaped to {}", to_string(inputs[0].shape), to_string(result)));
  return {{result, inputs[0].storage, inputs[0].role}};
}

std::vector<Value> Reshape::gradient(const GradientRequest& request) const {
  Shape back = request.inputs[0].shape();
  if (shape.n == -1) back.n = -1;
  return {graph_of(request.d_outputs[0]).add_one(std::make_shared<Reshape>(back), {request.d_outputs[0]})};
}

std::vector<ValueSpec> SeedGradient::infer(std::span<const ValueSpec>) const {
  return {{Shape{}, DType::f32, Role::exact}};
}

}  // namespace halftone
