#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/cpu/gather.hpp"
#include "kernels/cpu/pair_products.hpp"
#include "kernels/cpu/storage.hpp"

namespace halftone::cpu {

/// d_weight [filters, taps, channels] = d_output^T x gathered input, made ready to run on [input, d_output]. A task
/// sums one slice of the gathered numbers over one of `splits` parts of the pixels, a block at a time and
/// `chain_blocks` of these sums at a time, so that no chain of sums is long; then the partial sums are added in order.
/// How many there are follows from the problem alone.
struct WeightGradient {
  /// With a `unit`, for bf16 operands without groups, it multiplies, but for chains that do not come out finite.
  WeightGradient(Gather what, std::int64_t filters, const Operands& operands, Isa isa, int threads,
                 std::optional<PairUnit> unit = std::nullopt);
  std::size_t workspace() const { return static_cast<std::size_t>(shared + threads * per_thread) * sizeof(float); }
  void run(const Arguments& arguments) const;

  Gather gather;
  std::int64_t filters;  ///< of a group
  Access input, d_output, d_weight;
  Isa isa;
  int threads;
  std::optional<PairProducts> pairs;
  std::optional<Planes> planes;  ///< with few filters and few terms the pixels lie in the vector lanes
  std::int64_t splits;
  static constexpr std::int64_t chain_blocks = 32, most_lines = 256;  ///< of pixels in a block

  /// Partial sums of a slice, at `at` within a group's: [filters, stride], where its runs begin at whole vectors or are
  /// packed; transposed, [depth of the slice, stride].
  struct Partial {
    std::int64_t at = 0, stride = 0, rows = 0;
    bool packs = false, transposed = false;
  };
  std::vector<Partial> partials;
  std::int64_t group_floats;       ///< of one split
  std::int64_t most_rows;          ///< of a block without planes
  std::int64_t planar_length = 0;  ///< floats of a filter's plane of d_output

  // Workspace, in floats: [splits, groups] partial sums, then for each thread a slab, packed rows, d_output (in pairs:
  // a panel of each; with planes: those of d_output and sums of whole vectors) and a chain.
  std::int64_t shared, packed_at, gradient_at, chain_at, per_thread;
};

}  // namespace halftone::cpu
