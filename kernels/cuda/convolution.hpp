#pragma once
#include "kernels/common/convolution.hpp"
#include "kernels/cuda/activation.hpp"
#include "kernels/cuda/divisor.hpp"
#include "kernels/cuda/operands.hpp"

// Convolutions as products of matrices that are never stored: c[m, n] = sum over k of a[m, k] b[n, k], where a kernel
// computes where a[m, k] and b[n, k] lie as it loads tiles of them into shared memory. What all kernels share: where
// numbers lie, how the work is cut, and what becomes of sums.
namespace halftone::cuda {

/// Where the numbers of a convolution's matrices lie. Forward: m are output pixels, n filters, k taps x channels; data
/// gradient: input pixels, channels, taps x filters; weight gradient: filters, taps x channels, output pixels.
template <Direction direction>
class Matrices {
  static constexpr bool of_input = direction == Direction::d_input, of_weight = direction == Direction::d_weight;

 public:
  int channels, filters;  ///< of a group
  int rows, columns, depth;

  explicit Matrices(const ConvProblem& x)
      : channels(static_cast<int>(x.c / x.groups)),
        filters(static_cast<int>(x.k / x.groups)),
        c_(static_cast<int>(x.c)),
        k_(static_cast<int>(x.k)),
        taps_(static_cast<int>(x.r * x.s)),
        seen_h_(static_cast<int>(of_input ? x.p : x.h)),
        seen_w_(static_cast<int>(of_input ? x.q : x.w)),
        image_size_(seen_h_ * seen_w_ * (of_input ? k_ : c_)),
        pad_h_(x.pad_h),
        pad_w_(x.pad_w),
        dilation_h_(x.dilation_h),
        dilation_w_(x.dilation_w),
        stride_h_(x.stride_h),
        stride_w_(x.stride_w),
        by_height_(static_cast<int>(of_input ? x.h : x.p)),
        by_width_(static_cast<int>(of_input ? x.w : x.q)),
        by_numbers_(of_input ? filters : channels),
        by_taps_across_(static_cast<int>(x.s)),
        by_stride_h_(x.stride_h),
        by_stride_w_(x.stride_w) {
    const int pixels = static_cast<int>(of_input ? x.n * x.h * x.w : x.n * x.p * x.q);
    rows = of_weight ? filters : pixels;
    columns = of_weight ? taps_ * channels : of_input ? channels : filters;
    depth = of_weight ? pixels : taps_ * (of_input ? filters : channels);
  }

  /// Which matrix runs along its depth in memory; the others run along their rows.
  static constexpr bool a_deep = !of_weight, b_deep = direction == Direction::forward;
  /// Whether eight numbers that follow each other in that direction follow each other in memory.
  bool a_packs() const { return (direction == Direction::forward ? channels : filters) % pack == 0; }
  bool b_packs() const { return channels % pack == 0; }

  /// a[m, k]: `operator()(row(m), along(k))` is its element in its tensor, -1 where it lies in padding.
  struct A {
    const Matrices& in;
    int group;
    HALFTONE_DEVICE auto row(int m) const {
      if constexpr (of_weight) return m;
      if constexpr (!of_weight) return in.pixel(m);
    }
    HALFTONE_DEVICE auto along(int k) const {
      if constexpr (of_weight) return k;
      if constexpr (!of_weight) return in.tap(k);
    }
    template <class Row, class Along>
    HALFTONE_DEVICE std::int64_t operator()(const Row& row, const Along& along) const {
      if constexpr (of_weight) return std::int64_t{along} * in.k_ + group * in.filters + row;
      if constexpr (!of_weight) return in.seen(group, row, along);
    }
  };
  /// b[n, k], likewise.
  struct B {
    const Matrices& in;
    int group;
    HALFTONE_DEVICE auto row(int n) const {
      if constexpr (of_weight) return in.tap(n);
      if constexpr (!of_weight) return n;
    }
    HALFTONE_DEVICE auto along(int k) const {
      if constexpr (of_weight) return in.pixel(k);
      if constexpr (of_input) return in.tap(k);
      if constexpr (direction == Direction::forward) return k;
    }
    template <class Row, class Along>
    HALFTONE_DEVICE std::int64_t operator()(const Row& row, const Along& along) const {
      if constexpr (of_weight) return in.seen(group, along, row);
      if constexpr (of_input)
        return (std::int64_t{group * in.filters + along.number} * in.taps_ + along.tap) * in.channels + row;
      if constexpr (direction == Direction::forward) return std::int64_t{group * in.filters + row} * in.depth + along;
    }
  };
  HALFTONE_DEVICE std::int64_t result(int group, int m, int n) const {
    if constexpr (direction == Direction::forward) return std::int64_t{m} * k_ + group * filters + n;
    if constexpr (of_input) return std::int64_t{m} * c_ + group * channels + n;
    if constexpr (of_weight) return std::int64_t{group * filters + m} * columns + n;
  }

