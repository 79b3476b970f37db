#include "halftone/graph/precision.hpp"

#include <fmt/format.h>

namespace halftone {

DType RoleFormats::of(Role role, DType otherwise) const {
  switch (role) {
    case Role::activation:
      return activations;
    case Role::activation_gradient:
      return activation_gradients;
    case Role::weight:
      return weights;
    case Role::weight_gradient:
      return weight_gradients;
    case Role::input:
    case Role::exact:
      break;
  }
  return otherwise;
}

Precision Precision::f32() { return {}; }
Precision Precision::f16() { return {"f16", RoleFormats::all(DType::f16), LossScale::dynamic(), {}}; }
Precision Precision::bf16() { return {"bf16", RoleFormats::all(DType::bf16), LossScale::none(), {}}; }

Precision Precision::except(std::string scope, RoleFormats formats) const {
  Precision result = *this;
  result.exceptions.push_back({std::move(scope), formats});
  return result;
}

const RoleFormats& Precision::at(const std::string& name) const {
  for (const auto& exception : exceptions)
    if (in_scope(name, exception.scope)) return exception.formats;
  return formats;
}

Precision precision_by_name(const std::string& name) {
  if (name == "f32") return Precision::f32();
  if (name == "f16") return Precision::f16();
  if (name == "bf16") return Precision::bf16();
  fail(fmt::format("precision {}: known number systems are f32, f16 and bf16", name));
}

void narrow(Graph& graph, const Precision& precision) {
  const auto apply = [&](int id, const RoleFormats& formats) {
    ValueSpec& spec = graph.info(id).spec;
    spec.dtype = formats.of(spec.role, spec.dtype);
  };
  for (const auto& parameter : graph.parameters) apply(parameter.value, precision.at(parameter.name));
  for (const Node& node : graph.nodes) {
    for (int id : node.outputs) apply(id, precision.at(node.name));
    if (node.op->is_view())  // a view shares its input's memory, so its format too
      graph.info(node.outputs[0]).spec.dtype = graph.info(node.inputs[0]).spec.dtype;
  }
  for (const auto& parameter : graph.parameters)
    if (parameter.gradient >= 0) apply(parameter.gradient, precision.at(parameter.name));
}

}  // namespace halftone
