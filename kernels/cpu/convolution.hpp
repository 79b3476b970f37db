#pragma once
#include <vector>

#include "kernels/common/convolution.hpp"
#include "kernels/cpu/backend.hpp"

namespace halftone::cpu {

/// The engine. Products and sums are f32 whatever is stored, and the order of every sum follows from the problem and
/// the instruction set, never from the number of threads. Taps in the padding add nothing, not even times infinity.
Launch implicit_gemm(const Convolution& convolution, Isa isa, int threads);

/// Fixed point in 32-bit codes, all of them: sums in f64, so that no bit of a code is lost.
bool is_wide(const Operands& operands);
Launch wide(const Convolution& convolution, Isa isa, int threads);
std::string decline_wide(const Convolution& convolution);

/// The definition, spelled out: scalar loops, sums in double, numbers read and written one by one.
Launch reference(const Convolution& convolution);

/// The ways to do a convolution operation.
template <class Operation>
std::vector<Kernel> convolution_kernels() {
  return {{"implicit_gemm",
           [](const Request& request) {
             const auto [threads, isa] = machine_of(request);
             return implicit_gemm(convolution_of<Operation>(request), isa, threads);
           },
           [](const Request& request) {
             const bool loses = is_wide(convolution_of<Operation>(request).operands);
             return std::string(loses ? "sums in f32 would lose bits of 32-bit fixed point" : "");
           }},
          {"wide",
           [](const Request& request) {
             const auto [threads, isa] = machine_of(request);
             return wide(convolution_of<Operation>(request), isa, threads);
           },
           [](const Request& request) { return decline_wide(convolution_of<Operation>(request)); }},
          {"reference", [](const Request& request) { return reference(convolution_of<Operation>(request)); }}};
}

}  // namespace halftone::cpu
