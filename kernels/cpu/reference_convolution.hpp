#pragma once
#include <optional>

#include "halftone/graph/kernel.hpp"
#include "halftone/numeric/pointwise.hpp"
#include "kernels/cpu/gather.hpp"

namespace halftone::cpu {

/// [x, weight, optional bias] -> y, [d_output, weight] -> d_input, [x, d_output] -> d_weight.
enum class Direction { forward, d_input, d_weight };

/// The definition of a convolution, spelled out: scalar loops, sums in double, numbers read and written one by one.
struct ReferenceConvolution {
  ConvProblem problem;
  Direction direction;
  Operands operands;
  std::optional<Activation> activation = {};
  void run(const Arguments& arguments) const;
};

}  // namespace halftone::cpu
