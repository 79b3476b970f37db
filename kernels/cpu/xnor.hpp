#pragma once
#include <cstdint>
#include <optional>

#include "halftone/ops/norm.hpp"
#include "kernels/cpu/convolution.hpp"

namespace halftone::cpu {

/// The innermost loops of convolutions of signs, for one instruction set. Signs lie in words of 64 bits: 64 of them or,
/// `split`, half as many in the lower halves of the bytes.
struct XnorLoops {
  bool split;
  std::int64_t lanes, panel;  ///< filters of a vector, and the most that are counted at a time
  /// counts [pixels, stride] = how many signs of each pixel [words] differ from those of each filter of a panel [words,
  /// filters] of whole vectors.
  void (*count)(std::int64_t pixels, std::int64_t words, const std::uint64_t* signs, std::int64_t filters,
                const std::uint64_t* panel, std::int32_t* counts, std::int64_t stride);
  /// y = sum of products + bias; `signs` products make up a sum.
  void (*finish)(const std::int32_t* counts, std::int32_t signs, const float* bias, std::int64_t filters, float* y);
  /// bits = a bit a filter, of a multiple of 8: whether direction s >= threshold.
  void (*compare)(const std::int32_t* counts, std::int32_t signs, const std::int32_t* direction,
                  const std::int32_t* threshold, std::int64_t filters, std::uint8_t* bits);
};

/// Whether this processor counts the bits of whole vectors (AVX-512 VPOPCNTDQ) and this build uses it.
bool counts_bits();

/// The fastest loops within an instruction set; with AVX-512 and not `counting` those of any such machine, which look
/// counts up.
const XnorLoops& xnor_loops(Isa isa, bool counting = counts_bits());

/// A convolution of signs with signs, forward: a sum of products is known from how many bits differ, exactly; bias and
/// activation then are the engine's. With `norm` the inputs behind those of the convolution are gamma, beta, mean
/// and variance, whatever they are, and the output is the signs of that batch norm: one comparison of integers each.
/// `rising`: the opposite signs where the norm falls, so that they rise with the sum and a max pool may come behind.
Launch xnor(const Convolution& convolution, const XnorLoops& loops, Isa isa, int threads,
            std::optional<NormFactor> norm = {}, bool rising = false);

}  // namespace halftone::cpu
