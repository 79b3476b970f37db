#include "halftone/graph/value.hpp"

#include <algorithm>

#include "halftone/graph/graph.hpp"

namespace halftone {

const char* name_of(Role role) {
  constexpr const char* names[] = {"input",   "activations",      "activation_gradients",
                                   "weights", "weight_gradients", "exact"};
  return names[static_cast<int>(role)];
}

Role result_role(std::span<const ValueSpec> inputs) {
  const Role first = inputs[0].role;
  if (first == Role::activation_gradient || first == Role::weight_gradient) return first;
  const auto all = [&](auto&& is) { return std::all_of(inputs.begin(), inputs.end(), is); };
  if (all([](const ValueSpec& v) { return v.role == Role::weight; })) return Role::weight;
  if (all([](const ValueSpec& v) { return v.role == Role::exact && v.shape.elements() == 1; })) return Role::exact;
  return Role::activation;
}

Role gradient_role(const ValueSpec& value) {
  if (value.role == Role::weight) return Role::weight_gradient;
  return value.role == Role::exact && value.shape.elements() == 1 ? Role::exact : Role::activation_gradient;
}

const ValueSpec& Value::spec() const {
  if (!body_) fail("a value that belongs to no graph was used");
  return body_->values[at(id_)].spec;
}

Graph graph_of(const Value& value) {
  if (!value) fail("a value that belongs to no graph was used");
  return Graph(value.body_);
}

}  // namespace halftone
