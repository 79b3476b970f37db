#pragma once
#include <type_traits>
#include <vector>

#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/dense.hpp"
#include "kernels/common/convolution.hpp"
#include "kernels/cpu/backend.hpp"

namespace halftone::cpu {

/// The engine. Products and sums are f32 whatever is stored, and the order of every sum follows from the problem and
/// the instruction set, never from the number of threads. Taps in the padding add nothing, not even times infinity.
Launch implicit_gemm(const Convolution& convolution, Isa isa, int threads);

/// 3 x 3 filters by minimal filtering, in f32 (winograd.hpp, winograd_gradient.hpp). `decline_winograd` says why it
/// cannot take a convolution.
Launch winograd(const Convolution& convolution, Isa isa, int threads);
std::string decline_winograd(const Convolution& convolution);

/// Fixed point in 32-bit codes, all of them: sums in f64, so that no bit of a code is lost.
bool is_wide(const Operands& operands);
Launch wide(const Convolution& convolution, Isa isa, int threads);
std::string decline_wide(const Convolution& convolution);

/// Signs times signs, forward, by counting the bits that differ (xnor.hpp).
Launch xnor(const Convolution& convolution, Isa isa, int threads);
std::string decline_xnor(const Convolution& convolution);

/// The definition, spelled out: scalar loops, sums in double, numbers read and written one by one.
Launch reference(const Convolution& convolution);

/// How fast, not how: "" where minimal filtering is predicted to take less time (cost.hpp).
std::string prefer_direct(const Convolution& convolution, Isa isa);

using MakeConvolution = Launch (*)(const Convolution& convolution, Isa isa, int threads);

/// A kernel's factory for operations of one type.
template <class Operation, MakeConvolution make>
Launch convolution_launch(const Request& request) {
  const Machine machine = machine_of(request);
  return make(convolution_of<Operation>(request), machine.isa, machine.threads);
}

/// The ways to do a convolution operation.
template <class Operation>
std::vector<Kernel> convolution_kernels() {
  std::vector<Kernel> kernels = {
      {"winograd", convolution_launch<Operation, winograd>,
       [](const Request& request) {
         const Convolution convolution = convolution_of<Operation>(request);
         std::string reason = direct_only(request) ? "algorithms: direct" : decline_winograd(convolution);
         return reason.empty() ? prefer_direct(convolution, machine_of(request).isa) : reason;
       }},
      {"implicit_gemm", convolution_launch<Operation, implicit_gemm>,
       [](const Request& request) {
         const bool loses = is_wide(convolution_of<Operation>(request).operands);
         return std::string(loses ? "sums in f32 would lose bits of 32-bit fixed point" : "");
       }},
      {"wide", convolution_launch<Operation, wide>,
       [](const Request& request) { return decline_wide(convolution_of<Operation>(request)); }},
      {"reference", [](const Request& request) { return reference(convolution_of<Operation>(request)); }}};
  if constexpr (std::is_same_v<Operation, Conv2d> || std::is_same_v<Operation, Dense>)
    kernels.insert(kernels.begin(), {"xnor", convolution_launch<Operation, xnor>, [](const Request& request) {
                                       return decline_xnor(convolution_of<Operation>(request));
                                     }});
  return kernels;
}

}  // namespace halftone::cpu
