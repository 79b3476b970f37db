#pragma once
#include <optional>

#include "halftone/numeric/formats.hpp"
#include "halftone/numeric/pointwise.hpp"
#include "kernels/cpu/gather.hpp"

namespace halftone::cpu {

// The definition of a convolution, spelled out: scalar loops, sums in double, one rounding when a result is stored.

/// y [n, p, q, k] from x [n, h, w, c], weight [k, r, s, c / groups] and bias [k], which may be null.
struct ReferenceForward {
  ConvProblem problem;
  DType input, weight, bias, output;
  std::optional<Activation> activation;
  void run(const void* x, const void* weight_data, const void* bias_data, void* y) const;
};

/// d_input [n, h, w, c].
struct ReferenceDInput {
  ConvProblem problem;
  DType d_output, weight, d_input;
  void run(const void* d_output_data, const void* weight_data, void* d_input_data) const;
};

/// d_weight [k, r, s, c / groups].
struct ReferenceDWeight {
  ConvProblem problem;
  DType input, d_output, d_weight;
  void run(const void* x, const void* d_output_data, void* d_weight_data) const;
};

}  // namespace halftone::cpu
