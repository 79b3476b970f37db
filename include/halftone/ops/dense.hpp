#pragma once
#include <optional>
#include <string>

#include "halftone/graph/graph.hpp"

namespace halftone {

struct DenseOptions {
  bool bias = true;
  std::string name = {};                                  ///< by default dense1, dense2, ...
  std::optional<Initializer> weight_init = std::nullopt;  ///< by default uniform within 1/sqrt(fan in), the bias too
};

/// x w' + b: all features of each image, in the order h, w, c, to [n, 1, 1, units]; the weights are [units, 1, 1,
/// features].
Value dense(Value x, int units, const DenseOptions& options = {});

/// The same with given weights and bias (or none).
Value dense(Value x, Value weight, Value bias = {});

/// [x, weight, optional bias] -> y, with an activation on the way out.
struct Dense final : Fusable<Dense> {
  std::string name() const override { return "dense"; }
  Arity arity() const override { return {2, 3}; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  double operations(std::span<const ValueSpec> inputs, std::span<const ValueSpec> outputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
};

/// [d_output, weight] -> d_input; `image` is the input's shape but for n.
struct DenseDInput final : Op {
  Shape image;
  explicit DenseDInput(Shape the_image) : image(the_image) {}
  std::string name() const override { return "dense_d_input"; }
  Arity arity() const override { return 2; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  double operations(std::span<const ValueSpec> inputs, std::span<const ValueSpec> outputs) const override;
};

/// [x, d_output] -> d_weight.
struct DenseDWeight final : Op {
  std::string name() const override { return "dense_d_weight"; }
  Arity arity() const override { return 2; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  double operations(std::span<const ValueSpec> inputs, std::span<const ValueSpec> outputs) const override;
};

}  // namespace halftone
