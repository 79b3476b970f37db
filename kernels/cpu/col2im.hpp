#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/common/convolution.hpp"
#include "kernels/cpu/activation.hpp"
#include "kernels/cpu/gather.hpp"
#include "kernels/cpu/storage.hpp"

namespace halftone::cpu {

/// A data gradient, or a transposed convolution, made ready to run on [d_output, weight, optional bias]: a row of
/// d_input gathers the rows of d_output under its taps, and what each of their pixels gives is added to all columns
/// that it reaches (col2im, Jia et al. 2014). So nothing is multiplied in padding or between strides. Work is cut into
/// bands of rows.
struct Col2im {
  Col2im(const Convolution& convolution, Isa isa, int threads);
  std::size_t workspace() const { return static_cast<std::size_t>(shared + threads * per_thread) * sizeof(float); }
  void run(const Arguments& arguments) const;

  ConvProblem problem;
  Access d_output, weight, bias, d_input;
  std::optional<Activation> activation;
  ActivationLoop activate;
  bool has_bias;
  Isa isa;
  int threads;

  /// A part of the sums: some filters under some taps of a row of d_input, counted within stride_h.
  struct Slice {
    std::int64_t tap0, tap1, filter0, filter1;
    std::int64_t base;  ///< depth of the slices before, of all rows
    std::int64_t filters() const { return filter1 - filter0; }
    std::int64_t depth() const { return (tap1 - tap0) * filters(); }
  };
  struct Rows {
    GatherAxis axis;
    std::vector<Slice> slices;
  };
  std::vector<Rows> rows;           ///< for each residue of the row modulo stride_h
  std::int64_t run_length, padded;  ///< of a row of taps with their channels; rounded up to whole vectors
  std::int64_t band, most_rows;     ///< rows of d_input that a task computes; of d_output that it reads
  /// Neighbours add to lines of their own, which are added up in the end: a vector that is read across two that were
  /// just written waits for both.
  std::int64_t lines;

  // Workspace, in floats: weight [depth, padded] in panels, bias, then for each thread d_output [most_rows, q, k], sums
  // [q, padded] and lines [lines, w, c].
  std::int64_t bias_at, shared, sums_at, lines_at, per_thread;
};

}  // namespace halftone::cpu
