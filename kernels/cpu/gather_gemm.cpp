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
constexpr auto interleaves = interleaves_of(std::make_integer_sequence<int, planar_height>());

inline void copy_strided(const float* HWY_RESTRICT from, std::int64_t stride, std::int64_t count,
                         float* HWY_RESTRICT to) {
  if (stride == 1) {
    std::copy_n(from, count, to);
  } else {
    for (std::int64_t i = 0; i < count; ++i) to[i] = from[i * stride];
  }
}

template <class F>
void activate(const Activation& activation, float* values, std::int64_t count) {
  const F f = *std::get_if<F>(&activation);
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) values[i] = f.value(values[i]);
}

decltype(GatherGemm::activate) activate_loop(const Activation& activation) {
  return std::visit([](auto f) -> decltype(GatherGemm::activate) { return activate<decltype(f)>; }, activation);
}

/// One run of a `GatherGemm`: its memory and the steps of its tasks.
class GatherGemmRun {
 public:
  GatherGemmRun(const GatherGemm& gemm, const Arguments& arguments)
      : gemm_(gemm),
        gather_(gemm.gather),
        input_(gemm.input, arguments.inputs[0]),
        weight_(gemm.weight, arguments.inputs[1]),
        output_(gemm.output, arguments, 0),
        panels_(static_cast<float*>(arguments.workspace)),
        workspace_(panels_) {
    if (gemm.has_bias) read_bias({gemm.bias, arguments.inputs[2]});
  }

  void run() {
    const bool finite = pack_weight();
    if (gemm_.planar.used && finite) {
      parallel_for(gemm_.threads, gemm_.planar.blocks.count(),
                   [this](std::int64_t task, int thread) { planar_block(gemm_.planar.blocks[task], thread); });
    } else {
      const bool skip_padding = !finite && gather_.leaves_input();
      parallel_for(gemm_.threads, gather_.blocks.count(),
                   [=, this](std::int64_t task, int thread) { block(gather_.blocks[task], thread, skip_padding); });
    }
  }

 private:
  float* slab(int thread) const { return workspace_ + gemm_.shared + thread * gemm_.per_thread; }
  float* packed(int thread) const { return slab(thread) + gemm_.packed_at; }
  float* result(int thread) const { return slab(thread) + gemm_.result_at; }

  /// Each group's part is padded like its results.
  void read_bias(const Input& bias) const {
    std::fill_n(this->bias(0), gather_.groups * gemm_.padded_results, 0.0f);
    for (std::int64_t group = 0; group < gather_.groups; ++group)
      bias.copy(group * gemm_.results, gemm_.results, this->bias(group));
  }
  float* bias(std::int64_t group) const { return workspace_ + gemm_.bias_at + group * gemm_.padded_results; }

  /// The weight of a group and slice: panels [depth, width], one after the other.
  float* panels(std::int64_t group, const DepthSlice& slice) const {
    return panels_ + (group * gather_.depth() + slice.base) * gemm_.padded_results;
  }
  std::int64_t panel_width(std::int64_t col) const { return std::min(tile_width, gemm_.padded_results - col); }

  /// Says whether the whole weight is finite.
  bool pack_weight() {
    const std::int64_t slices = std::ssize(gather_.slices),
                       count = (gemm_.padded_results + tile_width - 1) / tile_width;
    std::atomic<bool> finite = true;
    parallel_for(gemm_.threads, gather_.groups * slices * count, [&](std::int64_t task, int thread) {
      const std::int64_t group = task / count / slices, col = task % count * tile_width;
      const DepthSlice& slice = gather_.slices[task / count % slices];
      float* panel = panels(group, slice) + slice.depth * col;
      const std::int64_t width = panel_width(col), used = std::min(width, gemm_.results - col);
      if (gemm_.order.result_is_filter) {
        pack_filters(group, slice, col, used, width, packed(thread), panel);
      } else {
        pack_channels(group, slice, col, used, width, panel);
      }
      if (!all_finite(panel, slice.depth * width)) finite = false;
    });
    return finite;
  }

  /// Calls f(tap row and column of the weight) in the order of the slice.
  template <class F>
  void for_each_tap(const DepthSlice& slice, F&& f) const {
    for (std::int64_t t = slice.tap_row0; t < slice.tap_row1; ++t)
      for (std::int64_t u = slice.tap_col0; u < slice.tap_col1; ++u) f(gather_.rows.tap[t], gather_.cols.tap[u]);
  }

