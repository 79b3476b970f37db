#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/weight_gradient.hpp"

namespace halftone::cpu {

/// The weight gradient of what `Winograd` computes, by the same tiles: G' [sum over tiles of (A d_output A') (B' input
/// B)] G, made ready to run on [input, d_output]. Where it does not come out finite it is computed directly.
struct WinogradGradient {
  explicit WinogradGradient(WeightGradient direct);
  std::size_t workspace() const;
  void run(const Arguments& arguments) const;

  WeightGradient direct;
  Blocks tiles;
  std::int64_t channels, padded_channels;
  std::int64_t batch;   ///< tiles that are transformed before they are multiplied
  std::int64_t splits;  ///< parts of the tiles that have sums of their own; 1: all threads work on one batch
  static constexpr std::int64_t chain_batches = 32;  ///< summed before they are added to the other sums

  // Workspace, in floats: what `direct` takes or zeros, sums [points, filters, padded_channels] of each split, a row
  // [taps, padded_channels] of d_weight for each filter, then for each thread, or once, transformed input [points,
  // batch, input_stride] and d_output [points, batch, gradient_stride] and a chain of sums; for each thread a patch.
  bool chained;
  std::int64_t sum_plane, sums_at, rows_at, batches_at;
  std::int64_t input_stride, input_plane, gradient_at, gradient_stride, gradient_plane, chain_at, per_batch;
  std::int64_t patches_at, per_patch;
};

}  // namespace halftone::cpu
