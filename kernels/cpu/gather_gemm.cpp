#include "kernels/cpu/gather_gemm.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <utility>

#include "kernels/cpu/parallel.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gather_gemm.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/gather-inl.hpp"
#include "kernels/cpu/microkernel-inl.hpp"
#include "kernels/cpu/planes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {
namespace {

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
  /// The same in pairs [padded_results / width, padded depth / 2, width, 2].
  std::uint16_t* pair_panels(const DepthSlice& slice) const {
    const std::int64_t index = &slice - gather.slices.data();
    return reinterpret_cast<std::uint16_t*>(workspace) + index * max_depth * gemm.padded_results;
  }
  std::int64_t pair_depth(const DepthSlice& slice) const { return round_up(slice.depth, gemm.pairs->step); }
  std::uint8_t* flags() const { return reinterpret_cast<std::uint8_t*>(workspace + gemm.flags_at); }
  std::int64_t panel_width(std::int64_t col) const { return std::min(tile_width, gemm.padded_results - col); }
  /// [padded_results], or null where there is none.
  float* bias(std::int64_t group) const {
    return gemm.has_bias ? workspace + gemm.bias_at + group * gemm.padded_results : nullptr;
  }

  // A thread's own.
  float* slab(int thread) const { return workspace + gemm.shared + thread * gemm.per_thread; }
  float* packed(int thread) const { return slab(thread) + gemm.packed_at; }
  float* sums(int thread) const { return slab(thread) + gemm.sums_at; }

  /// Where a row of a block belongs in the output.
  std::int64_t first(const Block& block, std::int64_t image, std::int64_t i) const {
    const Scatter& to = gemm.scatter;
    return ((image * to.height + to.row0 + i * to.row_step) * to.width + to.col0 + block.col0 * to.col_step) *
           gather.groups * gemm.results;
  }
  /// Where to compute the results of a block, rows of whole vectors.
  float* place(const Block& block, float* buffer) const {
    const Scatter& to = gemm.scatter;
    const bool whole = gemm.results == gemm.padded_results && gather.groups == 1 && to.row_step * to.col_step == 1;
    const bool in_order = block.cols() == to.width || block.images() * block.rows() == 1;
    return whole && in_order ? output.place(first(block, block.image0, block.row0), buffer) : buffer;
  }

  /// Finishes and stores a row of a block: values [cols, stride].
  void store_row(const Block& block, std::int64_t image, std::int64_t i, std::int64_t group, float* values,
                 std::int64_t stride) const {
    const std::int64_t results = gemm.results, cols = block.cols(), step = gemm.scatter.col_step * gather.groups;
    if (stride != results) close_gaps(cols, stride, results, values);
    if (gemm.activation) gemm.activate(*gemm.activation, values, values, cols * results);
    const std::int64_t to = first(block, image, i) + group * results;
    output(to, step * results, cols, results, values);
  }

 private:
  void read_bias(const Input& from) const {
    std::fill_n(bias(0), gather.groups * gemm.padded_results, 0.0f);
    for (std::int64_t group = 0; group < gather.groups; ++group)
      from.copy(group * gemm.results, gemm.results, bias(group));
  }
};

/// Calls f(tap row and column of the weight) in the order of the slice.
template <class F>
void for_each_tap(const Gather& gather, const DepthSlice& slice, F&& f) {
  for (std::int64_t t = slice.tap_row0; t < slice.tap_row1; ++t)
    for (std::int64_t u = slice.tap_col0; u < slice.tap_col1; ++u) f(gather.rows.tap[t], gather.cols.tap[u]);
}