  void pack_filters(std::int64_t group, const DepthSlice& slice, std::int64_t col, std::int64_t used,
                    std::int64_t width, float* filters, float* panel) const {
    for (std::int64_t j = 0; j < used; ++j) {
      float* to = filters + j * packed_stride;
      for_each_tap(slice, [&](std::int64_t tap_row, std::int64_t tap_col) {
        weight_.copy(gemm_.order.index(group, col + j, tap_row, tap_col, slice.channel), slice.channels, to);
        to += slice.channels;
      });
    }
    for (std::int64_t d = 0; d < slice.depth; ++d) {
      for (std::int64_t j = 0; j < used; ++j) panel[d * width + j] = filters[j * packed_stride + d];
      for (std::int64_t j = used; j < width; ++j) panel[d * width + j] = 0;
    }
  }

  void pack_channels(std::int64_t group, const DepthSlice& slice, std::int64_t col, std::int64_t used,
                     std::int64_t width, float* panel) const {
    for_each_tap(slice, [&](std::int64_t tap_row, std::int64_t tap_col) {
      for (std::int64_t i = 0; i < slice.channels; ++i, panel += width) {
        weight_.copy(gemm_.order.index(group, col, tap_row, tap_col, slice.channel + i), used, panel);
        std::fill(panel + used, panel + width, 0.0f);
      }
    });
  }

  void block(const Block& block, int thread, bool skip_padding) const {
    const std::int64_t pixels = block.pixels(), stride = gemm_.padded_results;
    for (std::int64_t group = 0; group < gather_.groups; ++group) {
      float* sums = result(thread);
      if (gather_.slices.empty() || skip_padding) std::fill_n(sums, pixels * stride, 0.0f);
      for (const DepthSlice& slice : gather_.slices) {
        fill_slab(gather_, slice, group, block, input_, slab(thread));
        pack_rows(gather_, slice, block, slab(thread), packed(thread));
        if (skip_padding) {
          multiply_inside(group, slice, block, packed(thread), sums);
          continue;
        }
        for (std::int64_t col = 0; col < stride; col += tile_width) {
          const std::int64_t width = panel_width(col);
          multiply<packed_stride>(pixels, width, slice.depth, packed(thread), 1,
                                  panels(group, slice) + slice.depth * col, width, sums + col, stride, slice.base != 0);
        }
      }
      for (std::int64_t image = block.image0; image < block.image1; ++image)
        for (std::int64_t i = block.row0; i < block.row1; ++i, sums += block.cols() * stride) {
          if (gemm_.has_bias) add_bias(bias(group), block.cols(), stride, sums);
          store_row(block, image, i, group, sums, stride);
        }
    }
  }

  static void add_bias(const float* HWY_RESTRICT bias, std::int64_t rows, std::int64_t cols, float* HWY_RESTRICT to) {
    for (std::int64_t i = 0; i < rows; ++i, to += cols)
      for (std::int64_t j = 0; j < cols; ++j) to[j] += bias[j];
  }

  /// Leaves the taps in the padding out, one product of a pixel and a tap at a time: zero times infinity is not zero.
  void multiply_inside(std::int64_t group, const DepthSlice& slice, const Block& block, const float* rows,
                       float* sums) const {
    const std::int64_t stride = gemm_.padded_results;
    for_each_pixel(block, [&](std::int64_t pixel, std::int64_t i, std::int64_t j) {
      for_each_tap_inside(gather_, slice, i, j, [&](std::int64_t first) {
        for (std::int64_t col = 0; col < stride; col += tile_width) {
          const std::int64_t width = panel_width(col);
          multiply<packed_stride>(1, width, slice.channels, rows + pixel * packed_stride + first, 1,
                                  panels(group, slice) + slice.depth * col + first * width, width,
                                  sums + pixel * stride + col, stride, true);
        }
      });
    });
  }

  /// The taps [first, end) without those that no output position of [i0, i1] finds within the input.
  static std::pair<std::int64_t, std::int64_t> taps_inside(const GatherAxis& axis, std::int64_t i0, std::int64_t i1) {
    std::int64_t first = 0, end = axis.taps();
    while (first < end && i1 * axis.step + axis.offset[static_cast<std::size_t>(first)] < 0) ++first;
    while (first < end && i0 * axis.step + axis.offset[static_cast<std::size_t>(end - 1)] >= axis.in) --end;
    return {first, end};
  }

