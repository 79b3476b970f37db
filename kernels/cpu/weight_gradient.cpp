#include "kernels/cpu/weight_gradient.hpp"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <span>
#include <utility>

#include "kernels/cpu/parallel.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/weight_gradient.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/gather-inl.hpp"
#include "kernels/cpu/microkernel-inl.hpp"
#include "kernels/cpu/planes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {
namespace {

template <int distance, int... lane>
HWY_INLINE void exchange(std::uint32_t (*rows)[16], std::integer_sequence<int, lane...>) {
  using Row [[gnu::vector_size(64)]] = std::uint32_t;
  for (int i = 0; i < 16; ++i) {
    if (i & distance) continue;
    Row a, b;
    std::memcpy(&a, rows[i], sizeof a);
    std::memcpy(&b, rows[i + distance], sizeof b);
    const Row upper = __builtin_shufflevector(a, b, (lane & distance ? 16 + lane - distance : lane)...);
    const Row lower = __builtin_shufflevector(a, b, (lane & distance ? 16 + lane : lane + distance)...);
    std::memcpy(rows[i], &upper, sizeof upper);
    std::memcpy(rows[i + distance], &lower, sizeof lower);
  }
}

HWY_INLINE void transpose(std::uint32_t (&square)[16][16]) {
  constexpr auto lanes = std::make_integer_sequence<int, 16>();
  exchange<1>(square, lanes), exchange<2>(square, lanes), exchange<4>(square, lanes), exchange<8>(square, lanes);
}

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

  /// Sums one slice over one part of the pixels. What is not finite may be zero times infinity in the padding: then the
  /// chain is summed again, and all after it, without the padding (and without pairs).
  void sum_part(std::int64_t split, std::int64_t group, std::int64_t index, int thread) const {
    const DepthSlice& slice = gather_.slices[static_cast<std::size_t>(index)];
    const WeightGradient::Partial& part = work_.partials[static_cast<std::size_t>(index)];
    float* sums = partial(split, group) + part.at;
    const std::int64_t blocks = gather_.blocks.count(), count = part.rows * part.stride;
    const std::int64_t first = blocks * split / work_.splits, end = blocks * (split + 1) / work_.splits;
    float* chain = end - first > chain_blocks ? slab(thread) + work_.chain_at : sums;
    bool skip_padding = false;
    if (work_.planes) std::fill_n(slab(thread), work_.packed_at, 0.0f);  // what no block writes is read, times zero
    for (std::int64_t b = first; b < end; ++b) {
      const std::int64_t place = (b - first) % chain_blocks;
      const bool ends = b + 1 == end || place + 1 == chain_blocks;
      if (work_.planes && !skip_padding) {
        add_planes(part, gather_.blocks[b], place == 0, ends, chain, thread);
        if (!ends) continue;
      } else if (work_.pairs && !skip_padding) {
        add_pairs(slice, part, gather_.blocks[b], place == 0, chain, thread);
      } else {
        Block block = gather_.blocks[b];
        for (const std::int64_t end_row = block.row1; block.row0 < end_row; block.row0 = block.row1) {
          block.row1 = std::min(block.row0 + work_.most_rows, end_row);
          add_block(slice, part, group, block, skip_padding, place == 0 && block.row0 == gather_.blocks[b].row0, chain,
                    thread);
        }
      }
      if ((gather_.leaves_input() || work_.pairs || work_.planes) && !skip_padding && !is_finite(slice, part, chain)) {
        skip_padding = true;
        b -= place + 1;
      } else if (chain != sums && ends) {
        for (std::int64_t i = 0; i < count; ++i) sums[i] = b - first < chain_blocks ? chain[i] : sums[i] + chain[i];
      }
    }
  }

  bool is_finite(const DepthSlice& slice, const WeightGradient::Partial& part, const float* sums) const {
    if (part.transposed) return all_finite(sums, part.rows * part.stride);
    const std::span<const Run> runs = part.packs ? std::span<const Run>(&slice.whole, 1) : slice.runs;
    for (std::int64_t filter = 0; filter < work_.filters; ++filter) {
      const float* row = sums + filter * part.stride;
      for (const Run& run : runs) {
        if (!all_finite(row, run.length)) return false;
        row += round_up(run.length, lanes);
      }
    }
    return true;
  }

