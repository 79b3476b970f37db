#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "halftone/numeric/pointwise.hpp"
#include "kernels/cpu/activation.hpp"
#include "kernels/cpu/gather.hpp"
#include "kernels/cpu/pair_products.hpp"
#include "kernels/cpu/storage.hpp"

namespace halftone::cpu {

/// Where the result of a gather goes: pixel (i, j) to (row0 + i * row_step, col0 + j * col_step) of an image.
struct Scatter {
  std::int64_t height, width, row0 = 0, col0 = 0, row_step = 1, col_step = 1;
};

/// A weight in memory: [groups, filters, taps_h, taps_w, channels]. The forward pass has a result for each filter and
/// sums over channels; the data gradient the other way round.
struct WeightOrder {
  std::int64_t filters, taps_h, taps_w, channels;
  bool result_is_filter;

  std::int64_t results() const { return result_is_filter ? filters : channels; }
  std::int64_t index(std::int64_t group, std::int64_t result, std::int64_t tap_row, std::int64_t tap_col,
                     std::int64_t term) const {
    const std::int64_t filter = result_is_filter ? result : term, channel = result_is_filter ? term : result;
    return (((group * filters + filter) * taps_h + tap_row) * taps_w + tap_col) * channels + channel;
  }
};

/// output = activation(gathered input x weight + bias), made ready to run on [input, weight, optional bias]. The work
/// is cut into blocks of pixels; each is computed by one thread, slice after slice of the reduction.
struct GatherGemm {
  /// `cut`, if given, is how the pixels are cut into blocks. With a `unit`, for bf16 operands without groups, it
  /// multiplies, but for blocks that do not come out finite.
  GatherGemm(Gather what, Scatter where, WeightOrder order, const Operands& operands,
             std::optional<Activation> activation, Isa isa, int threads, const Blocks* cut = nullptr,
             std::optional<PairUnit> unit = std::nullopt);
  std::size_t workspace() const { return static_cast<std::size_t>(shared + threads * per_thread) * sizeof(float); }
  void run(const Arguments& arguments) const;
  /// Computes the blocks i with wanted[i] != 0 alone.
  void run_some(const Arguments& arguments, const std::uint8_t* wanted) const;

  Gather gather;
  Scatter scatter;
  WeightOrder order;
  Access input, weight, bias, output;
  std::optional<Activation> activation;
  ActivationLoop activate;  ///< for `activation`, if there is one
  bool has_bias;
  Isa isa;
  int threads;
  std::int64_t results, padded_results;  ///< of a group; rounded up to whole vectors
  std::optional<PairProducts> pairs;

  std::optional<Planes> planes;    ///< where the results are few
  std::int64_t planar_length = 0;  ///< floats of a result's row of pixels then

  // Workspace, in floats: weight (panels of pairs at first), bias, with `pairs` a byte for each block to multiply
  // again, then for each thread a slab, packed rows and sums.
  std::int64_t bias_at, flags_at, shared, packed_at, sums_at, per_thread;
};

}  // namespace halftone::cpu
