#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/common/convolution.hpp"
#include "kernels/cpu/gather.hpp"
#include "kernels/cpu/storage.hpp"

namespace halftone::cpu {

/// A data gradient, or a transposed convolution, made ready to run on [d_output, weight]: a row of d_input gathers the
/// rows of d_output under its taps, and what each of their pixels gives is added to all columns that it reaches
/// (col2im, Jia et al. 2014). So the zeros around and between d_output's pixels are not multiplied. Work is cut into
/// bands of rows, by shape alone.
struct Col2im {
  Col2im(const Convolution& convolution, Isa isa, int threads);
  std::size_t workspace() const { return static_cast<std::size_t>(shared + threads * per_thread) * sizeof(float); }
  void run(const Arguments& arguments) const;

  ConvProblem problem;
  Access d_output, weight, d_input;
  Isa isa;
  int threads;

  std::vector<Gather> gathers;      ///< of rows of d_output, for each residue of d_input's row modulo stride_h
  std::vector<std::int64_t> bases;  ///< depth of the gathers before
  std::int64_t run_length, padded;  ///< of a row of taps with their channels; rounded up to whole vectors
  std::int64_t band, most_rows;     ///< rows of d_input that a task computes; of d_output that it reads
  /// Neighbours add to lines of their own, which are added up in the end: a vector that is read across two that were
  /// just written waits for both.
  std::int64_t lines, pitch;

  // Workspace, in floats: weight [depth, padded] in panels, then for each thread d_output [most_rows, q, k], sums [q,
  // padded] and lines [lines, pitch].
  std::int64_t shared, sums_at, lines_at, per_thread;
};

}  // namespace halftone::cpu
