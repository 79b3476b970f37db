#include "kernels/cpu/winograd.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <utility>

#include "kernels/cpu/parallel.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/winograd.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/microkernel-inl.hpp"
#include "kernels/cpu/winograd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {
namespace {

constexpr std::int64_t side = Winograd::tile, points = Winograd::points;
constexpr std::int64_t term_block = 16;  ///< of a weight, transformed at a time
constexpr std::int64_t most_terms = 96;  ///< summed in one chain

class WinogradRun {
 public:
  WinogradRun(const Winograd& plan, const Arguments& arguments)
      : plan_(plan),
        direct_(plan.direct),
        arguments_(arguments),
        weight_(direct_.weight, arguments.inputs[1]),
        output_(direct_.output, arguments, 0),
        wanted_(static_cast<std::uint8_t*>(arguments.workspace)),
        floats_(static_cast<float*>(arguments.workspace) + plan.flags) {}

  void run() const {
    std::fill_n(floats_ + plan_.zeros_at, round_up(plan_.terms, lanes), 0.0f);
    read_bias();
    const std::int64_t panels = (plan_.padded_results + tile_width - 1) / tile_width;
    const std::int64_t blocks = (plan_.terms + term_block - 1) / term_block;
    parallel_for(direct_.threads, panels * blocks, [&](std::int64_t task, int thread) {
      transform_weight(task % panels * tile_width, task / panels * term_block, own(thread));
    });
    const GatherAxis &rows = direct_.gather.rows, &cols = direct_.gather.cols;
    const Squares input(direct_.input, arguments_.inputs[0], rows.in, cols.in, plan_.terms, floats_ + plan_.zeros_at);
    std::atomic<bool> all_finite = true;
    parallel_for(direct_.threads, (plan_.tiles + plan_.batch - 1) / plan_.batch, [&](std::int64_t task, int thread) {
      const std::int64_t first = task * plan_.batch, count = std::min(plan_.batch, plan_.tiles - first);
      for (std::int64_t i = 0; i < count; ++i) {
        const Block tile = direct_.gather.blocks[first + i];
        input.transform_at<OfInput>(tile.image0, tile.row0 + rows.offset[0], tile.col0 + cols.offset[0],
                                    own(thread) + plan_.patch_at, own(thread) + i * plan_.input_stride,
                                    plan_.input_plane);
      }
      multiply_points(count, own(thread));
      if (!store_tiles(first, count, own(thread))) all_finite = false;
    });
    if (all_finite) return;
    Arguments rest = arguments_;
    rest.workspace = floats_;
    direct_.run_some(rest, wanted_);
  }

 private:
  /// A thread's part of the workspace.
  float* own(int thread) const { return floats_ + plan_.shared + thread * plan_.per_thread; }

  void read_bias() const {
    if (!direct_.has_bias) return;
    std::fill_n(floats_ + plan_.bias_at, plan_.padded_results, 0.0f);
    Input(direct_.bias, arguments_.inputs[2]).copy(0, plan_.results, floats_ + plan_.bias_at);
  }

  /// The panel of results from `col` on, `term_block` terms from `term` on; filters [3, 3, term_block, width] is
  /// scratch.
  void transform_weight(std::int64_t col, std::int64_t term, float* filters) const {
    const std::int64_t width = std::min(tile_width, plan_.padded_results - col);
    const std::int64_t used = std::min(width, plan_.results - col), terms = std::min(term_block, plan_.terms - term);
    for (std::int64_t t = 0; t < 9; ++t)
      read_filters(direct_.gather.rows.tap[t / 3], direct_.gather.cols.tap[t % 3], col, used, width, term, terms,
                   filters + t * term_block * width);
    float* panel = floats_ + col * plan_.terms + term * width;
    for (std::int64_t i = 0; i < terms * width; i += lanes) {
      transform<OfFilter>(
          [&](int r, int t)
              HALFTONE_INLINE_LAMBDA { return hn::LoadU(Vectors(), filters + (3 * r + t) * term_block * width + i); },
          [&](int r, int t, Vector out) HALFTONE_INLINE_LAMBDA {
            hn::StoreU(out, Vectors(), panel + (r * OfFilter::out + t) * plan_.weight_plane + i);
          });
    }
  }

