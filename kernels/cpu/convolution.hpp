#pragma once
#include <type_traits>
#include <vector>

#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/dense.hpp"
#include "halftone/ops/spatial.hpp"
#include "kernels/common/convolution.hpp"
#include "kernels/cpu/backend.hpp"
#include "kernels/cpu/cost.hpp"
#include "kernels/cpu/pair_products.hpp"

namespace halftone::cpu {

/// The engine. Products and sums are f32 whatever is stored, and the order of every sum follows from the problem and
/// the instruction set, never from the number of threads. Taps in the padding add nothing, not even times infinity.
Launch implicit_gemm(const Convolution& convolution, Isa isa, int threads);

/// The same of bf16 numbers by a unit that multiplies pairs of them; by default the best that `isa` has. What does not
/// come out finite is left to the engine.
Launch pairs(const Convolution& convolution, PairUnit unit, Isa isa, int threads);
Launch pairs(const Convolution& convolution, Isa isa, int threads);
std::string decline_pairs(const Convolution& convolution);

/// 3 x 3 filters by minimal filtering, in f32 (winograd.hpp, winograd_gradient.hpp). `decline_winograd` says why it
/// cannot take a convolution.
Launch winograd(const Convolution& convolution, Isa isa, int threads);
std::string decline_winograd(const Convolution& convolution);

/// Data gradients and transposed convolutions by what each pixel of d_output adds to a row of d_input (col2im.hpp).
Launch col2im(const Convolution& convolution, Isa isa, int threads);
std::string decline_col2im(const Convolution& convolution);

/// Fixed point in 32-bit codes, all of them: sums in f64, so that no bit of a code is lost.
bool is_wide(const Operands& operands);
Launch wide(const Convolution& convolution, Isa isa, int threads);
std::string decline_wide(const Convolution& convolution);

/// Signs times signs, forward, by counting the bits that differ (xnor.hpp).
Launch xnor(const Convolution& convolution, Isa isa, int threads);
std::string decline_xnor(const Convolution& convolution);

/// The definition, spelled out: scalar loops, sums in double, numbers read and written one by one.
Launch reference(const Convolution& convolution);

/// Why a way cannot do a convolution; nothing where it can.
std::string decline(Way way, const Convolution& convolution, Isa isa, bool direct_only);
/// The same, or that another way is predicted to take less time.
std::string prefer_other(Way way, const Convolution& convolution, Isa isa, bool direct_only);

using MakeConvolution = Launch (*)(const Convolution& convolution, Isa isa, int threads);

/// A kernel's factory for operations of one type.
template <class Operation, MakeConvolution make>
Launch convolution_launch(const Request& request) {
  const Machine machine = machine_of(request);
  return make(convolution_of<Operation>(request), machine.isa, machine.threads);
}

/// One of several ways, chosen by what it is predicted to take.
template <class Operation, Way way, MakeConvolution make>
Kernel predicted_kernel() {
  Kernel kernel{name_of(way), convolution_launch<Operation, make>};
  kernel.decline = [](const Request& request) {
    constexpr auto why = way == Way::implicit_gemm ? decline : prefer_other;  // the last of them is there for all
    return why(way, convolution_of<Operation>(request), machine_of(request).isa, direct_only(request));
  };
  kernel.predict = [](const Request& request) {
    const Convolution convolution = convolution_of<Operation>(request);
    const Isa isa = machine_of(request).isa;
    if (!decline(way, convolution, isa, direct_only(request)).empty()) return 0.0;
    return predicted_share(way, convolution.problem, convolution.direction, isa);
  };
  return kernel;
}

/// All kernels of a convolution operation.
template <class Operation>
std::vector<Kernel> convolution_kernels() {
  std::vector<Kernel> kernels = {
      predicted_kernel<Operation, Way::winograd, winograd>(),
      predicted_kernel<Operation, Way::pairs, pairs>(),
      predicted_kernel<Operation, Way::implicit_gemm, implicit_gemm>(),
      {"wide", convolution_launch<Operation, wide>,
       [](const Request& request) { return decline_wide(convolution_of<Operation>(request)); }},
      {"reference", [](const Request& request) { return reference(convolution_of<Operation>(request)); }}};
  if constexpr (std::is_same_v<Operation, Conv2dDInput> || std::is_same_v<Operation, ConvTranspose2d>)
    kernels.insert(kernels.begin() + 2, predicted_kernel<Operation, Way::col2im, col2im>());
  if constexpr (std::is_same_v<Operation, Conv2d> || std::is_same_v<Operation, Dense>)
    kernels.insert(kernels.begin(), {"xnor", convolution_launch<Operation, xnor>, [](const Request& request) {
                                       return decline_xnor(convolution_of<Operation>(request));
                                     }});
  return kernels;
}

}  // namespace halftone::cpu
