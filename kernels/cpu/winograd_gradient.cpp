#include "kernels/cpu/winograd_gradient.hpp"

#include <algorithm>
#include <atomic>
#include <utility>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/winograd.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/winograd_gradient.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/microkernel-inl.hpp"
#include "kernels/cpu/winograd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {
namespace {

constexpr std::int64_t points = Winograd::points, taps = 9;

class WinogradGradientRun {
 public:
  WinogradGradientRun(const WinogradGradient& plan, const Arguments& arguments)
      : plan_(plan),
        gather_(plan.direct.gather),
        filters_(plan.direct.filters),
        threads_(plan.direct.threads),
        arguments_(arguments),
        d_weight_(plan.direct.d_weight, arguments, 0),
        floats_(static_cast<float*>(arguments.workspace)) {}

  void run() const {
    const std::int64_t most = std::max(plan_.channels, filters_);
    std::fill_n(floats_, round_up(most, lanes), 0.0f);
    const Squares input(plan_.direct.input, arguments_.inputs[0], gather_.rows.in, gather_.cols.in, plan_.channels,
                        floats_);
    const Squares d_output(plan_.direct.d_output, arguments_.inputs[1], gather_.rows.out, gather_.cols.out, filters_,
                           floats_);
    const auto transform_tile = [&](std::int64_t tile, std::int64_t place, float* batch, int thread) {
      const Block at = plan_.tiles[tile];
      float* patch = floats_ + plan_.patches_at + thread * plan_.per_patch;
      input.transform_at<OfInput>(at.image0, at.row0 + gather_.rows.offset[0], at.col0 + gather_.cols.offset[0], patch,
                                  batch + place * plan_.input_stride, plan_.input_plane);
      d_output.transform_at<OfGradient>(at.image0, at.row0, at.col0, patch,
                                        batch + plan_.gradient_at + place * plan_.gradient_stride,
                                        plan_.gradient_plane);
    };
    const std::int64_t tiles = plan_.tiles.count();
    if (plan_.splits == 1) {
      float* batch = floats_ + plan_.batches_at;
      sum_tiles(
          0, tiles, sums(0), batch,
          [&](std::int64_t first, std::int64_t count) {
            parallel_for(threads_, count,
                         [&](std::int64_t i, int thread) { transform_tile(first + i, i, batch, thread); });
          },
          [&](const auto& multiply_point) { parallel_for(threads_, points, multiply_point); });
    } else {
      parallel_for(threads_, plan_.splits, [&](std::int64_t split, int thread) {
        float* batch = floats_ + plan_.batches_at + thread * plan_.per_batch;
        sum_tiles(
            tiles * split / plan_.splits, tiles * (split + 1) / plan_.splits, sums(split), batch,
            [&](std::int64_t first, std::int64_t count) {
              for (std::int64_t i = 0; i < count; ++i) transform_tile(first + i, i, batch, thread);
            },
            [&](const auto& multiply_point) {
              for (std::int64_t point = 0; point < points; ++point) multiply_point(point);
            });
      });
    }
    finish();
  }

 private:
  float* sums(std::int64_t split) const { return floats_ + plan_.sums_at + split * points * plan_.sum_plane; }

  /// sums [points, filters, padded_channels] of the tiles [first, end), a batch at a time and `chain_batches` of these
  /// at a time. `transform_tiles(first, count)` and `for_points(f)` say how the work of a batch is done.
  template <class TransformTiles, class ForPoints>
  void sum_tiles(std::int64_t first, std::int64_t end, float* sums, float* batch, const TransformTiles& transform_tiles,
                 const ForPoints& for_points) const {
    constexpr std::int64_t chain_batches = WinogradGradient::chain_batches;
    float* chain = plan_.chained ? batch + plan_.chain_at : sums;
    for (std::int64_t number = 0; first < end; ++number) {
      const std::int64_t count = std::min(plan_.batch, end - first);
      transform_tiles(first, count);
      first += count;
      const bool begins = number % chain_batches == 0, ends = first == end || (number + 1) % chain_batches == 0;
      for_points([&](std::int64_t point) {
        float* to = chain + point * plan_.sum_plane;
        multiply_point(point, count, batch, to, !begins);
        if (plan_.chained && ends)
          add(to, filters_ * plan_.padded_channels, sums + point * plan_.sum_plane, number >= chain_batches);
      });
    }
  }

  /// to [filters, padded_channels] (+)= d_output' x input at one point.
  void multiply_point(std::int64_t point, std::int64_t count, const float* batch, float* to, bool accumulate) const {
    const float* input = batch + point * plan_.input_plane;
    const float* gradient = batch + plan_.gradient_at + point * plan_.gradient_plane;
    const Run run{0, count};
    for (std::int64_t col = 0; col < plan_.padded_channels; col += tile_width)
      multiply<true, Absent::none>(filters_, std::min(tile_width, plan_.padded_channels - col), {&run, 1}, gradient,
                                   plan_.gradient_stride, input + col, plan_.input_stride,
                                   accumulate ? Start{to + col, plan_.padded_channels} : Start{}, to + col,
                                   plan_.padded_channels);
  }