  /// A chain's partial sums (+)= a block's share.
  void add_block(const DepthSlice& slice, const WeightGradient::Partial& part, std::int64_t group, const Block& block,
                 bool skip_padding, bool begins, float* chain, int thread) const {
    float *packed = slab(thread) + work_.packed_at, *gradient = slab(thread) + work_.gradient_at;
    const std::int64_t filters = work_.filters, stride = part.stride;
    const float* factors = gradient_of(block, group, gradient);
    const auto multiply_panel = skip_padding ? multiply<true, Absent::right> : multiply<true, Absent::none>;
    const auto multiply_run = [&](const Run& columns, std::span<const Run> pixels, const float* from,
                                  std::int64_t pixel, float* to) {
      for (std::int64_t col = 0; col < columns.length; col += tile_width)
        multiply_panel(filters, std::min(tile_width, columns.length - col), pixels, factors, filters,
                       from + columns.offset + col, pixel, begins ? Start{} : Start{to + col, stride}, to + col,
                       stride);
    };
    const Lines lines = lines_of(slice, group, block, skip_padding, slab(thread));
    const Run all{0, block.pixels()};
    if (part.packs) pack_lines(slice, lines, packed);
    if (part.transposed) {
      const std::int64_t next = (first_pixel(block) + all.length) * filters;
      return add_transposed(part, lines, packed, all, factors, next, skip_padding, begins, chain);
    }
    if (part.packs) return multiply_run(slice.whole, {&all, 1}, packed, packed_stride, chain);
    assert(lines.count() <= WeightGradient::most_lines);
    std::array<Run, WeightGradient::most_lines> pixels;
    const auto count = static_cast<std::size_t>(lines.count());
    for (std::size_t i = 0; i < count; ++i) pixels[i] = {lines.offset(static_cast<std::int64_t>(i)), lines.pixels};
    for (const Run& columns : lines.runs) {
      multiply_run(columns, {pixels.data(), count}, lines.data, lines.pixel, chain);
      chain += round_up(columns.length, lanes);
    }
  }

  /// chain [depth, filters] (+)= what the pixels of lines, or `all` of them `packed`, gather, times d_output. The next
  /// block's d_output, from `ahead` on, is fetched meanwhile, some of it before each panel.
  void add_transposed(const WeightGradient::Partial& part, const Lines& lines, const float* packed, const Run& all,
                      const float* d_output, std::int64_t ahead, bool skip_padding, bool begins, float* chain) const {
    const auto multiply_panel = skip_padding ? multiply<true, Absent::left> : multiply<true, Absent::none>;
    const std::int64_t count = all.length * part.stride, panels = (part.stride + tile_width - 1) / tile_width;
    const std::int64_t calls = part.packs ? panels : lines.count() * std::ssize(lines.runs) * panels;
    const std::int64_t share = gather_.groups == 1 ? (count + calls - 1) / calls : 0;
    const auto add = [&](std::int64_t rows, const Run& pixels, const float* from, std::int64_t pixel, float* to) {
      for (std::int64_t filter = 0; filter < part.stride; filter += tile_width, ahead += share) {
        d_output_.prefetch(ahead, share);
        multiply_panel(rows, std::min(tile_width, part.stride - filter), {&pixels, 1}, from, pixel, d_output + filter,
                       part.stride, begins ? Start{} : Start{to + filter, part.stride}, to + filter, part.stride);
      }
    };
    if (part.packs) return add(part.rows, all, packed, packed_stride, chain);
    for (std::int64_t i = 0; i < lines.count(); ++i, begins = false, d_output += lines.pixels * part.stride) {
      const Run pixels{0, lines.pixels};
      float* to = chain;
      for (const Run& run : lines.runs) {
        add(run.length, pixels, lines.data + lines.offset(i) + run.offset, lines.pixel, to);
        to += run.length * part.stride;
      }
    }
  }

