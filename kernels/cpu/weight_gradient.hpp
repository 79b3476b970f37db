#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "halftone/numeric/formats.hpp"
#include "kernels/cpu/convert.hpp"
#include "kernels/cpu/gather.hpp"
#include "kernels/cpu/isa.hpp"

namespace halftone::cpu {

/// d_weight [filters, taps, channels] = d_output^T x gathered input, made ready to run. A task sums one slice of the
/// gathered numbers over one of `splits` parts of the pixels; then the partial sums are added in order. How many there
/// are follows from the problem alone.
struct WeightGradient {
  struct Formats {
    DType input, d_output, d_weight;
  };
  WeightGradient(Gather what, std::int64_t filters, const Formats& formats, Isa isa, int threads);
  std::size_t workspace() const { return static_cast<std::size_t>(shared + threads * per_thread) * sizeof(float); }
  void run(const void* input, const void* d_output, void* d_weight, void* workspace) const;

  Gather gather;
  std::int64_t filters;  ///< of a group
  Codec input, d_output, d_weight;
  Isa isa;
  int threads;
  std::int64_t splits;

  /// Partial sums of a slice: [filters, stride] at `at` within a group's.
  struct Partial {
    std::int64_t at, stride;
  };
  std::vector<Partial> partials;
  std::int64_t group_floats;  ///< of one split

  // Workspace, in floats: [splits, groups] partial sums, then for each thread a slab, packed rows and d_output.
  std::int64_t shared, packed_at, gradient_at, per_thread;
};

}  // namespace halftone::cpu
