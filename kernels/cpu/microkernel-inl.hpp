// Included once per instruction set, inside HWY_NAMESPACE files only; hence no #pragma once.
#if defined(HALFTONE_MICROKERNEL_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef HALFTONE_MICROKERNEL_INL
#undef HALFTONE_MICROKERNEL_INL
#else
#define HALFTONE_MICROKERNEL_INL
#endif

#include <hwy/highway.h>

#include <array>
#include <cstdint>
#include <utility>

#include "kernels/cpu/gather.hpp"

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Vectors = hn::ScalableTag<float>;
constexpr std::int64_t lanes = hn::MaxLanes(Vectors());

// A tile keeps `height` x 2 vectors of sums in registers: 24 of 32 with AVX-512, 12 of 16 elsewhere. Each step of the
// reduction costs 2 vector loads and `height` broadcasts for 2 * `height` multiply-adds.
constexpr int tile_height = HWY_TARGET == HWY_AVX3 ? 12 : 6;
constexpr int tile_vectors = 2;
constexpr int most_rows(int vectors) { return vectors == tile_vectors ? tile_height : 2 * tile_height; }
constexpr std::int64_t tile_width = tile_vectors * lanes;

/// Floats from one packed row of gathered numbers to the next: an odd number of cache lines, room for a vector that
/// overshoots `max_depth`.
constexpr std::int64_t packed_stride = 304;
constexpr std::int64_t max_depth = 288;

/// Which factors may be `absent`: products with such a number add nothing, not even times infinity.
enum class Absent { none, left, right };
constexpr std::uint32_t absent_bits = 0x7fedc0de;  ///< a NaN that no calculation gives

/// sum + left * right.
template <Absent absent>
HWY_INLINE hn::Vec<Vectors> multiply_add(hn::Vec<Vectors> left, hn::Vec<Vectors> right, hn::Vec<Vectors> sum) {
  if (absent == Absent::none) return hn::MulAdd(left, right, sum);
  const hn::RebindToUnsigned<Vectors> bits;
  const auto asked = hn::BitCast(bits, absent == Absent::left ? left : right);
  const auto skip = hn::RebindMask(Vectors(), hn::Eq(asked, hn::Set(bits, absent_bits)));
  if (HWY_TARGET == HWY_AVX3) return hn::IfThenElse(skip, sum, hn::MulAdd(left, right, sum));  // one instruction
  return hn::MulAdd(hn::IfThenZeroElse(skip, left), hn::IfThenZeroElse(skip, right), sum);
}

/// As `row_stride`: known when it runs.
constexpr std::int64_t any_stride = 0;

/// c [height, vectors] (+)= sum over d of a[i * row_stride + d * a_step] * b[d * b_step + j]. The sum is added to c as
/// a whole, so that long sums are made of short ones. With `any_stride` rows are `stride` apart and `a_step` is 1.
template <std::int64_t row_stride, Absent absent, int height, int vectors>
void tile(std::int64_t depth, const float* HWY_RESTRICT a, std::int64_t stride, const float* HWY_RESTRICT b,
          std::int64_t b_step, float* HWY_RESTRICT c, std::int64_t c_stride, bool accumulate) {
  const Vectors v;
  const std::int64_t a_step = row_stride == any_stride ? 1 : stride;
  const std::int64_t rows_apart = row_stride == any_stride ? stride : row_stride;
  hn::Vec<Vectors> sum[height][vectors];
#pragma GCC unroll 24
  for (int i = 0; i < height; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) sum[i][j] = hn::Zero(v);
  }
  constexpr int shared = row_stride == any_stride ? 4 : height;  // rows that one register addresses
  const float* from[(height + shared - 1) / shared];
#pragma GCC unroll 24
  for (int i = 0; i < height; i += shared) from[i / shared] = a + i * rows_apart;
  for (std::int64_t d = 0; d < depth; ++d, b += b_step) {
    hn::Vec<Vectors> right[vectors];
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) right[j] = hn::LoadU(v, b + j * lanes);
#pragma GCC unroll 24
    for (int i = 0; i < height; ++i) {
      const auto left = hn::Set(v, from[i / shared][i % shared * rows_apart]);
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) sum[i][j] = multiply_add<absent>(left, right[j], sum[i][j]);
    }
