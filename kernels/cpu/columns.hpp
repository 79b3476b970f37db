#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>

#include "halftone/numeric/pointwise.hpp"
#include "halftone/tensor/device.hpp"
#include "kernels/cpu/isa.hpp"
#include "kernels/cpu/parallel.hpp"

// What normalisations share: sums over the rows of a tensor [rows, c], and functions with one set of coefficients per
// column.
namespace halftone::cpu {

/// A tensor [rows, c] read as rows of `width` columns, `width` a multiple of c, so that loops over columns are long
/// even where c is small. Work is cut into tasks, tasks into chunks; each begins at a wide row.
struct Columns {
  Columns(std::int64_t rows, std::int64_t c);

  std::int64_t c, width, elements;
  std::int64_t chunk, task;  ///< elements
  std::int64_t tasks() const { return (elements + task - 1) / task; }

  /// Calls f(first, count) for the chunks of [begin, end).
  template <class F>
  void for_chunks(std::int64_t begin, std::int64_t end, F&& f) const {
    for (std::int64_t first = begin; first < end; first += chunk) f(first, std::min(chunk, end - first));
  }
  template <class F>
  void for_chunks_of(std::int64_t number, F&& f) const {
    for_chunks(number * task, std::min(elements, (number + 1) * task), f);
  }

  /// Fills [width] with what f gives for each channel.
  template <class F>
  void fill(float* to, F&& f) const {
    for (std::int64_t j = 0; j < c; ++j) to[j] = static_cast<float>(f(j));
    repeat(to);
  }
  /// Copies the first c of [width] numbers into the rest.
  void repeat(float* values) const {
    for (std::int64_t i = c; i < width; i += c) std::copy_n(values, c, values + i);
  }
  /// [width] -> [c], added to `to`.
  void fold(const double* from, double* to) const;
};

/// Arrays of one length in a workspace, each on lines of its own; `bytes` is what the workspace has so far.
template <class T>
class Arrays {
 public:
  Arrays(std::int64_t length, std::int64_t count, std::size_t& bytes)
      : offset_(bytes), stride_(padded(static_cast<std::size_t>(length) * sizeof(T))) {
    bytes += stride_ * static_cast<std::size_t>(count);
  }
  T* operator()(void* workspace, std::int64_t i = 0) const {
    return reinterpret_cast<T*>(static_cast<std::byte*>(workspace) + offset_ + stride_ * static_cast<std::size_t>(i));
  }

 private:
  std::size_t offset_, stride_;
};

inline float inverse_deviation(double variance, float epsilon) {
  return static_cast<float>(1 / std::sqrt((variance < 0 ? 0 : variance) + epsilon));
}

/// What a normalisation keeps of the sums of x - shift and of its square. Where the shift is one of the `count`
/// numbers, it is less than sqrt(count) deviations from their mean, so the squares lose log2(count) of 53 bits at most,
/// wherever the mean is.
struct Statistics {
  float mean, inverse;  ///< deviation
  double lost;          ///< what rounding took from the mean
  Statistics(float shift, double sum, double squares, double count, float epsilon)
      : mean(static_cast<float>(shift + sum / count)),
        inverse(inverse_deviation(squares / count - (sum / count) * (sum / count), epsilon)),
        lost(shift - static_cast<double>(mean) + sum / count) {}
};

/// Sums of up to two kinds of terms per column, the same bits for any number of threads: each task adds its own in
/// double, the tasks' are added in their order.
class ColumnSums {
 public:
  ColumnSums(const Columns& columns, int kinds, int threads, std::size_t& bytes)
      : columns_(columns),
        kinds_(kinds),
        threads_(threads),
        wide_(columns.width * kinds, threads, bytes),
        partials_(columns.c * kinds, columns.tasks(), bytes) {}

  /// `add(first, count, thread, sums)` adds a chunk's terms to sums [kinds, width]. Returns the totals [kinds, c].
  template <class F>
  const double* run(void* workspace, F&& add) const {
    parallel_for(threads_, columns_.tasks(), [&](std::int64_t task, int thread) {
      double *wide = wide_(workspace, thread), *sums = partials_(workspace, task);
      std::fill_n(wide, kinds_ * columns_.width, 0.0);
      columns_.for_chunks_of(task, [&](std::int64_t first, std::int64_t count) { add(first, count, thread, wide); });
      std::fill_n(sums, kinds_ * columns_.c, 0.0);
      for (int kind = 0; kind < kinds_; ++kind) columns_.fold(wide + kind * columns_.width, sums + kind * columns_.c);
    });
    double* totals = partials_(workspace);
    for (std::int64_t task = 1; task < columns_.tasks(); ++task)
      for (std::int64_t i = 0; i < kinds_ * columns_.c; ++i) totals[i] += partials_(workspace, task)[i];
    return totals;
  }

 private:
  Columns columns_;
  int kinds_, threads_;
  Arrays<double> wide_, partials_;
};

/// The loops over a chunk: `count` numbers in rows of `width`, the last row perhaps shorter.
struct ColumnLoops {
  /// sums[j] += x.
  void (*sum)(const float* x, std::int64_t count, std::int64_t width, double* sums);
  /// sums[j] += x - shift[j], sums[width + j] += (x - shift[j])^2, in double.
  void (*moments)(const float* x, const float* shift, std::int64_t count, std::int64_t width, double* sums);
  /// sums[j] += c AP2(c), c = x - mean[j] - lost[j].
  void (*shift_moments)(const float* x, const float* mean, const float* lost, std::int64_t count, std::int64_t width,
                        double* sums);
  /// sums[j] += d_y, sums[width + j] += d_y (x - mean[j]).
  void (*gradient_sums)(const float* d_y, const float* x, const float* mean, std::int64_t count, std::int64_t width,
                        double* sums);
  /// d_x = a[j] d_y + (b[j] (x - mean[j]) + c[j]); d_x may be d_y.
  void (*d_input)(const float* d_y, const float* x, const float* mean, const float* a, const float* b, const float* c,
                  std::int64_t count, std::int64_t width, float* d_x);
};
const ColumnLoops& column_loops(Isa isa);

/// y = activation(factor[j] (x - mean[j]) + offset[j]); y may be x.
using Normalize = void (*)(const float* x, const float* mean, const float* factor, const float* offset,
                           std::int64_t count, std::int64_t width, float* y, const Activation& activation);
Normalize normalizer(Isa isa, const std::optional<Activation>& activation);

}  // namespace halftone::cpu
