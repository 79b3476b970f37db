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
#include <span>
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

/// c [height, vectors] = start + sum over runs and d of a[place(i, run, d)] * b[run, d, j], where `start` may be null:
/// the sum is added as a whole, so that long sums are made of short ones. Either rows of a are `a_step` apart, a run
/// begins at its offset in a, and b goes on through all runs; or, with `adjacent`, rows of a are side by side and its
/// steps `a_step` apart, a goes on, and a run begins at its offset in b.
template <bool adjacent, Absent absent, int height, int vectors>
void tile(std::span<const Run> runs, const float* HWY_RESTRICT a, std::int64_t a_step, const float* HWY_RESTRICT b,
          std::int64_t b_step, const float* start, std::int64_t start_stride, float* c, std::int64_t c_stride) {
  const Vectors v;
  const std::int64_t rows_apart = adjacent ? 1 : a_step, step = adjacent ? a_step : 1;
  hn::Vec<Vectors> sum[height][vectors];
#pragma GCC unroll 24
  for (int i = 0; i < height; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) sum[i][j] = hn::Zero(v);
  }
  constexpr int shared = adjacent ? height : 4;  // rows that one register addresses
  const float* from[(height + shared - 1) / shared];
  const float* right_from = b;
#pragma GCC unroll 24
  for (int i = 0; i < height; i += shared) from[i / shared] = a + i * rows_apart;
  for (const Run run : runs) {
    if (adjacent) right_from = b + run.offset;
#pragma GCC unroll 24
    for (int i = 0; !adjacent && i < height; i += shared) from[i / shared] = a + run.offset + i * rows_apart;
    for (std::int64_t d = 0; d < run.length; ++d, right_from += b_step) {
      if (adjacent) __builtin_prefetch(from[0] + 128 * a_step);
      hn::Vec<Vectors> right[vectors];
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) right[j] = hn::LoadU(v, right_from + j * lanes);
#pragma GCC unroll 24
      for (int i = 0; i < height; ++i) {
        const auto left = hn::Set(v, from[i / shared][i % shared * rows_apart]);
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j) sum[i][j] = multiply_add<absent>(left, right[j], sum[i][j]);
      }
#pragma GCC unroll 24
      for (int i = 0; i < height; i += shared) from[i / shared] += step;
    }
  }
#pragma GCC unroll 24
  for (int i = 0; i < height; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) {
      const auto more = start ? hn::LoadU(v, start + i * start_stride + j * lanes) : hn::Zero(v);
      hn::StoreU(hn::Add(more, sum[i][j]), v, c + i * c_stride + j * lanes);
    }
  }
}

/// Tiles of all heights.
template <bool adjacent, Absent absent, int vectors>
inline constexpr auto tiles = []<int... i>(std::integer_sequence<int, i...>) {
  return std::array{&tile<adjacent, absent, i + 1, vectors>...};
}
(std::make_integer_sequence<int, most_rows(vectors)>());

/// What a product is added to: rows `stride` apart (0: one for all), or nothing.
struct Start {
  const float* data = nullptr;
  std::int64_t stride = 0;
};

/// c [rows, width] = start + a b for one panel of at most `tile_width` columns, in tiles of about equal height.
template <bool adjacent, Absent absent>
void multiply(std::int64_t rows, std::int64_t width, std::span<const Run> runs, const float* a, std::int64_t a_step,
              const float* b, std::int64_t b_step, Start start, float* c, std::int64_t c_stride) {
  const bool wide = width > lanes;
  const auto* table = wide ? tiles<adjacent, absent, tile_vectors>.data() : tiles<adjacent, absent, 1>.data();
  const std::int64_t most = most_rows(wide ? tile_vectors : 1), parts = (rows + most - 1) / most;
  for (std::int64_t part = 0; part < parts; ++part) {
    const std::int64_t first = rows * part / parts, end = rows * (part + 1) / parts;
    table[end - first - 1](runs, a + first * (adjacent ? 1 : a_step), a_step, b, b_step,
                           start.data ? start.data + first * start.stride : nullptr, start.stride, c + first * c_stride,
                           c_stride);
  }
}

/// values [rows, used] = the first numbers of rows [rows, stride], whole vectors; vectors are moved, so that more is
/// written, but nothing behind the last row.
inline void close_gaps(std::int64_t rows, std::int64_t stride, std::int64_t used, float* values) {
  const Vectors v;
  for (std::int64_t i = 1; i < rows; ++i)
    for (std::int64_t j = 0; j < used; j += lanes)
      hn::StoreU(hn::LoadU(v, values + i * stride + j), v, values + i * used + j);
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
