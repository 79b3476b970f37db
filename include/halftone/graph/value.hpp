#pragma once
#include "halftone/tensor/tensor.hpp"

namespace halftone {

class Graph;

/// What a value is for. `narrow` chooses storage formats by role; `input` and `exact` keep theirs.
enum class Role { input, activation, activation_gradient, weight, weight_gradient, exact };

const char* name_of(Role role);

/// Shape, format and role of a value.
struct ValueSpec {
  Shape shape;
  DType dtype = DType::f32;
  Role role = Role::activation;
  TensorSpec tensor() const { return {shape, dtype}; }
};

/// The role of what an elementwise operation makes of its inputs: a gradient where the first one is a gradient, a
/// weight where all are weights, exact where all are single exact numbers (losses), else an activation.
Role result_role(std::span<const ValueSpec> inputs);

/// The role of the gradient of `value`: exact for a single exact number, a weight's for a weight, else an activation's.
Role gradient_role(const ValueSpec& value);

/// One tensor of a graph: a graph and a number in it. A default-made one is "none". It stays with the graph it was made
/// by: a graph that is moved or copied takes no values along (`Graph::value` gives the copy's).
struct Value {
  Graph* graph = nullptr;
  int id = -1;

  explicit operator bool() const { return graph != nullptr; }
  const ValueSpec& spec() const;
  const Shape& shape() const { return spec().shape; }
  int channels() const { return static_cast<int>(shape().c); }
};

/// The graph that a value belongs to; throws Error for none.
Graph& graph_of(const Value& value);

}  // namespace halftone