  static void add(const float* HWY_RESTRICT from, std::int64_t count, float* HWY_RESTRICT to, bool accumulate) {
    for (std::int64_t i = 0; i < count; ++i) to[i] = accumulate ? to[i] + from[i] : from[i];
  }

  /// Adds the splits' sums, transforms and stores them.
  void finish() const {
    std::atomic<bool> finite = true;
    parallel_for(threads_, filters_, [&](std::int64_t filter) {
      if (!transform_sums(filter)) finite = false;
    });
    if (!finite) return plan_.direct.run(arguments_);
    parallel_for(threads_, filters_, [&](std::int64_t filter) {
      const float* row = floats_ + plan_.rows_at + filter * taps * plan_.padded_channels;
      const bool whole = plan_.padded_channels == plan_.channels;
      const std::int64_t runs = whole ? 1 : taps, length = taps * plan_.channels / runs;
      for (std::int64_t i = 0; i < runs; ++i)
        d_weight_(filter * taps * plan_.channels + i * length, length, row + i * plan_.padded_channels);
    });
  }

  /// A row [taps, padded_channels] of d_weight; says whether it is finite.
  bool transform_sums(std::int64_t filter) const {
    float* row = floats_ + plan_.rows_at + filter * taps * plan_.padded_channels;
    Vector all = hn::Zero(Vectors());  // NaN where a sum of results is not finite
    for (std::int64_t c = 0; c < plan_.padded_channels; c += lanes) {
      const std::int64_t at = filter * plan_.padded_channels + c;
      Vector sum = hn::Zero(Vectors());
      transform<OfSums>(
          [&](int i, int j) HALFTONE_INLINE_LAMBDA {
            const std::int64_t place = (i * OfSums::in + j) * plan_.sum_plane + at;
            Vector of_splits = hn::LoadU(Vectors(), sums(0) + place);
            for (std::int64_t split = 1; split < plan_.splits; ++split)
              of_splits = hn::Add(of_splits, hn::LoadU(Vectors(), sums(split) + place));
            return of_splits;
          },
          [&](int i, int j, Vector out) HALFTONE_INLINE_LAMBDA {
            sum = hn::Add(sum, out);
            hn::StoreU(out, Vectors(), row + (i * OfSums::out + j) * plan_.padded_channels + c);
          });
      all = hn::Add(all, hn::Sub(sum, sum));
    }
    return hn::AllTrue(Vectors(), hn::Eq(all, hn::Zero(Vectors())));
  }

  const WinogradGradient& plan_;
  const Gather& gather_;
  std::int64_t filters_;
  int threads_;
  const Arguments& arguments_;
  Output d_weight_;
  float* floats_;
};

void run(const WinogradGradient& plan, const Arguments& arguments) { WinogradGradientRun(plan, arguments).run(); }

}  // namespace
}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {

WinogradGradient::WinogradGradient(WeightGradient how)
    : direct(std::move(how)),
      tiles(cut_squares(direct.gather.images, direct.gather.rows.out, direct.gather.cols.out, Winograd::tile)),
      channels(direct.gather.channels) {
  // As many splits as have work enough to make up for adding them and as their sums leave room for; the tiles of a
  // batch leave what is summed in the second-level cache or, where that is too much, are many.
  constexpr std::int64_t points = Winograd::points, line = TileShape::line;
  constexpr std::int64_t cached = 80000, most_sums = 5 << 20, split_tiles = 256, most_splits = 16;
  const TileShape tile = HALFTONE_PER_ISA(direct.isa, tile_shape);
  padded_channels = round_up(channels, tile.lanes);
  sum_plane = Winograd::plane(direct.filters * padded_channels);
  const std::int64_t count = tiles.count(), of_split = points * sum_plane;
  splits = std::clamp<std::int64_t>(std::min({count / split_tiles, most_splits, most_sums / of_split}), 1, count);
  if (splits < 8 && of_split > most_sums / 8) splits = 1;
  batch =
      of_split > 2 * cached ? 128 : std::clamp<std::int64_t>(cached / (points * (channels + direct.filters)), 16, 128);
  batch = std::min(batch, (count + splits - 1) / splits);
  chained = count > splits * batch * chain_batches;
  input_stride = round_up(channels, line) + line;
  input_plane = Winograd::plane(batch * input_stride);
  gradient_stride = round_up(direct.filters, line) + line;
  gradient_plane = Winograd::plane(batch * gradient_stride);
  sums_at = round_up(std::max(channels, direct.filters), line) + line;
  rows_at = sums_at + splits * of_split;
  batches_at = rows_at + round_up(direct.filters * 9 * padded_channels, line);
  gradient_at = points * input_plane;
  chain_at = gradient_at + points * gradient_plane;
  per_batch = chain_at + (chained ? of_split : 0);
  patches_at = batches_at + (splits == 1 ? 1 : direct.threads) * per_batch;
  per_patch = points * round_up(std::max(channels, direct.filters), line);
}

std::size_t WinogradGradient::workspace() const {
  const auto own = static_cast<std::size_t>(patches_at + direct.threads * per_patch) * sizeof(float);
  return std::max(own, direct.workspace());
}

void WinogradGradient::run(const Arguments& arguments) const { HALFTONE_PER_ISA(direct.isa, run)(*this, arguments); }

}  // namespace halftone::cpu
#endif
