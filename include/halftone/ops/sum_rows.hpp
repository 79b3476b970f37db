#pragma once
#include "halftone/graph/graph.hpp"

namespace halftone {

/// Sums over all but the channels, [n, h, w, c] -> [1, 1, 1, c]: the gradient of a bias.
struct SumRows final : Op {
  std::string name() const override { return "sum_rows"; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override {
    return {{Shape::vector(inputs[0].shape.c), DType::f32, Role::weight_gradient}};
  }
};

}  // namespace halftone
