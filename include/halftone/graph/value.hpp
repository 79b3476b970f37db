#pragma once
#include <memory>

#include "halftone/tensor/tensor.hpp"

namespace halftone {

class Graph;
struct GraphBody;

/// What a value is for. `narrow` chooses storages by role; `input` and `exact` keep theirs.
enum class Role { input, activation, activation_gradient, weight, weight_gradient, exact };

/// As in `role_names`: "activations"; "input" and "exact".
const char* name_of(Role role);

/// Shape, storage and role of a value.
struct ValueSpec {
  Shape shape;
  Storage storage = DType::f32;
  Role role = Role::activation;
  TensorSpec tensor() const { return {shape, storage}; }
};

/// The role of what an elementwise operation makes of its inputs: a gradient where the first one is a gradient, a
/// weight where all are weights, exact where all are single exact numbers (losses), else an activation.
Role result_role(std::span<const ValueSpec> inputs);

/// The role of the gradient of `value`: exact for a single exact number, a weight's for a weight, else an activation's.
Role gradient_role(const ValueSpec& value);

/// One tensor of a graph, which it keeps alive. A default-made one is "none". A clone of its graph has a value of the
/// same number (`Graph::value`).
class Value {
 public:
  Value() = default;
  explicit operator bool() const { return body_ != nullptr; }
  int id() const { return id_; }
  const ValueSpec& spec() const;  ///< throws Error for none
  const Shape& shape() const { return spec().shape; }
  int channels() const { return static_cast<int>(shape().c); }

 private:
  friend class Graph;
  friend Graph graph_of(const Value& value);
  Value(std::shared_ptr<GraphBody> body, int id) : body_(std::move(body)), id_(id) {}
  std::shared_ptr<GraphBody> body_;
  int id_ = -1;
};

/// The graph that a value belongs to; throws Error for none.
Graph graph_of(const Value& value);

}  // namespace halftone
