// Included once per instruction set, inside HWY_NAMESPACE files only; hence no #pragma once.
#if defined(HALFTONE_PACK_WEIGHT_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef HALFTONE_PACK_WEIGHT_INL
#undef HALFTONE_PACK_WEIGHT_INL
#else
#define HALFTONE_PACK_WEIGHT_INL
#endif

#include <atomic>

#include "kernels/cpu/gather_gemm_run-inl.hpp"
#include "kernels/cpu/parallel.hpp"

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {

/// Calls f(tap row and column of the weight) in the order of the slice.
template <class F>
void for_each_tap(const Gather& gather, const DepthSlice& slice, F&& f) {
  for (std::int64_t t = slice.tap_row0; t < slice.tap_row1; ++t)
    for (std::int64_t u = slice.tap_col0; u < slice.tap_col1; ++u) f(gather.rows.tap[t], gather.cols.tap[u]);
}

/// panel [depth, width] of `used` results from col on, each a filter; filters [used, packed_stride] is scratch.
inline void pack_filters(const GatherGemmRun& run, std::int64_t group, const DepthSlice& slice, std::int64_t col,
                         std::int64_t used, std::int64_t width, float* filters, float* panel) {
  for (std::int64_t j = 0; j < used; ++j) {
    float* to = filters + j * packed_stride;
    for_each_tap(run.gather, slice, [&](std::int64_t tap_row, std::int64_t tap_col) {
      run.weight.copy(run.gemm.order.index(group, col + j, tap_row, tap_col, slice.channel), slice.channels, to);
      to += slice.channels;
    });
  }
  for (std::int64_t d = 0; d < slice.depth; ++d) {
    for (std::int64_t j = 0; j < used; ++j) panel[d * width + j] = filters[j * packed_stride + d];
    for (std::int64_t j = used; j < width; ++j) panel[d * width + j] = 0;
  }
}

/// The same where each result is a channel.
inline void pack_channels(const GatherGemmRun& run, std::int64_t group, const DepthSlice& slice, std::int64_t col,
                          std::int64_t used, std::int64_t width, float* panel) {
  for_each_tap(run.gather, slice, [&](std::int64_t tap_row, std::int64_t tap_col) {
    for (std::int64_t i = 0; i < slice.channels; ++i, panel += width) {
      run.weight.copy(run.gemm.order.index(group, col, tap_row, tap_col, slice.channel + i), used, panel);
      std::fill(panel + used, panel + width, 0.0f);
    }
  });
}

/// Packs all panels; says whether the weight is finite.
inline bool pack_weight(const GatherGemmRun& run) {
  const std::int64_t slices = std::ssize(run.gather.slices),
                     count = (run.gemm.padded_results + tile_width - 1) / tile_width;
  std::atomic<bool> finite = true;
  parallel_for(run.gemm.threads, run.gather.groups * slices * count, [&](std::int64_t task, int thread) {
    const std::int64_t group = task / count / slices, col = task % count * tile_width;
    const DepthSlice& slice = run.gather.slices[task / count % slices];
    float* panel = run.panels(group, slice) + slice.depth * col;
    const std::int64_t width = run.panel_width(col), used = std::min(width, run.gemm.results - col);
    if (run.gemm.order.result_is_filter) {
      pack_filters(run, group, slice, col, used, width, run.packed(thread), panel);
    } else {
      pack_channels(run, group, slice, col, used, width, panel);
    }
    if (!all_finite(panel, slice.depth * width)) finite = false;
  });
  return finite;
}

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
