#pragma once
#include <cmath>

#include "kernels/cuda/activation.hpp"
#include "kernels/cuda/operands.hpp"

// What normalisations share: sums over the rows of tensors [rows, c], and functions with one set of coefficients per
// column. A thread keeps to its columns, one or a pack of them, and walks down rows; the threads of a block take rows
// that follow each other, so that a block reads memory in its order.
namespace halftone::cuda {

/// How a tensor [samples, rows, c] is cut, by its shape alone: a block has `part_rows` rows of one sample and a tile of
/// up to `threads` units of columns.
struct Columns {
  static constexpr int threads = 256;

  std::int64_t samples, rows, c, part_rows;
  int parts;          ///< of a sample
  int units, tiles;   ///< units of n columns in a row; tiles of `width` units
  int width, height;  ///< units and rows that a block takes at a time

  Columns(std::int64_t the_samples, std::int64_t the_rows, std::int64_t the_c, int n, int most_blocks)
      : samples(the_samples), rows(the_rows), c(the_c), units(static_cast<int>(c / n)) {
    constexpr std::int64_t fewest_steps = 8;
    tiles = (units + threads - 1) / threads;
    width = (units + tiles - 1) / tiles;
    height = threads / width;
    const std::int64_t steps = (rows + height - 1) / height;
    const std::int64_t most_parts = std::max<std::int64_t>(most_blocks / (samples * tiles), 1);
    const std::int64_t wanted = std::min((steps + fewest_steps - 1) / fewest_steps, most_parts);
    part_rows = (steps + wanted - 1) / wanted * height;
    parts = static_cast<int>((rows + part_rows - 1) / part_rows);
  }
  /// For sums, whose parts are then added up; and for functions of each number.
  static constexpr int few_blocks = 528, many_blocks = 4096;

  std::int64_t blocks() const { return samples * parts * tiles; }
  std::int64_t all_parts() const { return samples * parts; }

  /// In a second pass over a tensor blocks come in the reverse order: what the first has read last may still be in the
  /// cache.
  enum class Pass { first, second };

  /// What one thread has: of each row from `row` to `end`, `height` apart, the columns from `channel` on.
  struct Place {
    int x, y;  ///< in the block
    std::int64_t part, sample, channel, row, end;
    std::int64_t first;  ///< element
  };
  template <int n>
  HALFTONE_DEVICE Place place(Pass pass) const {
    const int thread = static_cast<int>(thread_index());
    const int block = static_cast<int>(pass == Pass::first ? block_index() : block_count() - 1 - block_index());
    Place p;
    p.x = thread % width;
    p.y = thread / width;
    const int unit = block % tiles * width + p.x;
    p.part = block / tiles;
    p.sample = p.part / parts;
    p.channel = static_cast<std::int64_t>(unit) * n;
    const std::int64_t first_row = p.part % parts * part_rows;
    p.row = first_row + p.y;
    p.end = p.y < height && unit < units ? std::min(rows, first_row + part_rows) : 0;
    p.first = (p.sample * rows + p.row) * c + p.channel;
    return p;
  }
};

/// Columns of a thread that adds up where one that only computes has n: half a pack, since sums take registers, and
/// more warps hide more of the memory's latency.
template <int n>
inline constexpr int summed_columns = n == pack ? pack / 2 : n;

/// Adds up sums[i] over the rows y < height of a block's threads, `width` threads to a row; row 0 gets them.
template <int n, int slots>
HALFTONE_DEVICE void add_rows(double (&sums)[n], int x, int y, int width, int height, double (&scratch)[n][slots]) {
  while (height > 1) {
    const int half = (height + 1) / 2;
    if (y >= half && y < height) {
      HALFTONE_UNROLL
      for (int i = 0; i < n; ++i) scratch[i][(y - half) * width + x] = sums[i];
    }
    sync_block();
    if (y < height - half) {
      HALFTONE_UNROLL
      for (int i = 0; i < n; ++i) sums[i] += scratch[i][y * width + x];
    }
    sync_block();
    height = half;
  }
}

/// load(first, values), then use(first, row, values) for all rows of a thread, `together` of them on their way from
/// memory at a time; `end()` after each so many.
template <int together, int inputs, int n, class Load, class Use, class End>
HALFTONE_DEVICE void for_each_row(const Columns& columns, const Columns::Place& place, const Load& load, const Use& use,
                                  const End& end) {
  const std::int64_t step = columns.height * columns.c;
  std::int64_t first = place.first;
  for (std::int64_t row = place.row; row < place.end; row += together * columns.height, first += together * step) {
    float values[together][inputs][n] = {};
    HALFTONE_UNROLL
    for (int i = 0; i < together; ++i)
      if (row + i * columns.height < place.end) load(first + i * step, values[i]);
    HALFTONE_UNROLL
    for (int i = 0; i < together; ++i)
      if (row + i * columns.height < place.end) use(first + i * step, row + i * columns.height, values[i]);
    end();
  }
}

/// Of f16 f32 holds every product, and loses nothing beside the rounding of numbers of 16 bits.
template <class Format>
using SumOfFew = std::conditional_t<std::is_same_v<Format, F16>, float, double>;

/// partials[part, kind, j] = the sums of terms over the part's rows. `Terms::read_row(first, values)` reads n elements
/// of each input; `of(sample, channel)` gives what `add(values, row, sums)` adds their terms to sums [kinds, n] with.
/// A few rows are added in `Terms::Sum`, all else in double.
template <class Terms>
struct ColumnSums {
  static constexpr unsigned threads = Columns::threads;
  static constexpr int n = Terms::n, values = Terms::kinds * n;
  struct Shared {
    double rows[values][threads / 2];
  };

