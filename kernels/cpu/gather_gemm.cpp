#include "kernels/cpu/gather_gemm.hpp"

#include <algorithm>
#include <utility>

#include "kernels/cpu/parallel.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gather_gemm.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/pack_weight-inl.hpp"
#include "kernels/cpu/planar_block-inl.hpp"
#include "kernels/cpu/tiled_block-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {

void run(const GatherGemm& gemm, const Arguments& arguments) {
  const GatherGemmRun run(gemm, arguments);
  const auto all_blocks = [&](const Blocks& blocks, auto block) {
    parallel_for(gemm.threads, blocks.count(),
                 [&](std::int64_t task, int thread) { block(run, blocks[task], thread); });
  };
  const bool skip_padding = !pack_weight(run) && gemm.gather.leaves_input();  // zero times infinity is not zero
  if (gemm.planar.used)
    all_blocks(gemm.planar.blocks, skip_padding ? planar_block<Absent::right> : planar_block<Absent::none>);
  else
    all_blocks(gemm.gather.blocks, skip_padding ? tiled_block<Absent::left> : tiled_block<Absent::none>);
}

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {
namespace {

constexpr std::int64_t block_pixels = 96, max_planar_pixels = 1024, max_planar_floats = 8192;

/// Cuts the slices by taps, so that the reduction has the order [tap row, tap column, channel] as a whole.
GatherGemm::Planar plan_planar(Gather& gather, std::int64_t results, const TileShape& tile) {
  GatherGemm::Planar planar;
  const GatherAxis &rows = gather.rows, &cols = gather.cols;
  planar.used = gather.groups == 1 && rows.step == 1 && cols.step == 1 &&
                results <= std::min(tile.planar_height, tile.width) &&
                cols.taps() * gather.channels <= tile.max_depth && rows.taps() * cols.taps() > 3 &&
                2 * cols.out > cols.offset.back() - cols.offset.front();
  if (!planar.used) return planar;
  gather.cut_slices(tile.max_depth, true);
  planar.blocks =
      cut_blocks(gather.images, rows.out, cols.out,
                 std::clamp<std::int64_t>(max_planar_floats / gather.channels, block_pixels, max_planar_pixels), 1);
  const Block largest = planar.blocks.largest();
  planar.pitch = largest.cols() + cols.offset.back() - cols.offset.front();
  planar.plane = (largest.rows() + rows.offset.back() - rows.offset.front()) * planar.pitch;
  planar.length = round_up(largest.rows() * planar.pitch, tile.planar_width(static_cast<int>(results)));
  for (const DepthSlice& slice : gather.slices)
    for (std::int64_t t = slice.tap_row0; t < slice.tap_row1; ++t)
      for (std::int64_t u = slice.tap_col0; u < slice.tap_col1; ++u)
        for (std::int64_t c = slice.channel; c < slice.channel + slice.channels; ++c)
          planar.offsets.push_back(c * planar.plane + (rows.offset[t] - rows.offset.front()) * planar.pitch +
                                   cols.offset[u] - cols.offset.front());
  return planar;
}

}  // namespace

GatherGemm::GatherGemm(Gather what, Scatter where, WeightOrder weight_order, const Operands& operands,
                       std::optional<Activation> function, Isa chosen, int team)
    : gather(std::move(what)),
      scatter(where),
      order(weight_order),
      input(chosen, operands.inputs[0]),
      weight(chosen, operands.inputs[1]),
      output(chosen, operands.output),
      activation(function),
      activate(function ? activation_loop(chosen, *function) : nullptr),
      has_bias(operands.inputs.size() > 2),
      isa(chosen),
      threads(team) {
  const TileShape tile = HALFTONE_PER_ISA(isa, tile_shape);
  if (has_bias) bias = Access(isa, operands.inputs[2]);
  results = order.results();
  padded_results = round_up(results, tile.lanes);
  gather.blocks = cut_blocks(gather.images, gather.rows.out, gather.cols.out, block_pixels, block_pixels);
  gather.cut_slices(tile.max_depth);
  planar = plan_planar(gather, results, tile);
  std::int64_t slab = gather.slab_floats();
  std::int64_t packed = std::max(gather.blocks.largest().pixels(), tile.width) * tile.packed_stride;
  std::int64_t sums = gather.blocks.largest().pixels() * padded_results;
  if (planar.used) {
    const std::int64_t most_cols = std::max(gather.cols.in * gather.channels, planar.blocks.largest().cols() * results);
    slab = std::max(slab, gather.channels * planar.plane + planar.pitch + tile.planar_width(static_cast<int>(results)));
    packed = std::max(packed, most_cols);
    sums = std::max(sums, planar.length * results);
  }
  bias_at = round_up(gather.groups * gather.depth() * padded_results, tile.line);
  shared = bias_at + round_up(has_bias ? gather.groups * padded_results : 0, tile.line);
  packed_at = round_up(slab + tile.lanes, tile.line);
  sums_at = packed_at + round_up(packed, tile.line);
  per_thread = sums_at + round_up(sums, tile.line);
}

void GatherGemm::run(const Arguments& arguments) const { HALFTONE_PER_ISA(isa, run)(*this, arguments); }

}  // namespace halftone::cpu
#endif
