#pragma once
#include <optional>
#include <vector>

#include "halftone/graph/kernel.hpp"
#include "halftone/numeric/pointwise.hpp"
#include "kernels/cpu/backend.hpp"
#include "kernels/cpu/gather.hpp"

namespace halftone::cpu {

/// [x, weight, optional bias] -> y, [d_output, weight] -> d_input, [x, d_output] -> d_weight.
enum class Direction { forward, d_input, d_weight };

/// One direction of a convolution; a dense layer is one with h = w = r = s = 1. x [n, h, w, c], weight [k, r, s, c /
/// groups], y = activation(x * weight + bias) [n, p, q, k].
struct Convolution {
  ConvProblem problem;
  Direction direction;
  Operands operands;
  std::optional<Activation> activation = {};
};

/// The engine. Products and sums are f32 whatever is stored, and the order of every sum follows from the problem and
/// the instruction set, never from the number of threads. Taps in the padding add nothing, not even times infinity.
Launch implicit_gemm(const Convolution& convolution, Isa isa, int threads);

/// The definition, spelled out: scalar loops, sums in double, numbers read and written one by one.
Launch reference(const Convolution& convolution);

/// The ways to do an operation that `convolution_of` tells the convolution of.
template <Convolution (*convolution_of)(const Request&)>
std::vector<Kernel> convolution_kernels() {
  return {{"implicit_gemm",
           [](const Request& request) {
             const auto [threads, isa] = machine_of(request);
             return implicit_gemm(convolution_of(request), isa, threads);
           }},
          {"reference", [](const Request& request) { return reference(convolution_of(request)); }}};
}

}  // namespace halftone::cpu