  Columns columns;
  Terms terms;
  double* partials;

  HALFTONE_DEVICE void operator()(Shared& shared) const {
    const auto place = columns.template place<n>(Columns::Pass::first);
    double sums[values] = {};
    if (place.row < place.end) {
      const auto term = terms.of(place.sample, place.channel);
      typename Terms::Sum some[values] = {};
      for_each_row<4 / Terms::inputs, Terms::inputs, n>(
          columns, place, [&](std::int64_t first, float(&x)[Terms::inputs][n]) { terms.read_row(first, x); },
          [&](std::int64_t, std::int64_t row, float(&x)[Terms::inputs][n]) { term.add(x, row, some); },
          [&] {
            HALFTONE_UNROLL
            for (int i = 0; i < values; ++i) {
              sums[i] += static_cast<double>(some[i]);
              some[i] = 0;
            }
          });
    }
    add_rows(sums, place.x, place.y, columns.width, columns.height, shared.rows);
    if (place.y > 0 || place.channel >= columns.c) return;
    HALFTONE_UNROLL
    for (int i = 0; i < values; ++i)
      partials[(place.part * Terms::kinds + i / n) * columns.c + place.channel + i % n] = sums[i];
  }
};

/// finish(sample, j, totals [kinds]) for every column: the sums over the parts of a sample.
template <class Finish>
struct FoldParts {
  static constexpr unsigned threads = 256;
  static constexpr int width = 8, height = threads / width, kinds = Finish::kinds;
  struct Shared {
    double rows[kinds][threads / 2];
  };

  const double* partials;  ///< [samples, parts, kinds, c]
  std::int64_t parts, c;
  Finish finish;

  static std::int64_t blocks(std::int64_t samples, std::int64_t c) { return samples * ((c + width - 1) / width); }

  HALFTONE_DEVICE void operator()(Shared& shared) const {
    const int x = static_cast<int>(thread_index()) % width, y = static_cast<int>(thread_index()) / width;
    const std::int64_t tiles = (c + width - 1) / width, sample = block_index() / tiles,
                       j = block_index() % tiles * width + x;
    double sums[kinds] = {};
    const double* from = partials + sample * parts * kinds * c + j;
    if (j < c) {
      HALFTONE_UNROLL_BY_8  // so that several are on their way from memory
          for (std::int64_t part = y; part < parts; part += height) {
        HALFTONE_UNROLL
        for (int kind = 0; kind < kinds; ++kind) sums[kind] += from[(part * kinds + kind) * c];
      }
    }
    add_rows(sums, x, y, width, height, shared.rows);
    if (y == 0 && j < c) finish(sample, j, sums);
  }
};

template <class Finish>
void fold(const Arguments& a, std::int64_t samples, std::int64_t parts, std::int64_t c, const double* partials,
          const Finish& finish) {
  using Fold = FoldParts<Finish>;
  enqueue(a, Fold::blocks(samples, c), Fold{partials, parts, c, finish});
}

/// Adds terms up over the rows of each sample and calls `finish` for every column; one that takes one kind of sums gets
/// the columns of all kinds in turn.
template <class Terms, class Finish>
void sum_columns(const Arguments& a, const Columns& columns, const Terms& terms, double* partials,
                 const Finish& finish) {
  enqueue(a, columns.blocks(), ColumnSums<Terms>{columns, terms, partials});
  fold(a, columns.samples, columns.parts, columns.c * (Terms::kinds / Finish::kinds), partials, finish);
}

/// x - shift and its square; the shift is the sample's first number in the same `run` of columns.
template <class Format, int numbers>
struct Moments {
  static constexpr int n = numbers, kinds = 2, inputs = 1;
  using Sum = SumOfFew<Format>;

