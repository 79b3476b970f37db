#pragma once
#include "halftone/graph/graph.hpp"

namespace halftone {

/// exp(x) / sum of exp(x) over the channels of each pixel, [n, h, w, c] to the same shape, computed in f32 with the
/// largest number subtracted first. Train with `cross_entropy`, which takes logits, and predict with this.
Value softmax(Value x);

struct Softmax final : Op {
  std::string name() const override { return "softmax"; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
};

/// [d_y, y] -> d_x = y (d_y - sum of d_y y over the channels).
struct SoftmaxGradient final : InputGradient {
  std::string name() const override { return "softmax_gradient"; }
  Arity arity() const override { return 2; }
};

}  // namespace halftone