  /// The same with pixels in the lanes: sums of whole vectors, until the chain `ends`.
  void add_planes(const WeightGradient::Partial& part, const Block& block, bool begins, bool ends, float* chain,
                  int thread) const {
    const Planes& planes = *work_.planes;
    const std::int64_t filters = work_.filters, depth = gather_.depth(), cols = block.cols();
    float *row = slab(thread) + work_.packed_at, *gradient = slab(thread) + work_.gradient_at;
    float* sums = gradient + filters * work_.planar_length;
    const auto place = static_cast<std::size_t>(filters - 1);
    if (begins) std::fill_n(sums, depth * filters * lanes, 0.0f);
    fill_planes(gather_, planes, block, input_, false, row, slab(thread));
    for (std::int64_t i = 0; i < block.rows(); ++i) {
      const std::int64_t pixel = (block.image0 * gather_.rows.out + block.row0 + i) * gather_.cols.out + block.col0;
      float* to = gradient + i * planes.pitch;
      deinterleaves[place](d_output_(pixel * filters, cols * filters, row), cols, to, work_.planar_length);
      const std::int64_t rest = (i + 1 < block.rows() ? planes.pitch : work_.planar_length - i * planes.pitch) - cols;
      for (std::int64_t f = 0; f < filters; ++f) std::fill_n(to + f * work_.planar_length + cols, rest, 0.0f);
    }
    const std::int64_t length = round_up((block.rows() - 1) * planes.pitch + cols, lanes);
    correlates_of[place](length, slab(thread), planes.offsets.data(), depth, gradient, work_.planar_length, sums);
    for (std::int64_t f = 0; ends && f < filters; ++f)
      for (std::int64_t d = 0; d < part.stride; ++d)
        chain[f * part.stride + d] =
            d < depth ? hn::GetLane(hn::SumOfLanes(Vectors(), hn::LoadU(Vectors(), sums + (d * filters + f) * lanes)))
                      : 0;
  }

  /// The same by products of pairs of pixels.
  void add_pairs(const DepthSlice& slice, const WeightGradient::Partial& part, const Block& block, bool begins,
                 float* chain, int thread) const {
    constexpr std::int64_t width = PairProducts::width;
    const std::int64_t depth = round_up(block.pixels(), work_.pairs->step), stride = part.stride;
    const std::int64_t left_stride = round_up(block.pixels(), 32);
    auto* const left = reinterpret_cast<std::uint16_t*>(slab(thread) + work_.gradient_at);
    auto* const right = reinterpret_cast<std::uint16_t*>(slab(thread) + work_.packed_at);
    transpose_gradient(block, left_stride, left);
    const CodeGather gather(gather_, slice, input_);
    std::uint16_t row[2][max_depth + width] = {};
    std::int64_t pixel = 0;
    const auto interleave = [&] {
      for (std::int64_t col = 0; col < stride; col += width) {
        std::uint16_t* to = right + col * depth + (pixel - 1) * width;
        for (std::int64_t j = 0; j < width; ++j) to[2 * j] = row[0][col + j], to[2 * j + 1] = row[1][col + j];
      }
    };
    for (std::int64_t image = block.image0; image < block.image1; ++image)
      for (std::int64_t i = block.row0; i < block.row1; ++i)
        for (std::int64_t j = block.col0; j < block.col1; ++j, ++pixel) {
          gather(image, i, j, row[pixel % 2]);
          if (pixel % 2 == 1) interleave();
        }
    for (; pixel < depth; ++pixel) {
      std::fill_n(row[pixel % 2], stride, std::uint16_t{0});
      if (pixel % 2 == 1) interleave();
    }
    work_.pairs->multiply(work_.filters, stride / width, depth, left, left_stride, right, !begins, chain, stride);
  }

  /// to [filters, stride] = d_output of a block as it is stored, zero behind its pixels and filters; both come in
  /// squares.
  void transpose_gradient(const Block& block, std::int64_t stride, std::uint16_t* to) const {
    const std::int64_t pixels = block.pixels(), filters = work_.filters;
    const std::uint16_t* from = d_output_.codes() + first_pixel(block) * filters;
    for (std::int64_t filter = 0; filter < filters; filter += 16)
      for (std::int64_t pixel = 0; pixel < stride; pixel += 32) {
        std::uint32_t pairs[16][16] = {};
        for (std::int64_t p = 0; p < std::min<std::int64_t>(pixels - pixel, 32); ++p) {
          const std::uint16_t* row = from + (pixel + p) * filters + filter;
          const std::int64_t used = std::min<std::int64_t>(filters - filter, 16);
          for (std::int64_t f = 0; f < used; ++f) pairs[p / 2][f] |= static_cast<std::uint32_t>(row[f]) << p % 2 * 16;
        }
        transpose(pairs);
        for (std::int64_t f = 0; f < 16; ++f)
          std::memcpy(to + (filter + f) * stride + pixel, pairs[f], sizeof pairs[f]);
      }
  }