  Source<Format> x;
  std::int64_t sample_size, run;

  HALFTONE_DEVICE void read_row(std::int64_t first, float (&values)[1][n]) const { read(x, first, values[0]); }
  struct Of {
    float shift[n];
    HALFTONE_DEVICE void add(const float (&values)[1][n], std::int64_t, Sum (&sums)[2 * n]) const {
      HALFTONE_UNROLL
      for (int i = 0; i < n; ++i) {
        const Sum shifted = static_cast<Sum>(values[0][i]) - static_cast<Sum>(shift[i]);
        sums[i] += shifted;
        sums[n + i] += shifted * shifted;
      }
    }
  };
  HALFTONE_DEVICE Of of(std::int64_t sample, std::int64_t channel) const {
    Of result{};
    if (run == 1) {
      read(x, sample * sample_size + channel, result.shift);
    } else {
      HALFTONE_UNROLL
      for (int i = 0; i < n; ++i) result.shift[i] = x[sample * sample_size + (channel + i) / run * run];
    }
    return result;
  }
};

/// c AP2(c), c = x less the mean, which is two f32 numbers, [2, columns].
template <class Format, int numbers>
struct ShiftMoments {
  static constexpr int n = numbers, kinds = 1, inputs = 1;
  using Sum = SumOfFew<Format>;

  Source<Format> x;
  const float* mean;
  std::int64_t c;

  HALFTONE_DEVICE void read_row(std::int64_t first, float (&values)[1][n]) const { read(x, first, values[0]); }
  struct Of {
    float mean[n], lost[n];
    HALFTONE_DEVICE void add(const float (&values)[1][n], std::int64_t, Sum (&sums)[n]) const {
      HALFTONE_UNROLL
      for (int i = 0; i < n; ++i) {
        const float centred = values[0][i] - mean[i] - lost[i];
        sums[i] += static_cast<Sum>(centred) * static_cast<Sum>(math::approximate_power_of_two(centred));
      }
    }
  };
  HALFTONE_DEVICE Of of(std::int64_t, std::int64_t channel) const {
    Of result{};
    read(mean + channel, result.mean);
    read(mean + c + channel, result.lost);
    return result;
  }
};

HALFTONE_DEVICE float inverse_deviation(double variance, float epsilon) {
  return static_cast<float>(1 / std::sqrt((variance < 0 ? 0 : variance) + static_cast<double>(epsilon)));
}

/// What a normalisation keeps of the sums of x - shift and of its square. `share` is 1 / count. Where the shift is one
/// of the `count` numbers, it is less than sqrt(count) deviations from their mean, so the squares lose log2(count) of
/// 53 bits at most, wherever the mean is.
struct Statistics {
  float mean, inverse;  ///< deviation
  double lost;          ///< what rounding took from the mean
  HALFTONE_DEVICE Statistics(float shift, double sum, double squares, double share, float epsilon) {
    const double shifted = sum * share, variance = squares * share - shifted * shifted;
    mean = static_cast<float>(static_cast<double>(shift) + shifted);
    lost = static_cast<double>(shift) - static_cast<double>(mean) + shifted;
    inverse = inverse_deviation(variance, epsilon);
  }
};

/// Numbers that belong to a sample and a run of its columns: at[step (groups sample + j / run)].
struct Grouped {
  const float* at;
  std::int64_t groups = 0, run = 1, step = 1;
  HALFTONE_DEVICE float operator()(std::int64_t sample, std::int64_t j) const {
    return at[step * (sample * groups + j / run)];
  }
  /// Those of columns [j, j + n), j a multiple of n.
  template <int n>
  HALFTONE_DEVICE void of(std::int64_t sample, std::int64_t j, float (&x)[n]) const {
    if (run == 1 && step == 1) return read(at + sample * groups + j, x);
    HALFTONE_UNROLL
    for (int i = 0; i < n; ++i) x[i] = (*this)(sample, j + i);
  }
};

/// d_y and d_y (x - mean).
template <class Format, int numbers>
struct GradientTerms {
  static constexpr int n = numbers, kinds = 2, inputs = 2;
  using Sum = SumOfFew<Format>;

