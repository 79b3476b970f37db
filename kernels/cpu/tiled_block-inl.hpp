// Included once per instruction set, inside HWY_NAMESPACE files only; hence no #pragma once.
#if defined(HALFTONE_TILED_BLOCK_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef HALFTONE_TILED_BLOCK_INL
#undef HALFTONE_TILED_BLOCK_INL
#else
#define HALFTONE_TILED_BLOCK_INL
#endif

#include "kernels/cpu/gather_gemm_run-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {

inline void add_bias(const float* HWY_RESTRICT bias, std::int64_t rows, std::int64_t cols, float* HWY_RESTRICT to) {
  for (std::int64_t i = 0; i < rows; ++i, to += cols)
    for (std::int64_t j = 0; j < cols; ++j) to[j] += bias[j];
}

/// Leaves the taps in the padding out, one product of a pixel and a tap at a time: zero times infinity is not zero.
inline void multiply_inside(const GatherGemmRun& run, std::int64_t group, const DepthSlice& slice, const Block& block,
                            const float* packed, float* sums) {
  const std::int64_t stride = run.gemm.padded_results;
  for_each_pixel(block, [&](std::int64_t pixel, std::int64_t i, std::int64_t j) {
    for_each_tap_inside(run.gather, slice, i, j, [&](std::int64_t first) {
      for (std::int64_t col = 0; col < stride; col += tile_width) {
        const std::int64_t width = run.panel_width(col);
        multiply<packed_stride>(1, width, slice.channels, packed + pixel * packed_stride + first, 1,
                                run.panels(group, slice) + slice.depth * col + first * width, width,
                                sums + pixel * stride + col, stride, true);
      }
    });
  });
}

/// Multiplies the packed pixels [pixels, depth] of a block by the panels: sums [pixels, padded_results].
inline void tiled_block(const GatherGemmRun& run, const Block& block, int thread, bool skip_padding) {
  const std::int64_t pixels = block.pixels(), stride = run.gemm.padded_results;
  for (std::int64_t group = 0; group < run.gather.groups; ++group) {
    float* sums = run.sums(thread);
    if (run.gather.slices.empty() || skip_padding) std::fill_n(sums, pixels * stride, 0.0f);
    for (const DepthSlice& slice : run.gather.slices) {
      fill_slab(run.gather, slice, group, block, run.input, run.slab(thread));
      pack_rows(run.gather, slice, block, run.slab(thread), run.packed(thread));
      if (skip_padding) {
        multiply_inside(run, group, slice, block, run.packed(thread), sums);
        continue;
      }
      for (std::int64_t col = 0; col < stride; col += tile_width) {
        const std::int64_t width = run.panel_width(col);
        multiply<packed_stride>(pixels, width, slice.depth, run.packed(thread), 1,
                                run.panels(group, slice) + slice.depth * col, width, sums + col, stride,
                                slice.base != 0);
      }
    }
    for (std::int64_t image = block.image0; image < block.image1; ++image)
      for (std::int64_t i = block.row0; i < block.row1; ++i, sums += block.cols() * stride) {
        if (run.gemm.has_bias) add_bias(run.bias(group), block.cols(), stride, sums);
        run.store_row(block, image, i, group, sums, stride);
      }
  }
}

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
