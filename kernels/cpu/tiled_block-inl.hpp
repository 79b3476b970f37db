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

/// Multiplies the packed pixels [pixels, depth] of a block by the panels: sums [pixels, padded_results].
template <Absent absent>
void tiled_block(const GatherGemmRun& run, const Block& block, int thread) {
  const std::int64_t pixels = block.pixels(), stride = run.gemm.padded_results;
  for (std::int64_t group = 0; group < run.gather.groups; ++group) {
    float* sums = run.sums(thread);
    if (run.gather.slices.empty()) std::fill_n(sums, pixels * stride, 0.0f);
    for (const DepthSlice& slice : run.gather.slices) {
      fill_slab(run.gather, slice, group, block, run.input, absent != Absent::none, run.slab(thread));
      pack_rows(run.gather, slice, block, run.slab(thread), run.packed(thread));
      for (std::int64_t col = 0; col < stride; col += tile_width) {
        const std::int64_t width = run.panel_width(col);
        multiply<packed_stride, absent>(pixels, width, slice.depth, run.packed(thread), 1,
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