  /// to [terms, width] = one tap of `used` results, then zeros.
  void read_filters(std::int64_t tap_row, std::int64_t tap_col, std::int64_t col, std::int64_t used, std::int64_t width,
                    std::int64_t term, std::int64_t terms, float* to) const {
    const WeightOrder& order = direct_.order;
    for (std::int64_t i = 0; used < width && i < terms; ++i)
      std::fill(to + i * width + used, to + (i + 1) * width, 0.0f);
    if (!order.result_is_filter) {
      for (std::int64_t i = 0; i < terms; ++i)
        weight_.copy(order.index(0, col, tap_row, tap_col, term + i), used, to + i * width);
      return;
    }
    float buffer[term_block];
    for (std::int64_t j = 0; j < used; ++j) {
      const float* from = weight_(order.index(0, col + j, tap_row, tap_col, term), terms, buffer);
      for (std::int64_t i = 0; i < terms; ++i) to[i * width + j] = from[i];
    }
  }

  /// products [points, count, padded_results] = input x weight.
  void multiply_points(std::int64_t count, float* work) const {
    const std::int64_t slices = (plan_.terms + most_terms - 1) / most_terms;
    for (std::int64_t point = 0; point < points; ++point)
      for (std::int64_t slice = 0; slice < slices; ++slice) {
        const std::int64_t from = plan_.terms * slice / slices, end = plan_.terms * (slice + 1) / slices;
        const Run run{0, end - from};
        const float* input = work + point * plan_.input_plane + from;
        float* products = work + plan_.products_at + point * plan_.product_plane;
        for (std::int64_t col = 0; col < plan_.padded_results; col += tile_width) {
          const std::int64_t width = std::min(tile_width, plan_.padded_results - col);
          const float* panel = floats_ + point * plan_.weight_plane + col * plan_.terms + from * width;
          const Start start = slice > 0 ? Start{products + col, plan_.product_stride} : Start{};
          multiply<false, Absent::none>(count, width, {&run, 1}, input, plan_.input_stride, panel, width, start,
                                        products + col, plan_.product_stride);
        }
      }
  }

  /// Finishes and stores tiles; says whether all are finite, and notes which are not.
  bool store_tiles(std::int64_t first, std::int64_t count, float* work) const {
    const std::int64_t tiles_in_row = direct_.gather.blocks.col_parts;
    bool finite = true;
    for (std::int64_t i = 0, run = 0; i < count; i += run) {
      run = std::min(count - i, tiles_in_row - (first + i) % tiles_in_row);
      if (!store_row_of_tiles(first + i, run, i, work)) finite = false;
    }
    return finite;
  }

  /// The same of tiles side by side.
  bool store_row_of_tiles(std::int64_t first, std::int64_t count, std::int64_t place, float* work) const {
    const Block begin = direct_.gather.blocks[first], end = direct_.gather.blocks[first + count - 1];
    const std::int64_t width = direct_.scatter.width, pitch = plan_.padded_results;
    const bool whole = pitch == plan_.results && end.cols() == side;  // no number between those of two pixels
    float* row[side];
    std::int64_t at[side];
    for (std::int64_t i = 0; i < side; ++i) {
      row[i] = work + plan_.rows_at + i * plan_.batch * side * pitch;
      at[i] = ((begin.image0 * direct_.scatter.height + begin.row0 + i) * width + begin.col0) * plan_.results;
      if (whole && i < begin.rows()) row[i] = output_.place(at[i], row[i]);
    }
    std::int64_t good = 0;  // tiles before this one that wait to be stored
    bool finite = true;
    for (std::int64_t t = 0; t <= count; ++t) {
      const bool is_good =
          t < count && transform_products(work + plan_.products_at + (place + t) * plan_.product_stride, row, t);
      if (t < count) wanted_[first + t] = is_good ? 0 : 1, finite = finite && is_good;
      if (is_good) {
        ++good;
        continue;
      }
      const std::int64_t col = (t - good) * side, cols = std::min(t * side, end.col1 - begin.col0) - col;
      for (std::int64_t i = 0; good > 0 && i < begin.rows(); ++i)
        store(at[i] + col * plan_.results, cols, row[i] + col * pitch);
      good = 0;
    }
    return finite;
  }

