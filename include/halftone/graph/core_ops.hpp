#pragma once
#include "halftone/graph/op.hpp"

namespace halftone {

/// The operations that the passes themselves insert.

/// a + b, then an activation. Gradients flow to both unchanged.
struct Add final : Fusable<Add, Elementwise> {
  std::string name() const override { return "add"; }
  Arity arity() const override { return 2; }
  bool is_sum() const override { return !epilogue; }
  std::vector<Value> gradient(const GradientRequest& request) const override;
};

/// The same numbers stored otherwise: as `storage` says where that is given, else as the role's are.
struct Cast final : Op {
  explicit Cast(Role the_role) : role(the_role) {}
  explicit Cast(const Storage& the_storage) : role(Role::exact), storage(the_storage) {}
  Role role;
  Storage storage;
  std::string name() const override { return "cast"; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
};

/// Another shape with the same count of elements, without a copy. An extent of -1 in `n` stands for the input's own.
struct Reshape final : Op {
  explicit Reshape(Shape the_shape) : shape(the_shape) {}
  Shape shape;
  std::string name() const override { return "reshape"; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
  bool is_view() const override { return true; }
};

/// [state] -> the gradient with which the backward pass begins: `StepState::gradient_scale()`.
struct SeedGradient final : Op {
  std::string name() const override { return "seed_gradient"; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
};

}  // namespace halftone