 private:
  struct Pixel {
    std::int64_t image;  ///< its first number
    int row, column;
  };
  struct Tap {
    int tap, number, row, column;
  };

  /// Output pixel i as its first tap's place in x; for the data gradient input pixel i, from the padding's corner.
  HALFTONE_DEVICE Pixel pixel(int i) const {
    const auto [line, column] = by_width_(i);
    const auto [number, row] = by_height_(line);
    const std::int64_t image = std::int64_t{number} * image_size_;
    if constexpr (of_input) return {image, row + pad_h_, column + pad_w_};
    if constexpr (!of_input) return {image, row * stride_h_ - pad_h_, column * stride_w_ - pad_w_};
  }
  /// Tap and channel, or tap and filter.
  HALFTONE_DEVICE Tap tap(int i) const {
    const auto [tap, number] = by_numbers_(i);
    const auto [down, across] = by_taps_across_(tap);
    return {tap, number, down * dilation_h_, across * dilation_w_};
  }
  /// In x, what an output pixel sees through a tap; for the data gradient in d_y, who saw an input pixel through it.
  HALFTONE_DEVICE std::int64_t seen(int group, const Pixel& pixel, const Tap& tap) const {
    int row = of_input ? pixel.row - tap.row : pixel.row + tap.row;
    int column = of_input ? pixel.column - tap.column : pixel.column + tap.column;
    if (row < 0 || column < 0) return -1;
    if constexpr (of_input) {
      const auto down = by_stride_h_(row), across = by_stride_w_(column);
      if (down.remainder != 0 || across.remainder != 0) return -1;
      row = down.quotient;
      column = across.quotient;
    }
    if (row >= seen_h_ || column >= seen_w_) return -1;
    const int numbers = of_input ? filters : channels;
    return pixel.image + ((row * seen_w_ + column) * (of_input ? k_ : c_) + group * numbers + tap.number);
  }

  int c_, k_, taps_, seen_h_, seen_w_, image_size_, pad_h_, pad_w_, dilation_h_, dilation_w_, stride_h_, stride_w_;
  Divisor by_height_, by_width_, by_numbers_, by_taps_across_, by_stride_h_, by_stride_w_;
};

/// Which tile of which group a block has, and which part of the depth.
struct Tile {
  int group, part, row, column, first, end;
};

/// How results and depth are cut: [parts, groups, tiles of rows, tiles of columns].
struct Tiling {
  int rows, columns, groups, parts, part_depth;

  template <class Matrices>
  Tiling(const Matrices& m, int the_groups, int tile_rows, int tile_columns, int tile_depth, int wanted_parts)
      : rows((m.rows + tile_rows - 1) / tile_rows),
        columns((m.columns + tile_columns - 1) / tile_columns),
        groups(the_groups) {
    const int steps = std::max((m.depth + tile_depth - 1) / tile_depth, 1);
    const int each = (steps + wanted_parts - 1) / wanted_parts;
    part_depth = each * tile_depth;
    parts = (steps + each - 1) / each;
  }
  std::int64_t blocks() const { return std::int64_t{rows} * columns * groups * parts; }

  template <int tile_rows, int tile_columns>
  HALFTONE_DEVICE Tile tile(int depth) const {
    int i = static_cast<int>(block_index());
    Tile tile;
    tile.column = i % columns * tile_columns;
    i /= columns;
    tile.row = i % rows * tile_rows;
    i /= rows;
    tile.group = i % groups;
    tile.part = i / groups;
    tile.first = tile.part * part_depth;
    tile.end = tile.first + part_depth < depth ? tile.first + part_depth : depth;
    return tile;
  }
};

/// What becomes of a sum: y = activation(sum + bias), at once or when the sums of all parts are there.
struct Finish {
  Sink<Any> y;
  Source<Any> bias;
  bool has_bias;
  Epilogue activation;