#pragma GCC unroll 24
    for (int i = 0; i < height; i += shared) from[i / shared] += a_step;
  }
#pragma GCC unroll 24
  for (int i = 0; i < height; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) {
      float* to = c + i * c_stride + j * lanes;
      hn::StoreU(accumulate ? hn::Add(hn::LoadU(v, to), sum[i][j]) : sum[i][j], v, to);
    }
  }
}

/// Tiles of all heights.
template <std::int64_t row_stride, Absent absent, int vectors>
inline constexpr auto tiles = []<int... i>(std::integer_sequence<int, i...>) {
  return std::array{&tile<row_stride, absent, i + 1, vectors>...};
}
(std::make_integer_sequence<int, most_rows(vectors)>());

/// c [rows, width] (+)= a b for one panel of at most `tile_width` columns, in tiles of about equal height.
template <std::int64_t row_stride, Absent absent>
void multiply(std::int64_t rows, std::int64_t width, std::int64_t depth, const float* a, std::int64_t a_step,
              const float* b, std::int64_t b_step, float* c, std::int64_t c_stride, bool accumulate) {
  const bool wide = width > lanes;
  const auto* table = wide ? tiles<row_stride, absent, tile_vectors>.data() : tiles<row_stride, absent, 1>.data();
  const std::int64_t most = most_rows(wide ? tile_vectors : 1), parts = (rows + most - 1) / most;
  for (std::int64_t part = 0; part < parts; ++part) {
    const std::int64_t first = rows * part / parts, end = rows * (part + 1) / parts;
    table[end - first - 1](depth, a + first * (row_stride == any_stride ? a_step : row_stride), a_step, b, b_step,
                           c + first * c_stride, c_stride, accumulate);
  }
}

// The other way round: few results (rows), many pixels in the vector lanes, whose input lies at an offset for each
// step.
constexpr int planar_height = 8;
constexpr int planar_vectors(int height) {
  const int sums = HWY_TARGET == HWY_AVX3 ? 16 : 12;
  return sums / height < 1 ? 1 : sums / height > 4 ? 4 : sums / height;
}

inline std::int64_t planar_width(int height) { return planar_vectors(height) * lanes; }

/// c [height, vectors] = sum over d of a[d * a_step + i] * b[offsets[d] + j].
template <Absent absent, int height>
void planar_tile(std::int64_t depth, const float* HWY_RESTRICT a, std::int64_t a_step, const float* HWY_RESTRICT b,
                 const std::int64_t* HWY_RESTRICT offsets, float* HWY_RESTRICT c, std::int64_t c_stride) {
  constexpr int vectors = planar_vectors(height);
  const Vectors v;
  hn::Vec<Vectors> sum[height][vectors];
#pragma GCC unroll 24
  for (int i = 0; i < height; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) sum[i][j] = hn::Zero(v);
  }
  for (std::int64_t d = 0; d < depth; ++d, a += a_step) {
    const float* from = b + offsets[d];
    hn::Vec<Vectors> right[vectors];
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) right[j] = hn::LoadU(v, from + j * lanes);
#pragma GCC unroll 24
    for (int i = 0; i < height; ++i) {
      const auto left = hn::Set(v, a[i]);
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) sum[i][j] = multiply_add<absent>(left, right[j], sum[i][j]);
    }
  }
#pragma GCC unroll 24
  for (int i = 0; i < height; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) hn::StoreU(sum[i][j], v, c + i * c_stride + j * lanes);
  }
}

template <Absent absent>
inline constexpr auto planar_tiles = []<int... i>(std::integer_sequence<int, i...>) {
  return std::array{&planar_tile<absent, i + 1>...};
}
(std::make_integer_sequence<int, planar_height>());

inline constexpr TileShape tile_shape = {lanes, tile_width, packed_stride, max_depth, planar_height, &planar_width};

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