  Lines lines_of(const DepthSlice& slice, std::int64_t group, const Block& block, bool mark_padding,
                 float* slab) const {
    const bool same_runs = slice.tensor_runs.size() == slice.runs.size();
    if (same_runs && is_slab(gather_, slice, block, work_.input, lanes))
      return lines_of_tensor(gather_, slice, group, block, input_);
    fill_slab(gather_, slice, group, block, input_, mark_padding, slab);
    return lines_of_slab(gather_, slice, block, slab);
  }

  /// The place of a block's first pixel in d_output.
  std::int64_t first_pixel(const Block& block) const {
    return (block.image0 * gather_.rows.out + block.row0) * gather_.cols.out + block.col0;
  }

  /// d_output of a block and group [pixels, filters], where it is or in `buffer`.
  const float* gradient_of(const Block& block, std::int64_t group, float* buffer) const {
    if (gather_.groups == 1)
      return d_output_(first_pixel(block) * work_.filters, block.pixels() * work_.filters, buffer);
    read_gradient(block, group, buffer);
    return buffer;
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
      const auto& part = work_.partials[index];
      const std::int64_t count = part.transposed ? part.rows : part.stride, step = part.transposed ? part.stride : 1;
      const std::int64_t first = part.at + filter * (part.transposed ? 1 : part.stride);
      float* sums = partial(0, group) + first;
      for (std::int64_t split = 1; split < work_.splits; ++split) {
        const float* more = partial(split, group) + first;
        for (std::int64_t d = 0; d < count; ++d) sums[d * step] += more[d * step];
      }
      const float* run = sums;
      std::int64_t in_run = 0, number = 0;
      for (std::int64_t t = slice.tap_row0; t < slice.tap_row1; ++t)
        for (std::int64_t u = slice.tap_col0; u < slice.tap_col1; ++u) {
          float* to = row + (t * gather_.cols.taps() + u) * channels + slice.channel;
          for (std::int64_t i = 0; i < slice.channels; ++i) to[i] = run[(in_run + i) * step];
          in_run += slice.channels;
          if (!part.packs && !part.transposed && in_run == slice.runs[static_cast<std::size_t>(number)].length)
            run += round_up(in_run, lanes), in_run = 0, ++number;
        }
    }
  }

  const WeightGradient& work_;
  const Gather& gather_;
  float* workspace_;
  Input input_, d_output_;
  Output d_weight_;
};

