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

/// y [n, p, q, k] = activation(x [n, h, w, c] * weight [k, r, s, c / groups] + bias [k]) from [x, weight, optional
/// bias].
class ConvForward {
 public:
  ConvForward(const ConvProblem& problem, const Operands& operands, std::optional<Activation> activation, Isa isa,
              int threads);
  std::size_t workspace() const { return gemm_.workspace(); }
  void run(const Arguments& arguments) const { gemm_.run(arguments); }

 private:
  GatherGemm gemm_;
};

/// d_input [n, h, w, c] from [d_output [n, p, q, k], weight [k, r, s, c / groups]].
class ConvDInput {
 public:
  ConvDInput(const ConvProblem& problem, const Operands& operands, Isa isa, int threads);
  std::size_t workspace() const;
  void run(const Arguments& arguments) const;

 private:
  std::vector<GatherGemm> gemms_;  ///< one for each residue of the input position modulo the stride
};

/// d_weight [k, r, s, c / groups] from [x [n, h, w, c], d_output [n, p, q, k]].
class ConvDWeight {
 public:
  ConvDWeight(const ConvProblem& problem, const Operands& operands, Isa isa, int threads);
  std::size_t workspace() const { return gradient_.workspace(); }
  void run(const Arguments& arguments) const { gradient_.run(arguments); }

 private:
  WeightGradient gradient_;
};

}  // namespace halftone::cpu
