// Included once per instruction set, inside HWY_NAMESPACE files only; hence no #pragma once.
#if defined(HALFTONE_PLANAR_BLOCK_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef HALFTONE_PLANAR_BLOCK_INL
#undef HALFTONE_PLANAR_BLOCK_INL
#else
#define HALFTONE_PLANAR_BLOCK_INL
#endif

#include <array>
#include <utility>

#include "kernels/cpu/gather_gemm_run-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {

/// to [cols, rows] = from [rows, stride] transposed, plus the bias of each row if there is one.
template <int rows>
void interleave(const float* HWY_RESTRICT from, std::int64_t stride, const float* HWY_RESTRICT bias, std::int64_t cols,
                float* HWY_RESTRICT to) {
  float offset[rows] = {};
  if (bias) std::copy_n(bias, rows, offset);
  for (std::int64_t j = 0; j < cols; ++j)
    for (int r = 0; r < rows; ++r) to[j * rows + r] = from[r * stride + j] + offset[r];
}

template <int... rows>
constexpr std::array<decltype(&interleave<1>), sizeof...(rows)> interleaves_of(std::integer_sequence<int, rows...>) {
  return {&interleave<rows + 1>...};
}
inline constexpr auto interleaves = interleaves_of(std::make_integer_sequence<int, planar_height>());

inline void copy_strided(const float* HWY_RESTRICT from, std::int64_t stride, std::int64_t count,
                         float* HWY_RESTRICT to) {
  if (stride == 1) {
    std::copy_n(from, count, to);
  } else {
    for (std::int64_t i = 0; i < count; ++i) to[i] = from[i * stride];
  }
}

/// The taps [first, end) without those that no output position of [i0, i1] finds within the input.
inline std::pair<std::int64_t, std::int64_t> taps_inside(const GatherAxis& axis, std::int64_t i0, std::int64_t i1) {
  std::int64_t first = 0, end = axis.taps();
  while (first < end && i1 * axis.step + axis.offset[static_cast<std::size_t>(first)] < 0) ++first;
  while (first < end && i0 * axis.step + axis.offset[static_cast<std::size_t>(end - 1)] >= axis.in) --end;
  return {first, end};
}

/// slab [channels, rows, pitch] = the input of a block of one image with its halo, zero or absent; row [cols, channels]
/// is scratch.
inline void fill_planes(const GatherGemmRun& run, const Block& block, bool mark_padding, float* row, float* slab) {
  const float padding = mark_padding ? bit_cast<float>(absent_bits) : 0.0f;
  const GatherAxis &rows = run.gather.rows, &cols = run.gather.cols;
  const GatherGemm::Planar& planar = run.gemm.planar;
  const std::int64_t y0 = block.row0 + rows.offset.front(), y1 = block.row1 + rows.offset.back();
  const std::int64_t x0 = block.col0 + cols.offset.front(), x1 = block.col1 + cols.offset.back();
  const std::int64_t in0 = std::clamp<std::int64_t>(x0, 0, cols.in), in1 = std::clamp<std::int64_t>(x1, in0, cols.in);
  const std::int64_t channels = run.gather.channels;
  for (std::int64_t y = y0; y < y1; ++y, slab += planar.pitch) {
    const bool inside = y >= 0 && y < rows.in && in0 < in1;
    if (inside) run.input.copy(((block.image0 * rows.in + y) * cols.in + in0) * channels, (in1 - in0) * channels, row);
    if (inside && mark_padding) canonicalize_nan(row, row + (in1 - in0) * channels);
    for (std::int64_t c = 0; c < channels; ++c) {
      float* to = slab + c * planar.plane - x0;
      std::fill(to + x0, to + (inside ? in0 : x1), padding);
      if (!inside) continue;
      copy_strided(row + c, channels, in1 - in0, to + in0);
      std::fill(to + in1, to + x1, padding);
    }
  }
}

/// One image's pixels in the vector lanes: sums [results, length], then rows [cols, results].
template <Absent absent>
void planar_block(const GatherGemmRun& run, const Block& block, int thread) {
  const GatherGemm::Planar& planar = run.gemm.planar;
  fill_planes(run, block, absent != Absent::none, run.packed(thread), run.slab(thread));
  const std::int64_t results = run.gemm.results, width = planar_width(static_cast<int>(results));
  const auto tile = planar_tiles<absent>[static_cast<std::size_t>(results - 1)];
  float* sums = run.sums(thread);
  const std::int64_t pixels = (block.rows() - 1) * planar.pitch + block.cols();
  const std::int64_t tap_row_depth = run.gather.cols.taps() * run.gather.channels;
  for (std::int64_t pixel = 0; pixel < pixels; pixel += width) {
    const std::int64_t row0 = block.row0 + pixel / planar.pitch, row1 = block.row0 + (pixel + width - 1) / planar.pitch;
    const auto [tap0, tap1] = taps_inside(run.gather.rows, row0, std::min(row1, block.row1 - 1));
    const std::int64_t first = tap0 * tap_row_depth;
    tile((tap1 - tap0) * tap_row_depth, run.workspace + first * run.gemm.padded_results, run.gemm.padded_results,
         run.slab(thread) + pixel, planar.offsets.data() + first, sums + pixel, planar.length);
  }
  float* row = run.packed(thread);
  const auto interleave = interleaves[static_cast<std::size_t>(results - 1)];
  for (std::int64_t i = 0; i < block.rows(); ++i, sums += planar.pitch) {
    interleave(sums, planar.length, run.bias(0), block.cols(), row);
    run.store_row(block, block.image0, block.row0 + i, 0, row, results);
  }
}

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
