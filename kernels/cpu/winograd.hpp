#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/cpu/gather_gemm.hpp"

namespace halftone::cpu {

/// A 3 x 3 convolution with stride 1 by minimal filtering F(4 x 4, 3 x 3) (Lavin & Gray 2016) at the points 0, +-5/8,
/// +-3/2 and infinity, made ready to run on [input, weight, optional bias]: 36 products for 16 pixels where the
/// definition has 144. A tile of 4 x 4 results that are not all finite is computed directly.
struct Winograd {
  /// `direct` with blocks of `cut_squares(.., tile)`.
  explicit Winograd(GatherGemm direct);
  std::size_t workspace() const;
  void run(const Arguments& arguments) const;

  static constexpr std::int64_t tile = 4, patch = 6, points = patch * patch;
  /// Floats from one plane to the next: an odd number of cache lines, not near a multiple of the 4 KB at which
  /// addresses collide.
  static std::int64_t plane(std::int64_t floats);

  GatherGemm direct;
  std::int64_t tiles, terms, results, padded_results;
  std::int64_t batch;  ///< tiles that a task computes

  // Workspace, in floats: a byte for each tile to compute directly, then either what `direct` takes or transformed
  // weights [points, terms, padded_results] in panels, bias and zeros, then for each thread transformed input
  // [points, batch, input_stride], products [points, batch, product_stride], rows of results [tile, batch * tile,
  // padded_results] and a patch of the input.
  std::int64_t flags, weight_plane, bias_at, zeros_at, shared;
  std::int64_t input_stride, input_plane, product_stride, product_plane, products_at, rows_at, patch_at, per_thread;
};

}  // namespace halftone::cpu
