#include "kernels/cpu/weight_gradient.hpp"

#include <algorithm>
#include <utility>

#include "kernels/cpu/parallel.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/weight_gradient.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/gather-inl.hpp"
#include "kernels/cpu/microkernel-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {

class WeightGradientRun {
 public:
  WeightGradientRun(const WeightGradient& work, const Arguments& arguments)
      : work_(work),
        gather_(work.gather),
        workspace_(static_cast<float*>(arguments.workspace)),
        input_(work.input, arguments.inputs[0]),
        d_output_(work.d_output, arguments.inputs[1]),
        d_weight_(work.d_weight, arguments, 0) {}

  void run() const {
    const std::int64_t slices = std::ssize(gather_.slices);
    parallel_for(work_.threads, work_.splits * gather_.groups * slices, [&](std::int64_t task, int thread) {
      sum_part(task / slices / gather_.groups, task / slices % gather_.groups, task % slices, thread);
    });
    parallel_for(work_.threads, gather_.groups * work_.filters, [&](std::int64_t filter, int thread) {
      add_parts(filter / work_.filters, filter % work_.filters, slab(thread));
      d_weight_(filter * gather_.depth(), gather_.depth(), slab(thread));
    });
  }

 private:
  static constexpr std::int64_t chain_blocks = WeightGradient::chain_blocks;

  // A thread's slab [images, rows, cols, channels], also a row of d_weight.
  float* slab(int thread) const { return workspace_ + work_.shared + thread * work_.per_thread; }
  float* partial(std::int64_t split, std::int64_t group) const {
    return workspace_ + (split * gather_.groups + group) * work_.group_floats;
  }

  void sum_part(std::int64_t split, std::int64_t group, std::int64_t index, int thread) const {
    const DepthSlice& slice = gather_.slices[static_cast<std::size_t>(index)];
    const auto [at, stride] = work_.partials[static_cast<std::size_t>(index)];
    float* sums = partial(split, group) + at;
    float *packed = slab(thread) + work_.packed_at, *gradient = slab(thread) + work_.gradient_at;
    const std::int64_t filters = work_.filters, blocks = gather_.blocks.count();
    const std::int64_t first = blocks * split / work_.splits, end = blocks * (split + 1) / work_.splits;
    float* chain = end - first > chain_blocks ? slab(thread) + work_.chain_at : sums;
    for (std::int64_t b = first; b < end; ++b) {
      const Block block = gather_.blocks[b];
      const std::int64_t pixels = block.pixels();
      read_gradient(block, group, gradient);
      const bool skip_padding = gather_.leaves_input() && !all_finite(gradient, pixels * filters);
      fill_slab(gather_, slice, group, block, input_, skip_padding, slab(thread));
      pack_rows(gather_, slice, block, slab(thread), packed);
      const auto multiply_panel = skip_padding ? multiply<1, Absent::right> : multiply<1, Absent::none>;
      const bool begins = (b - first) % chain_blocks == 0;
      for (std::int64_t col = 0; col < stride; col += tile_width)
        multiply_panel(filters, std::min(tile_width, stride - col), pixels, gradient, filters, packed + col,
                       packed_stride, chain + col, stride, !begins);
      if (chain != sums && (b + 1 == end || (b + 1 - first) % chain_blocks == 0))
        for (std::int64_t i = 0; i < filters * stride; ++i)
          sums[i] = b - first < chain_blocks ? chain[i] : sums[i] + chain[i];
    }
  }

  /// gradient [pixels, filters] = d_output of a block and group.
  void read_gradient(const Block& block, std::int64_t group, float* gradient) const {
    const std::int64_t filters = work_.filters, channels = filters * gather_.groups;
    for (std::int64_t image = block.image0; image < block.image1; ++image) {
      for (std::int64_t i = block.row0; i < block.row1; ++i) {
        const std::int64_t pixel = (image * gather_.rows.out + i) * gather_.cols.out + block.col0;
        const std::int64_t at_once = filters == channels ? block.cols() : 1;
        for (std::int64_t j = 0; j < block.cols(); j += at_once, gradient += at_once * filters)
          d_output_.copy((pixel + j) * channels + group * filters, at_once * filters, gradient);
      }
    }
  }

