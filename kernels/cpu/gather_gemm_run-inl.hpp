// Included once per instruction set, inside HWY_NAMESPACE files only; hence no #pragma once.
#if defined(HALFTONE_GATHER_GEMM_RUN_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef HALFTONE_GATHER_GEMM_RUN_INL
#undef HALFTONE_GATHER_GEMM_RUN_INL
#else
#define HALFTONE_GATHER_GEMM_RUN_INL
#endif

#include "kernels/cpu/gather-inl.hpp"
#include "kernels/cpu/gather_gemm.hpp"
#include "kernels/cpu/microkernel-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {

/// One run of a `GatherGemm`: its tensors, its buffers, and how a row of results is finished.
struct GatherGemmRun {
  const GatherGemm& gemm;
  const Gather& gather;
  Input input, weight;
  Output output;
  float* workspace;

  GatherGemmRun(const GatherGemm& gemm, const Arguments& arguments)
      : gemm(gemm),
        gather(gemm.gather),
        input(gemm.input, arguments.inputs[0]),
        weight(gemm.weight, arguments.inputs[1]),
        output(gemm.output, arguments, 0),
        workspace(static_cast<float*>(arguments.workspace)) {
    if (gemm.has_bias) read_bias({gemm.bias, arguments.inputs[2]});
  }

  /// The weight of a group and slice: panels [depth, width] side by side, [depth, padded_results] in all.
  float* panels(std::int64_t group, const DepthSlice& slice) const {
    return workspace + (group * gather.depth() + slice.base) * gemm.padded_results;
  }
  std::int64_t panel_width(std::int64_t col) const { return std::min(tile_width, gemm.padded_results - col); }
  /// [padded_results], or null where there is none.
  float* bias(std::int64_t group) const {
    return gemm.has_bias ? workspace + gemm.bias_at + group * gemm.padded_results : nullptr;
  }

  // A thread's own.
  float* slab(int thread) const { return workspace + gemm.shared + thread * gemm.per_thread; }
  float* packed(int thread) const { return slab(thread) + gemm.packed_at; }
  float* sums(int thread) const { return slab(thread) + gemm.sums_at; }

  /// Finishes and stores a row of a block: values [cols, stride].
  void store_row(const Block& block, std::int64_t image, std::int64_t i, std::int64_t group, float* values,
                 std::int64_t stride) const {
    const std::int64_t results = gemm.results, cols = block.cols(), channels = gather.groups * results;
    const Scatter& to = gemm.scatter;
    if (gemm.activation) gemm.activate(*gemm.activation, values, values, cols * stride);
    const std::int64_t pixel =
        (image * to.height + to.row0 + i * to.row_step) * to.width + to.col0 + block.col0 * to.col_step;
    const std::int64_t first = pixel * channels + group * results;
    if (stride == results && gather.groups == 1 && to.col_step == 1) return output(first, cols * results, values);
    for (std::int64_t j = 0; j < cols; ++j) output(first + j * to.col_step * channels, results, values + j * stride);
  }

 private:
  void read_bias(const Input& from) const {
    std::fill_n(bias(0), gather.groups * gemm.padded_results, 0.0f);
    for (std::int64_t group = 0; group < gather.groups; ++group)
      from.copy(group * gemm.results, gemm.results, bias(group));
  }
};

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
