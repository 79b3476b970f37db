#pragma once
#include <cstdint>

#include "kernels/cpu/isa.hpp"

namespace halftone::cpu {

/// What multiplies pairs of bf16 numbers: AVX512-BF16's dot products, AMX's tiles, or loops that have their bits.
enum class PairUnit { dot, tile, emulated_dot, emulated_tile };
inline constexpr PairUnit all_pair_units[] = {PairUnit::dot, PairUnit::tile, PairUnit::emulated_dot,
                                              PairUnit::emulated_tile};

/// Whether this machine has it.
bool supported(PairUnit unit);

/// Products of bf16 matrices, summed in f32.
struct PairProducts {
  static constexpr std::int64_t width = 16;  ///< of a panel
  static constexpr std::int64_t tile = 16;   ///< rows of a may be read, not used, up to a multiple of it

  std::int64_t step;  ///< depths are multiples of it, at most 32

  /// c [rows, panels * width] = a b, or added to c if `add`. Rows of a [rows, depth] are `a_stride` numbers apart; b is
  /// [panels, depth / 2, width, 2].
  void (*multiply)(std::int64_t rows, std::int64_t panels, std::int64_t depth, const std::uint16_t* a,
                   std::int64_t a_stride, const std::uint16_t* b, bool add, float* c, std::int64_t c_stride);
};

PairProducts pair_products(Isa isa, PairUnit unit);

}  // namespace halftone::cpu