  /// row[i] [tile, side, padded_results] = results of a tile with their bias; says whether all are finite.
  bool transform_products(const float* products, float* const* row, std::int64_t tile) const {
    const float* bias = direct_.has_bias ? floats_ + plan_.bias_at : nullptr;
    const std::int64_t pitch = plan_.padded_results;
    Vector all = hn::Zero(Vectors());  // NaN where a sum of results is not finite
    for (std::int64_t k = 0; k < pitch; k += lanes) {
      const Vector offset = bias ? hn::LoadU(Vectors(), bias + k) : hn::Zero(Vectors());
      Vector sum = hn::Zero(Vectors());
      transform<OfProducts>(
          [&](int i, int j) HALFTONE_INLINE_LAMBDA {
            return hn::LoadU(Vectors(), products + (i * OfProducts::in + j) * plan_.product_plane + k);
          },
          [&](int i, int j, Vector out) HALFTONE_INLINE_LAMBDA {
            sum = hn::Add(sum, out);
            hn::StoreU(hn::Add(out, offset), Vectors(), row[i] + (tile * side + j) * pitch + k);
          });
      all = hn::Add(all, hn::Sub(sum, sum));
    }
    return hn::AllTrue(Vectors(), hn::Eq(all, hn::Zero(Vectors())));
  }

  /// Activates and stores pixels side by side: values [cols, padded_results].
  void store(std::int64_t first, std::int64_t cols, float* values) const {
    const std::int64_t pitch = plan_.padded_results, results = plan_.results;
    if (pitch != results) close_gaps(cols, pitch, results, values);
    if (direct_.activation) direct_.activate(*direct_.activation, values, values, cols * results);
    output_(first, cols * results, values);
  }

  const Winograd& plan_;
  const GatherGemm& direct_;
  const Arguments& arguments_;
  Input weight_;
  Output output_;
  std::uint8_t* wanted_;  ///< for each tile whether it must be computed directly
  float* floats_;         ///< the workspace behind them
};

void run(const Winograd& plan, const Arguments& arguments) { WinogradRun(plan, arguments).run(); }

}  // namespace
}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {

std::int64_t Winograd::plane(std::int64_t floats) {
  std::int64_t lines = (floats + TileShape::line - 1) / TileShape::line;
  lines += lines % 2 == 0;
  if (lines % 64 < 3 || lines % 64 > 61) lines += 4;
  return lines * TileShape::line;
}

namespace {

/// Tiles of a task: what they are transformed to stays in the second-level cache, but the more weights must be streamed
/// through, the more tiles share a reading; no thread has a task less than others.
std::int64_t tiles_of_task(std::int64_t terms, std::int64_t results, std::int64_t tiles, int threads) {
  constexpr std::int64_t cached = 80000, streamed = 4 << 20, step = 8;  // floats; rows of a microkernel's tile
  const std::int64_t weight = Winograd::points * terms * results;
  const std::int64_t fitting = cached / (Winograd::points * (terms + results));
  const std::int64_t wanted = std::max<std::int64_t>(fitting, weight > streamed     ? 128
                                                              : weight > 2 * cached ? 48
                                                                                    : step);
  const std::int64_t tasks = round_up((tiles + wanted - 1) / wanted, threads);
  return round_up((tiles + tasks - 1) / tasks, step);
}

}  // namespace

Winograd::Winograd(GatherGemm how) : direct(std::move(how)) {
  const std::int64_t line = TileShape::line;
  tiles = direct.gather.blocks.count();
  terms = direct.gather.channels;
  results = direct.results;
  padded_results = direct.padded_results;
  batch = tiles_of_task(terms, results, tiles, direct.threads);
  flags = round_up(tiles, static_cast<std::int64_t>(line * sizeof(float))) / static_cast<std::int64_t>(sizeof(float));
  weight_plane = plane(terms * padded_results);
  bias_at = points * weight_plane;
  zeros_at = bias_at + round_up(padded_results, line);
  shared = zeros_at + round_up(terms, line) + line;
  input_stride = round_up(terms, line) + line;
  input_plane = plane(batch * input_stride);
  product_stride = round_up(padded_results, line) + line;
  product_plane = plane(batch * product_stride);
  products_at = points * input_plane;
  rows_at = products_at + points * product_plane;
  patch_at = rows_at + tile * batch * tile * padded_results;
  per_thread = patch_at + round_up(points * terms, line);
}

std::size_t Winograd::workspace() const {
  const auto own = static_cast<std::size_t>(shared + direct.threads * per_thread) * sizeof(float);
  return static_cast<std::size_t>(flags) * sizeof(float) + std::max(own, direct.workspace());
}

void Winograd::run(const Arguments& arguments) const { HALFTONE_PER_ISA(direct.isa, run)(*this, arguments); }

}  // namespace halftone::cpu
#endif