  Source<Format> d_y, x;
  Grouped mean;

  HALFTONE_DEVICE void read_row(std::int64_t first, float (&values)[2][n]) const {
    read(d_y, first, values[0]);
    read(x, first, values[1]);
  }
  struct Of {
    float mean[n];
    HALFTONE_DEVICE void add(const float (&values)[2][n], std::int64_t, Sum (&sums)[2 * n]) const {
      const auto& [d, x] = values;
      HALFTONE_UNROLL
      for (int i = 0; i < n; ++i) {
        sums[i] += static_cast<Sum>(d[i]);
        sums[n + i] += static_cast<Sum>(d[i] * (x[i] - mean[i]));
      }
    }
  };
  HALFTONE_DEVICE Of of(std::int64_t sample, std::int64_t channel) const {
    Of result{};
    mean.of(sample, channel, result.mean);
    return result;
  }
};

/// y = epilogue(factor[j] (x - mean[j]) + offset[j]) with the sample's coefficients [3, c]; y may lie over x.
template <class Format, int n>
struct Normalize {
  static constexpr unsigned threads = Columns::threads;
  using Shared = NoShared;

  Columns columns;
  Source<Format> x;
  Sink<Format> y;
  const float* coefficients;
  Epilogue epilogue;

  HALFTONE_DEVICE void operator()(Shared&) const {
    const auto place = columns.template place<n>(Columns::Pass::second);
    if (place.row >= place.end) return;
    const float* set = coefficients + place.sample * 3 * columns.c + place.channel;
    float mean[n], factor[n], offset[n];
    read(set, mean);
    read(set + columns.c, factor);
    read(set + 2 * columns.c, offset);
    epilogue.with([&](const auto& finish) {
      for_each_row<2, 1, n>(
          columns, place, [&](std::int64_t first, float(&values)[1][n]) { read(x, first, values[0]); },
          [&](std::int64_t first, std::int64_t, float(&values)[1][n]) {
            HALFTONE_UNROLL
            for (int i = 0; i < n; ++i) values[0][i] = factor[i] * (values[0][i] - mean[i]) + offset[i];
            finish(values[0]);
            write(y, first, values[0]);
          },
          [] {});
    });
  }
};

/// d_x = factor[j] d_y + (slope[j] (x - mean[j]) + offset[j]) with the sample's coefficients [4, c], mean first; d_x
/// may lie over d_y.
template <class Format, int n>
struct InputGradient {
  static constexpr unsigned threads = Columns::threads;
  using Shared = NoShared;

  Columns columns;
  Source<Format> d_y, x;
  Sink<Format> d_x;
  const float* coefficients;

  HALFTONE_DEVICE void operator()(Shared&) const {
    const auto place = columns.template place<n>(Columns::Pass::second);
    if (place.row >= place.end) return;
    const float* set = coefficients + place.sample * 4 * columns.c + place.channel;
    float mean[n], factor[n], slope[n], offset[n];
    read(set, mean);
    read(set + columns.c, factor);
    read(set + 2 * columns.c, slope);
    read(set + 3 * columns.c, offset);
    for_each_row<2, 2, n>(
        columns, place,
        [&](std::int64_t first, float(&values)[2][n]) {
          read(d_y, first, values[0]);
          read(x, first, values[1]);
        },
        [&](std::int64_t first, std::int64_t, float(&values)[2][n]) {
          auto& [d, x] = values;
          HALFTONE_UNROLL
          for (int i = 0; i < n; ++i) d[i] = factor[i] * d[i] + (slope[i] * (x[i] - mean[i]) + offset[i]);
          write(d_x, first, d);
        },
        [] {});
  }
};

}  // namespace halftone::cuda
