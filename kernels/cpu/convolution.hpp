#pragma once
#include <cstddef>
#include <optional>
#include <vector>

#include "kernels/cpu/gather_gemm.hpp"
#include "kernels/cpu/weight_gradient.hpp"

namespace halftone::cpu {

// The implicit-GEMM engine: convolution and its two gradients, and dense layers (h = w = r = s = 1). An object is ready
// to run when it is built; `run` allocates nothing and works in `workspace()` bytes of the caller's memory, best
// aligned to 64. Products and sums are f32 whatever is stored, and the order of every sum follows from the problem and
// the instruction set, never from the number of threads. Taps in the padding add nothing, not even times infinity.

/// y [n, p, q, k] = activation(x [n, h, w, c] * weight [k, r, s, c / groups] + bias [k]).
class ConvForward {
 public:
  using Formats = GatherGemm::Formats;
  /// `formats.bias` matters only with `has_bias`; without it `run` takes a null bias.
  ConvForward(const ConvProblem& problem, Formats formats, std::optional<Activation> activation, bool has_bias, Isa isa,
              int threads);
  std::size_t workspace() const { return gemm_.workspace(); }
  void run(const void* x, const void* weight, const void* bias, void* y, void* workspace) const;

 private:
  GatherGemm gemm_;
};

/// d_input [n, h, w, c] from d_output [n, p, q, k] and weight [k, r, s, c / groups].
class ConvDInput {
 public:
  struct Formats {
    DType d_output, weight, d_input;
  };
  ConvDInput(const ConvProblem& problem, Formats formats, Isa isa, int threads);
  std::size_t workspace() const;
  void run(const void* d_output, const void* weight, void* d_input, void* workspace) const;

 private:
  std::vector<GatherGemm> gemms_;  ///< one for each residue of the input position modulo the stride
};

/// d_weight [k, r, s, c / groups] from x [n, h, w, c] and d_output [n, p, q, k].
class ConvDWeight {
 public:
  using Formats = WeightGradient::Formats;
  ConvDWeight(const ConvProblem& problem, Formats formats, Isa isa, int threads);
  std::size_t workspace() const { return gradient_.workspace(); }
  void run(const void* x, const void* d_output, void* d_weight, void* workspace) const;

 private:
  WeightGradient gradient_;
};

}  // namespace halftone::cpu