/// panel [depth, width] of `used` results from col on, each a filter; filters [used, packed_stride] is scratch.
void pack_filters(const GatherGemmRun& run, std::int64_t group, const DepthSlice& slice, std::int64_t col,
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
void pack_channels(const GatherGemmRun& run, std::int64_t group, const DepthSlice& slice, std::int64_t col,
                   std::int64_t used, std::int64_t width, float* panel) {
  for_each_tap(run.gather, slice, [&](std::int64_t tap_row, std::int64_t tap_col) {
    for (std::int64_t i = 0; i < slice.channels; ++i, panel += width) {
      run.weight.copy(run.gemm.order.index(group, col, tap_row, tap_col, slice.channel + i), used, panel);
      std::fill(panel + used, panel + width, 0.0f);
    }
  });
}

/// Packs all panels; says whether the weight is finite.
bool pack_weight(const GatherGemmRun& run) {
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

void pack_pairs(const GatherGemmRun& run) {
  constexpr std::int64_t width = PairProducts::width;
  const std::int64_t panels = run.gemm.padded_results / width;
  parallel_for(run.gemm.threads, std::ssize(run.gather.slices) * panels, [&](std::int64_t task, int) {
    const DepthSlice& slice = run.gather.slices[task / panels];
    const std::int64_t depth = run.pair_depth(slice), col = task % panels * width;
    const std::int64_t used = std::min(width, run.gemm.results - col);
    std::uint16_t* panel = run.pair_panels(slice) + col * depth;
    std::fill_n(panel, depth * width, std::uint16_t{0});
    std::int64_t d = 0;
    for_each_tap(run.gather, slice, [&](std::int64_t tap_row, std::int64_t tap_col) {
      for (std::int64_t i = 0; i < slice.channels; ++i, ++d)
        for (std::int64_t j = 0; j < used; ++j)
          panel[d / 2 * 2 * width + 2 * j + d % 2] =
              run.weight.codes()[run.gemm.order.index(0, col + j, tap_row, tap_col, slice.channel + i)];
    });
  });
}

void add_bias(const float* HWY_RESTRICT bias, std::int64_t rows, std::int64_t cols, float* HWY_RESTRICT to) {
  for (std::int64_t i = 0; i < rows; ++i, to += cols)
    for (std::int64_t j = 0; j < cols; ++j) to[j] += bias[j];
}

/// A block's input for a slice, in lines long enough for the microkernel.
template <Absent absent>
Lines lines_of(const GatherGemmRun& run, const DepthSlice& slice, std::int64_t group, const Block& block, int thread) {
  constexpr std::int64_t enough = tile_height / 2;
  if (is_slab(run.gather, slice, block, run.gemm.input, 0)) {
    const Lines lines = lines_of_tensor(run.gather, slice, group, block, run.input);
    if (lines.pixels >= enough) return lines;
  }
  fill_slab(run.gather, slice, group, block, run.input, absent != Absent::none, run.slab(thread));
  const Lines lines = lines_of_slab(run.gather, slice, block, run.slab(thread));
  if (lines.pixels >= enough) return lines;
  pack_lines(slice, lines, run.packed(thread));
  return {.data = run.packed(thread),
          .runs = {&slice.whole, 1},
          .images = 1,
          .rows = 1,
          .pixels = block.pixels(),
          .image = 0,
          .row = 0,
          .pixel = packed_stride};
}

/// Finishes and stores a block: sums [pixels, padded_results], the bias in them.
void store_block(const GatherGemmRun& run, const Block& block, std::int64_t group, float* sums) {
  const std::int64_t stride = run.gemm.padded_results;
  for (std::int64_t image = block.image0; image < block.image1; ++image)
    for (std::int64_t i = block.row0; i < block.row1; ++i, sums += block.cols() * stride)
      run.store_row(block, image, i, group, sums, stride);
}

/// Multiplies a block in pairs; stores it, or says that some sum is not finite.
bool paired_block(const GatherGemmRun& run, const Block& block, int thread) {
  const std::int64_t pixels = block.pixels(), stride = run.gemm.padded_results;
  float* sums = run.place(block, run.sums(thread));
  auto* codes = reinterpret_cast<std::uint16_t*>(run.packed(thread));
  if (run.gather.slices.empty()) std::fill_n(sums, pixels * stride, 0.0f);
  for (const DepthSlice& slice : run.gather.slices) {
    const std::int64_t depth = run.pair_depth(slice);
    const CodeGather gather(run.gather, slice, run.input);
    std::uint16_t* to = codes;
    for (std::int64_t image = block.image0; image < block.image1; ++image)
      for (std::int64_t i = block.row0; i < block.row1; ++i)
        for (std::int64_t j = block.col0; j < block.col1; ++j, to += max_depth) {
          gather(image, i, j, to);
          std::fill(to + slice.depth, to + depth, std::uint16_t{0});
        }
    run.gemm.pairs->multiply(pixels, stride / PairProducts::width, depth, codes, max_depth, run.pair_panels(slice),
                             slice.base != 0, sums, stride);
  }
  if (!all_finite(sums, pixels * stride)) return false;
  if (run.gemm.has_bias) add_bias(run.bias(0), pixels, stride, sums);
  store_block(run, block, 0, sums);
  return true;
}

/// Multiplies the gathered numbers of a block by the panels: sums [pixels, padded_results], which are in their place
/// already where they can be.
template <Absent absent>
void tiled_block(const GatherGemmRun& run, const Block& block, int thread) {
  const std::int64_t pixels = block.pixels(), stride = run.gemm.padded_results;
  for (std::int64_t group = 0; group < run.gather.groups; ++group) {
    float* sums = run.place(block, run.sums(thread));
    const float* bias = run.bias(group);
    const bool one_slice = run.gather.slices.size() == 1;  // whose sums are whole
    if (run.gather.slices.empty()) std::fill_n(sums, pixels * stride, 0.0f);
    for (const DepthSlice& slice : run.gather.slices) {
      const Lines lines = lines_of<absent>(run, slice, group, block, thread);
      for (std::int64_t col = 0; col < stride; col += tile_width) {
        const std::int64_t width = run.panel_width(col);
        for (std::int64_t line = 0; line < lines.count(); ++line) {
          float* to = sums + line * lines.pixels * stride + col;
          const Start start = slice.base != 0 ? Start{to, stride} : bias && one_slice ? Start{bias + col} : Start{};
          multiply<false, absent>(lines.pixels, width, lines.runs, lines.data + lines.offset(line), lines.pixel,
                                  run.panels(group, slice) + slice.depth * col, width, start, to, stride);
        }
      }
    }
    if (bias && !one_slice) add_bias(bias, pixels, stride, sums);
    store_block(run, block, group, sums);
  }
}

/// One image's pixels in the vector lanes: sums [results, length], then rows [cols, results].
template <Absent absent>
void planar_block(const GatherGemmRun& run, const Block& block, int thread) {
  const Planes& planes = *run.gemm.planes;
  const std::int64_t length = run.gemm.planar_length;
  fill_planes(run.gather, planes, block, run.input, absent != Absent::none, run.packed(thread), run.slab(thread));
  const std::int64_t results = run.gemm.results, width = planar_width(static_cast<int>(results));
  const auto tile = planar_tiles<absent>[static_cast<std::size_t>(results - 1)];
  float* sums = run.sums(thread);
  const std::int64_t pixels = (block.rows() - 1) * planes.pitch + block.cols();
  const std::int64_t tap_row_depth = run.gather.cols.taps() * run.gather.channels;
  for (std::int64_t pixel = 0; pixel < pixels; pixel += width) {
    const std::int64_t row0 = block.row0 + pixel / planes.pitch, row1 = block.row0 + (pixel + width - 1) / planes.pitch;
    const auto [tap0, tap1] = run.gather.rows.taps_inside(row0, std::min(row1, block.row1 - 1));
    const std::int64_t first = tap0 * tap_row_depth;
    tile((tap1 - tap0) * tap_row_depth, run.workspace + first * run.gemm.padded_results, run.gemm.padded_results,
         run.slab(thread) + pixel, planes.offsets.data() + first, sums + pixel, length);
  }
  float* row = run.packed(thread);
  const auto interleave = interleaves[static_cast<std::size_t>(results - 1)];
  for (std::int64_t i = 0; i < block.rows(); ++i, sums += planes.pitch) {
    interleave(sums, length, run.bias(0), block.cols(), row);
    run.store_row(block, block.image0, block.row0 + i, 0, row, results);
  }
}

void run(const GatherGemm& gemm, const Arguments& arguments, const std::uint8_t* wanted) {
  const GatherGemmRun run(gemm, arguments);
  const auto all_blocks = [&](const Blocks& blocks, auto block) {
    parallel_for(gemm.threads, blocks.count(), [&](std::int64_t task, int thread) {
      if (!wanted || wanted[task]) block(run, blocks[task], thread);
    });
  };
  if (gemm.pairs) {
    pack_pairs(run);
    std::atomic<bool> finite = true;
    parallel_for(gemm.threads, gemm.gather.blocks.count(), [&](std::int64_t task, int thread) {
      run.flags()[task] = paired_block(run, gemm.gather.blocks[task], thread) ? 0 : 1;
      if (run.flags()[task]) finite = false;
    });
    if (finite) return;
    wanted = run.flags();
  }
  const bool skip_padding = !pack_weight(run) && gemm.gather.leaves_input();  // zero times infinity is not zero
  if (gemm.planes)
    all_blocks(gemm.planes->blocks, skip_padding ? planar_block<Absent::right> : planar_block<Absent::none>);
  else
    all_blocks(gemm.gather.blocks, skip_padding ? tiled_block<Absent::left> : tiled_block<Absent::none>);
}

}  // namespace
}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {
namespace {

constexpr std::int64_t block_pixels = 96;

}  // namespace

GatherGemm::GatherGemm(Gather what, Scatter where, WeightOrder weight_order, const Operands& operands,
                       std::optional<Activation> function, Isa chosen, int team, const Blocks* cut,
                       std::optional<PairUnit> unit)
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
  if (unit) pairs = pair_products(isa, *unit);
  padded_results = round_up(results, pairs ? PairProducts::width : tile.lanes);
  gather.blocks = cut ? *cut : cut_blocks(gather.images, gather.rows.out, gather.cols.out, block_pixels, block_pixels);
  gather.cut_slices(tile.max_depth, pairs.has_value());  // long runs are read fast
  if (!cut && !pairs && results <= std::min(tile.planar_height, tile.width)) planes = cut_planes(gather, tile);
  if (planes) gather.cut_slices(tile.max_depth, true);  // by taps: the order of the planes' offsets
  std::int64_t slab = gather.slab_floats();
  std::int64_t packed = std::max(gather.blocks.largest().pixels(), tile.width) * tile.packed_stride;
  std::int64_t sums = gather.blocks.largest().pixels() * padded_results;
  if (planes) {
    const Block largest = planes->blocks.largest();
    const std::int64_t planar_width = tile.planar_width(static_cast<int>(results));
    planar_length = round_up(largest.rows() * planes->pitch, planar_width);
    slab = std::max(slab, gather.channels * planes->plane + planes->pitch + planar_width);
    packed = std::max(packed, std::max(gather.cols.in * gather.channels, (largest.cols() + tile.lanes) * results));
    sums = std::max(sums, planar_length * results + tile.lanes);
  }
  std::int64_t panels = gather.groups * gather.depth() * padded_results;
  if (pairs) panels = std::max(panels, (std::ssize(gather.slices) * tile.max_depth * padded_results + 1) / 2);
  bias_at = round_up(panels, tile.line);
  flags_at = bias_at + round_up(has_bias ? gather.groups * padded_results : 0, tile.line);
  shared = flags_at + round_up(pairs ? (gather.blocks.count() + 3) / 4 : 0, tile.line);
  packed_at = round_up(slab + tile.lanes, tile.line);
  sums_at = packed_at + round_up(packed, tile.line);
  per_thread = sums_at + round_up(sums, tile.line);
}

void GatherGemm::run(const Arguments& arguments) const { HALFTONE_PER_ISA(isa, run)(*this, arguments, nullptr); }
void GatherGemm::run_some(const Arguments& arguments, const std::uint8_t* wanted) const {
  HALFTONE_PER_ISA(isa, run)(*this, arguments, wanted);
}

}  // namespace halftone::cpu
#endif