  void planar_block(const Block& block, int thread) const {
    const GatherGemm::Planar& planar = gemm_.planar;
    fill_planes(block, packed(thread), slab(thread));
    const std::int64_t results = gemm_.results, width = planar_width(static_cast<int>(results));
    const auto tile = planar_tiles[static_cast<std::size_t>(results - 1)];
    float* sums = result(thread);
    const std::int64_t pixels = (block.rows() - 1) * planar.pitch + block.cols();
    const std::int64_t tap_row_depth = gather_.cols.taps() * gather_.channels;
    for (std::int64_t pixel = 0; pixel < pixels; pixel += width) {
      const std::int64_t row0 = block.row0 + pixel / planar.pitch,
                         row1 = block.row0 + (pixel + width - 1) / planar.pitch;
      const auto [tap0, tap1] = taps_inside(gather_.rows, row0, std::min(row1, block.row1 - 1));
      const std::int64_t first = tap0 * tap_row_depth;
      tile((tap1 - tap0) * tap_row_depth, panels_ + first * gemm_.padded_results, gemm_.padded_results,
           slab(thread) + pixel, planar.offsets.data() + first, sums + pixel, planar.length);
    }
    float* row = packed(thread);
    const auto interleave = interleaves[static_cast<std::size_t>(results - 1)];
    for (std::int64_t i = 0; i < block.rows(); ++i, sums += planar.pitch) {
      interleave(sums, planar.length, gemm_.has_bias ? bias(0) : nullptr, block.cols(), row);
      store_row(block, block.image0, block.row0 + i, 0, row, results);
    }
  }

  /// slab [channels, rows, pitch] = the input of a block of one image with its halo.
  void fill_planes(const Block& block, float* row, float* slab) const {
    const GatherAxis &rows = gather_.rows, &cols = gather_.cols;
    const GatherGemm::Planar& planar = gemm_.planar;
    const std::int64_t y0 = block.row0 + rows.offset.front(), y1 = block.row1 + rows.offset.back();
    const std::int64_t x0 = block.col0 + cols.offset.front(), x1 = block.col1 + cols.offset.back();
    const std::int64_t in0 = std::clamp<std::int64_t>(x0, 0, cols.in), in1 = std::clamp<std::int64_t>(x1, in0, cols.in);
    const std::int64_t channels = gather_.channels;
    for (std::int64_t y = y0; y < y1; ++y, slab += planar.pitch) {
      const bool inside = y >= 0 && y < rows.in && in0 < in1;
      if (inside) input_.copy(((block.image0 * rows.in + y) * cols.in + in0) * channels, (in1 - in0) * channels, row);
      for (std::int64_t c = 0; c < channels; ++c) {
        float* to = slab + c * planar.plane - x0;
        std::fill(to + x0, to + (inside ? in0 : x1), 0.0f);
        if (!inside) continue;
        copy_strided(row + c, channels, in1 - in0, to + in0);
        std::fill(to + in1, to + x1, 0.0f);
      }
    }
  }

  /// Finishes and stores a row of a block: values [cols, stride].
  void store_row(const Block& block, std::int64_t image, std::int64_t i, std::int64_t group, float* values,
                 std::int64_t stride) const {
    const std::int64_t results = gemm_.results, cols = block.cols(), channels = gather_.groups * results;
    const Scatter& to = gemm_.scatter;
    if (gemm_.activation) gemm_.activate(*gemm_.activation, values, cols * stride);
    const std::int64_t pixel =
        (image * to.height + to.row0 + i * to.row_step) * to.width + to.col0 + block.col0 * to.col_step;
    const std::int64_t first = pixel * channels + group * results;
    if (stride == results && gather_.groups == 1 && to.col_step == 1) return output_(first, cols * results, values);
    for (std::int64_t j = 0; j < cols; ++j) output_(first + j * to.col_step * channels, results, values + j * stride);
  }

  const GatherGemm& gemm_;
  const Gather& gather_;
  Input input_, weight_;
  Output output_;
  float *panels_, *workspace_;
};

void run(const GatherGemm& gemm, const Arguments& arguments) { GatherGemmRun(gemm, arguments).run(); }

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {
namespace {

constexpr std::int64_t block_pixels = 96, max_planar_pixels = 1024, max_planar_floats = 8192;

std::int64_t round_up(std::int64_t x, std::int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

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
      activate(function ? HALFTONE_PER_ISA(chosen, activate_loop(*function)) : nullptr),
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
  result_at = packed_at + round_up(packed, tile.line);
  per_thread = result_at + round_up(sums, tile.line);
}

void GatherGemm::run(const Arguments& arguments) const { HALFTONE_PER_ISA(isa, run)(*this, arguments); }

}  // namespace halftone::cpu
#endif