  /// row [taps, channels] = a filter's sum over the splits.
  void add_parts(std::int64_t group, std::int64_t filter, float* row) const {
    const std::int64_t channels = gather_.group_channels();
    for (std::size_t index = 0; index < gather_.slices.size(); ++index) {
      const DepthSlice& slice = gather_.slices[index];
      const auto [at, stride] = work_.partials[index];
      float* sums = partial(0, group) + at + filter * stride;
      for (std::int64_t split = 1; split < work_.splits; ++split) {
        const float* more = partial(split, group) + at + filter * stride;
        for (std::int64_t d = 0; d < slice.depth; ++d) sums[d] += more[d];
      }
      for (std::int64_t t = slice.tap_row0; t < slice.tap_row1; ++t)
        for (std::int64_t u = slice.tap_col0; u < slice.tap_col1; ++u, sums += slice.channels)
          std::copy_n(sums, slice.channels, row + (t * gather_.cols.taps() + u) * channels + slice.channel);
    }
  }

  const WeightGradient& work_;
  const Gather& gather_;
  float* workspace_;
  Input input_, d_output_;
  Output d_weight_;
};

void run(const WeightGradient& work, const Arguments& arguments) { WeightGradientRun(work, arguments).run(); }

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {
namespace {

constexpr std::int64_t cached_sums = 131072, most_partial_floats = 4 << 20, most_tasks = 32;
constexpr std::int64_t split_pixels = 1024;  ///< at least, so that adding the partial sums costs little
constexpr double task_operations = 2e6;      ///< at least

}  // namespace

WeightGradient::WeightGradient(Gather what, std::int64_t filter_count, const Operands& operands, Isa chosen, int team)
    : gather(std::move(what)),
      filters(filter_count),
      input(chosen, operands.inputs[0]),
      d_output(chosen, operands.inputs[1]),
      d_weight(chosen, operands.output),
      isa(chosen),
      threads(team) {
  const TileShape tile = HALFTONE_PER_ISA(isa, tile_shape);
  const std::int64_t block_pixels = gather.depth() * 2 <= tile.max_depth ? 192 : 96;
  gather.blocks = cut_blocks(gather.images, gather.rows.out, gather.cols.out, block_pixels, block_pixels);
  gather.cut_slices(std::clamp(cached_sums / filters, tile.width, tile.max_depth));
  group_floats = 0;
  std::int64_t slice_floats = 0;
  for (const DepthSlice& slice : gather.slices) {
    partials.push_back({group_floats, round_up(slice.depth, tile.lanes)});
    group_floats += filters * partials.back().stride;
    slice_floats = std::max(slice_floats, filters * partials.back().stride);
  }
  const std::int64_t tasks = gather.groups * std::ssize(gather.slices),
                     pixels = gather.images * gather.rows.out * gather.cols.out;
  const double operations = 2.0 * static_cast<double>(pixels * filters) * static_cast<double>(gather.depth());
  splits = std::min({pixels / split_pixels, static_cast<std::int64_t>(operations / task_operations) + 1,
                     most_tasks / tasks, most_partial_floats / (gather.groups * group_floats), gather.blocks.count()});
  splits = std::max<std::int64_t>(splits, 1);
  const std::int64_t most_pixels = gather.blocks.largest().pixels();
  shared = round_up(splits * gather.groups * group_floats, tile.line);
  packed_at = round_up(std::max(gather.slab_floats() + tile.lanes, gather.depth()), tile.line);
  gradient_at = packed_at + most_pixels * tile.packed_stride;
  chain_at = gradient_at + round_up(most_pixels * filters, tile.line);
  per_thread = chain_at + (gather.blocks.count() > splits * chain_blocks ? round_up(slice_floats, tile.line) : 0);
}

void WeightGradient::run(const Arguments& arguments) const { HALFTONE_PER_ISA(isa, run)(*this, arguments); }

}  // namespace halftone::cpu
#endif