void run(const WeightGradient& work, const Arguments& arguments) { WeightGradientRun(work, arguments).run(); }

}  // namespace
}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {
namespace {

constexpr std::int64_t cached_sums = 131072, most_partial_floats = 4 << 20, most_tasks = 32;
constexpr std::int64_t split_pixels = 1024;  ///< at least, so that adding the partial sums costs little
constexpr double task_operations = 2e6;      ///< at least

/// Runs are packed where lines of pixels are short, or where apart they would fill vectors so badly that packing costs
/// less. Vectors hold filters instead, two at a time, where these fill them better; then runs need to be neither apart
/// nor packed.
WeightGradient::Partial partial_of(const DepthSlice& slice, std::int64_t line, std::int64_t filters,
                                   std::int64_t lanes) {
  constexpr std::int64_t shortest_line = 4, packing = 3;  // the latter in multiply-adds of a vector
  std::int64_t apart = 0;
  for (const Run& run : slice.runs) apart += round_up(run.length, lanes);
  const std::int64_t packed = round_up(slice.depth, lanes);
  bool packs = line < shortest_line || filters * (apart - packed) > packing * apart;
  if (filters % lanes != 0 || filters < 2 * lanes || slice.depth * 10 > 9 * (packs ? packed : apart))
    return {.stride = packs ? packed : apart, .rows = filters, .packs = packs};
  constexpr std::int64_t shortest_transposed = 16, sums_in_flight = 8;
  packs = line < shortest_transposed || 2 * slice.longest_run < sums_in_flight;
  return {.stride = filters, .rows = slice.depth, .packs = packs, .transposed = true};
}

}  // namespace

WeightGradient::WeightGradient(Gather what, std::int64_t filter_count, const Operands& operands, Isa chosen, int team,
                               std::optional<PairUnit> unit)
    : gather(std::move(what)),
      filters(filter_count),
      input(chosen, operands.inputs[0]),
      d_output(chosen, operands.inputs[1]),
      d_weight(chosen, operands.output),
      isa(chosen),
      threads(team) {
  const TileShape tile = HALFTONE_PER_ISA(isa, tile_shape);
  const bool narrow = gather.depth() * 2 <= tile.max_depth && filters <= 32;  // a block stays in the first-level cache
  const std::int64_t block_pixels = narrow ? 192 : 96;
  gather.blocks = cut_blocks(gather.images, gather.rows.out, gather.cols.out, block_pixels, block_pixels);
  if (unit) pairs = pair_products(isa, *unit);
  const std::int64_t most_planar_filters = tile.lanes < 16 ? 6 : tile.planar_height, most_planar_terms = 32;
  if (!pairs && filters <= most_planar_filters && gather.depth() <= most_planar_terms)
    planes = cut_planes(gather, tile);
  if (planes) gather.blocks = planes->blocks;
  const bool one_tap = gather.rows.taps() * gather.cols.taps() == 1 && gather.rows.step * gather.cols.step == 1;
  const std::int64_t line = one_tap ? block_pixels : gather.cols.out / gather.blocks.col_parts;
  gather.cut_slices(std::clamp(cached_sums / filters, tile.width, tile.max_depth), pairs.has_value());
  group_floats = 0;
  std::int64_t slice_floats = 0;
  for (const DepthSlice& slice : gather.slices) {
    const std::int64_t width = pairs ? PairProducts::width : tile.lanes;
    partials.push_back(pairs || planes ? Partial{.stride = round_up(slice.depth, width), .rows = filters, .packs = true}
                                       : partial_of(slice, line, filters, width));
    partials.back().at = group_floats;
    const std::int64_t floats = partials.back().rows * partials.back().stride;
    group_floats += floats;
    slice_floats = std::max(slice_floats, floats);
  }
  const std::int64_t tasks = gather.groups * std::ssize(gather.slices),
                     pixels = gather.images * gather.rows.out * gather.cols.out;
  const double operations = 2.0 * static_cast<double>(pixels * filters) * static_cast<double>(gather.depth());
  splits = std::min({pixels / split_pixels, static_cast<std::int64_t>(operations / task_operations) + 1,
                     most_tasks / tasks, most_partial_floats / (gather.groups * group_floats), gather.blocks.count()});
  splits = std::max<std::int64_t>(splits, 1);
  const Block largest = gather.blocks.largest();
  most_rows = planes ? std::max<std::int64_t>(block_pixels / largest.cols(), 1) : largest.rows();
  const std::int64_t most_pixels = largest.images() * std::min(largest.rows(), most_rows) * largest.cols();
  shared = round_up(splits * gather.groups * group_floats, tile.line);
  std::int64_t slab = std::max(gather.slab_floats() + tile.lanes, gather.depth());
  if (planes) slab = std::max(slab, gather.channels * planes->plane + planes->pitch + tile.lanes);
  packed_at = round_up(slab, tile.line);
  std::int64_t packed = most_pixels * tile.packed_stride, gradient = most_pixels * filters;
  if (pairs) {
    packed = std::max(packed, round_up(most_pixels, pairs->step) * tile.max_depth / 2);
    gradient = std::max(gradient, round_up(filters, 16) * round_up(most_pixels, 32) / 2);
  }
  gradient_at = packed_at + packed;
  if (planes) {
    planar_length = round_up(largest.rows() * planes->pitch, tile.lanes);
    gradient = std::max(gradient, filters * (planar_length + gather.depth() * tile.lanes));
  }
  chain_at = gradient_at + round_up(gradient, tile.line);
  per_thread = chain_at + (gather.blocks.count() > splits * chain_blocks ? round_up(slice_floats, tile.line) : 0);
}

void WeightGradient::run(const Arguments& arguments) const { HALFTONE_PER_ISA(isa, run)(*this, arguments); }

}  // namespace halftone::cpu
#endif