  Finish(const Convolution& convolution, const Arguments& a)
      : y(convolution.operands.output, a.outputs[0], a.state),
        has_bias(convolution.operands.inputs.size() > 2),
        activation(convolution.activation) {
    if (has_bias) bias = Source<Any>(convolution.operands.inputs[2], a.inputs[2]);
  }
  HALFTONE_DEVICE float bias_of(int channel) const { return has_bias ? bias[channel] : 0.0f; }
  HALFTONE_DEVICE void operator()(std::int64_t i, float the_bias, float sum) const {
    y.write(i, activation.of(has_bias ? sum + the_bias : sum));
  }
};

/// A block's results on their way from registers to memory. All threads write them in one loop, whose code is small.
template <int rows, int columns>
struct Results {
  float at[rows][columns + 8];

  template <unsigned threads, class Matrices>
  HALFTONE_DEVICE void write(const Matrices& where, const Tile& tile, const Finish& finish, float* partials,
                             std::int64_t count) const {
    static_assert(threads % columns == 0);
    const int thread = static_cast<int>(thread_index()), column = thread % columns, n = tile.column + column;
    if (n >= where.columns) return;
    const float bias = partials ? 0.0f : finish.bias_of(tile.group * where.filters + n);
    HALFTONE_ROLLED
    for (int row = thread / columns; row < rows; row += static_cast<int>(threads) / columns) {
      const int m = tile.row + row;
      if (m >= where.rows) return;
      const std::int64_t i = where.result(tile.group, m, n);
      if (partials) {
        partials[tile.part * count + i] = at[row][column];
      } else {
        finish(i, bias, at[row][column]);
      }
    }
  }
};

/// Results of which a block has parts of the depth.
struct AddParts {
  static constexpr unsigned threads = 64;
  using Shared = NoShared;
  const float* partials;  ///< [parts, count]
  std::int64_t count;
  int parts;
  Divisor channels;
  Finish finish;

  HALFTONE_DEVICE void operator()(Shared&) const {
    const std::int64_t i = thread_number<AddParts>();
    if (i >= count) return;
    const float bias = finish.bias_of(channels(static_cast<int>(i)).remainder);
    double sum = 0;
    HALFTONE_UNROLL_BY_8  // so that several are on their way from memory
        for (int part = 0; part < parts; ++part) sum += static_cast<double>(partials[part * count + i]);
    finish(i, bias, static_cast<float>(sum));
  }
};

/// Where results make fewer blocks than this, the depth is cut as far as it goes.
inline constexpr int wanted_blocks = 264;

/// The launch of kernel(tiling, finish, partials, count, arguments) with tiles of that size.
template <Direction direction, class Kernel>
Launch cut(const Convolution& convolution, int tile_rows, int tile_columns, int tile_depth, Kernel kernel) {
  const Matrices<direction> where(convolution.problem);
  const int groups = convolution.problem.groups;
  const Tiling whole(where, groups, tile_rows, tile_columns, tile_depth, 1);
  const auto wanted_parts = static_cast<int>((wanted_blocks + whole.blocks() - 1) / whole.blocks());
  const Tiling tiling(where, groups, tile_rows, tile_columns, tile_depth, wanted_parts);
  const bool in_parts = tiling.parts > 1;
  const std::int64_t count = convolution.operands.output.shape.elements();
  const Divisor channels(static_cast<int>(convolution.operands.output.shape.c));
  const auto run = [=](const Arguments& a) {
    const Finish finish(convolution, a);
    float* partials = in_parts ? static_cast<float*>(a.workspace) : nullptr;
    kernel(tiling, finish, partials, count, a);
    if (in_parts) enqueue(a, blocks_for<AddParts>(count), AddParts{partials, count, tiling.parts, channels, finish});
  };
  const std::size_t partials = in_parts ? static_cast<std::size_t>(tiling.parts * count) * sizeof(float) : 0;
  return {run, partials};
}

/// Which inputs the matrices a and b are.
template <Direction direction>
constexpr std::size_t input_a = direction == Direction::d_weight ? 1 : 0;
template <Direction direction>
constexpr std::size_t input_b = 1 - input_a<direction>;

template <class F>
Launch with_direction(Direction direction, const F& f) {
  if (direction == Direction::forward) return f(std::integral_constant<Direction, Direction::forward>{});
  if (direction == Direction::d_input) return f(std::integral_constant<Direction, Direction::d_input>{});
  return f(std::integral_constant<Direction, Direction::d_weight>{});
}

}  // namespace halftone::cuda
