// Included once per instruction set, inside HWY_NAMESPACE files only; hence no #pragma once.
#if defined(HALFTONE_PLANES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef HALFTONE_PLANES_INL
#undef HALFTONE_PLANES_INL
#else
#define HALFTONE_PLANES_INL
#endif

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/cpu/gather-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {

#if HWY_TARGET == HWY_AVX3
/// What compilers know of vectors of floats: shuffles whose places are constants.
using Shuffled [[gnu::vector_size(64)]] = float;
constexpr int width = 16;

/// result [lane] = the number at place(lane) of `a` and `b`, one after the other.
template <class Place, int... lane>
HWY_INLINE Shuffled shuffled(const Shuffled& a, const Shuffled& b, std::integer_sequence<int, lane...>) {
  constexpr Place place{};
  return __builtin_shufflevector(a, b, place(lane)...);
}
template <class Place>
HWY_INLINE Shuffled shuffled(const Shuffled& a, const Shuffled& b) {
  return shuffled<Place>(a, b, std::make_integer_sequence<int, width>());
}

template <int odd>
struct EverySecond {
  constexpr int operator()(int lane) const { return 2 * lane + odd; }
};
template <int half>
struct InTurn {
  constexpr int operator()(int lane) const { return lane % 2 * width + half * width / 2 + lane / 2; }
};
/// Where lanes of `vector` are: pixel by pixel in `count` planes side by side, or plane by plane in as many vectors.
template <int count, int vector, bool joins>
constexpr int place_of(int lane) {
  const int place = vector * width + lane;
  return joins ? place % count * width + place / count : lane * count + vector;
}
/// Those that are in vector `source`, or in the one before if that is the first; others stay.
template <int count, int vector, bool joins, int source>
struct From {
  constexpr int operator()(int lane) const {
    const int place = place_of<count, vector, joins>(lane);
    if (source == 1 && place < 2 * width) return place;
    return place / width == source ? width + place % width : lane;
  }
};

template <int count, bool joins, int vector, int... later>
HWY_INLINE void pick(const Shuffled* from, Shuffled* to, std::integer_sequence<int, later...>) {
  to[vector] = shuffled<From<count, vector, joins, 1>>(from[0], from[1]);
  ((to[vector] = shuffled<From<count, vector, joins, later + 2>>(to[vector], from[later + 2])), ...);
}
template <int count, bool joins, int... vector>
HWY_INLINE void pick_all(const Shuffled* from, Shuffled* to, std::integer_sequence<int, vector...>) {
  (pick<count, joins, vector>(from, to, std::make_integer_sequence<int, count - 2>()), ...);
}

/// Vectors of pixels with `count` numbers each to planes or, where it `joins`, planes to pixels.
template <int count, bool joins>
HWY_INLINE void rearrange(const Shuffled* from, Shuffled* to) {
  if constexpr (count == 1) {
    to[0] = from[0];
  } else if constexpr (count % 2 == 1) {
    pick_all<count, joins>(from, to, std::make_integer_sequence<int, count>());
  } else {
    constexpr int half = count / 2;
    Shuffled even[half], odd[half], of_even[half], of_odd[half];
    for (int i = 0; i < half; ++i) {
      even[i] = joins ? from[2 * i] : shuffled<EverySecond<0>>(from[2 * i], from[2 * i + 1]);
      odd[i] = joins ? from[2 * i + 1] : shuffled<EverySecond<1>>(from[2 * i], from[2 * i + 1]);
    }
    rearrange<half, joins>(even, of_even), rearrange<half, joins>(odd, of_odd);
    for (int i = 0; i < half; ++i) {
      to[2 * i] = joins ? shuffled<InTurn<0>>(of_even[i], of_odd[i]) : of_even[i];
      to[2 * i + 1] = joins ? shuffled<InTurn<1>>(of_even[i], of_odd[i]) : of_odd[i];
    }
  }
}
#endif

/// to [planes, step] = from [cols, planes] transposed.
template <int planes>
void deinterleave(const float* HWY_RESTRICT from, std::int64_t cols, float* HWY_RESTRICT to, std::int64_t step) {
  std::int64_t j = 0;
#if HWY_TARGET == HWY_AVX3
  for (; j < cols && cols >= width; j += width) {
    j = std::min(j, cols - width);
    Shuffled some[planes], result[planes];
    std::memcpy(some, from + j * planes, sizeof some);
    rearrange<planes, false>(some, result);
    for (int i = 0; i < planes; ++i) std::memcpy(to + i * step + j, &result[i], sizeof result[i]);
  }
#endif
  for (; j < cols; ++j)
    for (int i = 0; i < planes; ++i) to[i * step + j] = from[j * planes + i];
}

/// to [cols, planes] = from [planes, step] transposed, plus a number for each plane if there is one. Whole vectors are
/// read and written.
template <int planes>
void interleave(const float* HWY_RESTRICT from, std::int64_t step, const float* HWY_RESTRICT bias, std::int64_t cols,
                float* HWY_RESTRICT to) {
  float offset[planes] = {};
  if (bias) std::copy_n(bias, planes, offset);
#if HWY_TARGET == HWY_AVX3
  for (std::int64_t j = 0; j < cols; j += width) {
    Shuffled some[planes], result[planes];
    for (int i = 0; i < planes; ++i) {
      std::memcpy(&some[i], from + i * step + j, sizeof some[i]);
      some[i] += offset[i];
    }
    rearrange<planes, true>(some, result);
    std::memcpy(to + j * planes, result, sizeof result);
  }
#else
  for (std::int64_t j = 0; j < cols; ++j)
    for (int i = 0; i < planes; ++i) to[j * planes + i] = from[i * step + j] + offset[i];
#endif
}

constexpr int most_planes = planar_height;
inline constexpr auto interleaves = []<int... i>(std::integer_sequence<int, i...>) {
  return std::array{&interleave<i + 1>...};
}
(std::make_integer_sequence<int, most_planes>());
inline constexpr auto deinterleaves = []<int... i>(std::integer_sequence<int, i...>) {
  return std::array{&deinterleave<i + 1>...};
}
(std::make_integer_sequence<int, most_planes>());

inline void copy_strided(const float* HWY_RESTRICT from, std::int64_t stride, std::int64_t count,
                         float* HWY_RESTRICT to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = from[i * stride];
}

/// slab [channels, rows, pitch] = the input of a block of one image with its halo, zero or absent; row [cols, channels]
/// is scratch.
inline void fill_planes(const Gather& gather, const Planes& planes, const Block& block, const Input& input,
                        bool mark_padding, float* row, float* slab) {
  const float padding = mark_padding ? bit_cast<float>(absent_bits) : 0.0f;
  const GatherAxis &rows = gather.rows, &cols = gather.cols;
  const std::int64_t y0 = block.row0 + rows.offset.front(), y1 = block.row1 + rows.offset.back();
  const std::int64_t x0 = block.col0 + cols.offset.front(), x1 = block.col1 + cols.offset.back();
  const std::int64_t in0 = std::clamp<std::int64_t>(x0, 0, cols.in), in1 = std::clamp<std::int64_t>(x1, in0, cols.in);
  const std::int64_t channels = gather.channels;
  for (std::int64_t y = y0; y < y1; ++y, slab += planes.pitch) {
    const bool inside = y >= 0 && y < rows.in && in0 < in1;
    float* const read = channels == 1 ? slab + in0 - x0 : row;
    if (inside) input.copy(((block.image0 * rows.in + y) * cols.in + in0) * channels, (in1 - in0) * channels, read);
    if (inside && mark_padding) canonicalize_nan(read, read + (in1 - in0) * channels);
    for (std::int64_t c = 0; c < channels; ++c) {
      float* to = slab + c * planes.plane - x0;
      std::fill(to + x0, to + (inside ? in0 : x1), padding);
      if (!inside) continue;
      if (channels > 1) copy_strided(row + c, channels, in1 - in0, to + in0);
      std::fill(to + in1, to + x1, padding);
    }
  }
}

/// How many taps' sums beside `planes` planes stay in registers.
constexpr int most_taps(int planes) { return std::max((HWY_TARGET == HWY_AVX3 ? 24 : 12) / planes, 1); }

/// sums [taps, planes, lanes] += x[offset of the tap + j] * y[plane, j], summed over j < length apart in each lane.
template <int taps, int planes>
void correlate(std::int64_t length, const float* HWY_RESTRICT x, const std::int64_t* offsets,
               const float* HWY_RESTRICT y, std::int64_t step, float* HWY_RESTRICT sums) {
  const Vectors v;
  hn::Vec<Vectors> sum[taps][planes];
  const float* from[taps];
#pragma GCC unroll 24
  for (int t = 0; t < taps; ++t) {
    from[t] = x + offsets[t];
#pragma GCC unroll 8
    for (int i = 0; i < planes; ++i) sum[t][i] = hn::Zero(v);
  }
  for (std::int64_t j = 0; j < length; j += lanes) {
    hn::Vec<Vectors> right[planes];
#pragma GCC unroll 8
    for (int i = 0; i < planes; ++i) right[i] = hn::LoadU(v, y + i * step + j);
#pragma GCC unroll 24
    for (int t = 0; t < taps; ++t) {
      const auto left = hn::LoadU(v, from[t] + j);
#pragma GCC unroll 8
      for (int i = 0; i < planes; ++i) sum[t][i] = hn::MulAdd(left, right[i], sum[t][i]);
    }
  }
#pragma GCC unroll 24
  for (int t = 0; t < taps; ++t) {
#pragma GCC unroll 8
    for (int i = 0; i < planes; ++i) {
      float* to = sums + (t * planes + i) * lanes;
      hn::StoreU(hn::Add(hn::LoadU(v, to), sum[t][i]), v, to);
    }
  }
}

using Correlate = void (*)(std::int64_t, const float*, const std::int64_t*, const float*, std::int64_t, float*);
/// By the number of taps, from 1 on.
template <int planes>
inline constexpr auto correlates = []<int... t>(std::integer_sequence<int, t...>) {
  std::array<Correlate, 24> all = {};
  return ((all[t] = &correlate<t + 1, planes>), ..., all);
}
(std::make_integer_sequence<int, most_taps(planes)>());

/// sums [taps, planes, lanes] += all taps' products, as above.
template <int planes>
void correlate_all(std::int64_t length, const float* x, const std::int64_t* offsets, std::int64_t taps, const float* y,
                   std::int64_t step, float* sums) {
  constexpr std::int64_t most = most_taps(planes);
  for (std::int64_t t = 0; t < taps; t += most)
    correlates<planes>[static_cast<std::size_t>(std::min(taps - t, most) - 1)](length, x, offsets + t, y, step,
                                                                               sums + t * planes * lanes);
}
inline constexpr auto correlates_of = []<int... i>(std::integer_sequence<int, i...>) {
  return std::array{&correlate_all<i + 1>...};
}
(std::make_integer_sequence<int, most_planes>());

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
