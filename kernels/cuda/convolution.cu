#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/dense.hpp"
#include "kernels/common/convolution.hpp"
#include "kernels/cuda/activation.hpp"
#include "kernels/cuda/divisor.hpp"
#include "kernels/cuda/operands.hpp"
#include "kernels/cuda/table.hpp"

// Convolutions as products of matrices that are never stored: c[m, n] = sum over k of a[m, k] b[n, k], where a kernel
// computes where a[m, k] and b[n, k] lie as it loads tiles of them into shared memory.
namespace halftone::cuda {
namespace {

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

/// f16 and bf16 on tensor cores (mma.m16n8k16, sums in f32). A warp has 32 rows of the block's tile.
template <class Format, Direction direction, int tile_rows, int tile_columns>
struct TensorCoreConvolution {
  static constexpr unsigned threads = 128;
  static constexpr int tile_depth = 32, skew = 8;  ///< skew keeps rows of a tile on different banks
  static constexpr int warps_down = tile_rows / 32, warps_across = 4 / warps_down;
  static constexpr int warp_columns = tile_columns / warps_across, fragments = warp_columns / 8;
  using Where = Matrices<direction>;

  /// A tile [rows, depth] of a matrix that runs along its depth, else [depth, rows].
  template <int rows, bool deep>
  struct Buffer {
    static constexpr int lines = deep ? rows : tile_depth, length = deep ? tile_depth : rows;
    static constexpr int units = lines * length / pack,
                         each = units / static_cast<int>(threads) > 0 ? units / static_cast<int>(threads) : 1;
    alignas(16) std::uint16_t at[lines][length + skew];
  };
  using A = Buffer<tile_rows, Where::a_deep>;
  using B = Buffer<tile_columns, Where::b_deep>;
  union alignas(16) Shared {
    struct {
      A a[2];
      B b[2];
    } in;
    Results<tile_rows, tile_columns> out;
  };
  using Unit = Pack<std::uint16_t, pack>;

  Where where;
  Tiling tiling;
  const std::uint16_t *a, *b;
  bool a_packs, b_packs;
  Finish finish;
  float* partials;  ///< [parts, count] where the depth is cut, else null
  std::int64_t count;

  /// Eight numbers of a matrix [rows, depth] from (row, at) on along its memory; zeros outside of it.
  template <bool deep, class Matrix>
  HALFTONE_DEVICE static Unit load(const std::uint16_t* from, bool packs, int row, int rows, int at, int end,
                                   const Matrix& matrix) {
    Unit unit{};
    if (row >= rows || at >= end) return unit;
    const auto first_row = matrix.row(row);
    const auto first_along = matrix.along(at);
    if (packs) {
      const std::int64_t i = matrix(first_row, first_along);
      if (i >= 0) unit = *reinterpret_cast<const Unit*>(from + i);
      return unit;
    }
    HALFTONE_UNROLL
    for (int e = 0; e < pack; ++e) {
      std::int64_t i = -1;
      if constexpr (deep) {
        if (at + e < end) i = matrix(first_row, matrix.along(at + e));
      } else {
        if (row + e < rows) i = matrix(matrix.row(row + e), first_along);
      }
      if (i >= 0) unit.at[e] = from[i];
    }
    return unit;
  }

  /// A thread's share of a tile on its way from memory.
  struct Share {
    Unit a[A::each], b[B::each];
  };

  template <class Tensor, bool deep>
  HALFTONE_DEVICE static bool place(int i, int& line, int& column) {
    const int unit = i * static_cast<int>(threads) + static_cast<int>(thread_index());
    line = unit / (Tensor::length / pack);
    column = unit % (Tensor::length / pack) * pack;
    return unit < Tensor::units;
  }

  HALFTONE_DEVICE void fetch(const Tile& tile, int depth, Share& share) const {
    int line, column;
    HALFTONE_UNROLL
    for (int i = 0; i < A::each; ++i) {
      if (!place<A, Where::a_deep>(i, line, column)) break;
      const int row = tile.row + (Where::a_deep ? line : column), at = depth + (Where::a_deep ? column : line);
      share.a[i] = load<Where::a_deep>(a, a_packs, row, where.rows, at, tile.end, typename Where::A{where, tile.group});
    }
    HALFTONE_UNROLL
    for (int i = 0; i < B::each; ++i) {
      if (!place<B, Where::b_deep>(i, line, column)) break;
      const int row = tile.column + (Where::b_deep ? line : column), at = depth + (Where::b_deep ? column : line);
      share.b[i] =
          load<Where::b_deep>(b, b_packs, row, where.columns, at, tile.end, typename Where::B{where, tile.group});
    }
  }
  HALFTONE_DEVICE static void put(const Share& share, A& a, B& b) {
    int line, column;
    HALFTONE_UNROLL
    for (int i = 0; i < A::each; ++i)
      if (place<A, Where::a_deep>(i, line, column)) *reinterpret_cast<Unit*>(&a.at[line][column]) = share.a[i];
    HALFTONE_UNROLL
    for (int i = 0; i < B::each; ++i)
      if (place<B, Where::b_deep>(i, line, column)) *reinterpret_cast<Unit*>(&b.at[line][column]) = share.b[i];
  }

  HALFTONE_DEVICE void operator()(Shared& shared) const {
    const Tile tile = tiling.template tile<tile_rows, tile_columns>(where.depth);
    const int lane = static_cast<int>(lane_index()), warp = static_cast<int>(thread_index() / warp_lanes);
    const int warp_row = warp / warps_across * 32, warp_column = warp % warps_across * warp_columns;
    float sums[2][fragments][4] = {};
    for (int depth = tile.first, stage = 0;; depth += tile_depth, stage ^= 1) {  // one tile ahead of the products
      Share share;
      if (depth < tile.end) fetch(tile, depth, share);
      if (depth > tile.first) {
        HALFTONE_UNROLL
        for (int k = 0; k < tile_depth; k += 16)
          multiply(shared.in.a[stage ^ 1], shared.in.b[stage ^ 1], k, warp_row, warp_column, lane, sums);
      }
      if (depth >= tile.end) break;
      put(share, shared.in.a[stage], shared.in.b[stage]);
      sync_block();
    }
    sync_block();
    HALFTONE_UNROLL
    for (int i = 0; i < 4; ++i) {
      HALFTONE_UNROLL
      for (int j = 0; j < 2 * fragments; ++j)
        shared.out.at[warp_row + i * 8 + lane / 4][warp_column + j / 2 * 8 + lane % 4 * 2 + j % 2] =
            sums[i / 2][j / 2][i % 2 * 2 + j % 2];
    }
    sync_block();
    shared.out.template write<threads>(where, tile, finish, partials, count);
  }

  /// Adds the products of 16 numbers of depth from `k` on.
  HALFTONE_DEVICE static void multiply(const A& a, const B& b, int k, int row, int column, int lane,
                                       float (&sums)[2][fragments][4]) {
    std::uint32_t of_a[2][4], of_b[fragments / 2][4];
    HALFTONE_UNROLL
    for (int i = 0; i < 2; ++i) {  // matrices in the order of a's registers: rows + 8 first, then depth + 8
      if constexpr (Where::a_deep) {
        load_matrices<false>(of_a[i], &a.at[row + i * 16 + lane % 16][k + lane / 16 * 8]);
      } else {
        load_matrices<true>(of_a[i], &a.at[k + lane % 8 + lane / 16 * 8][row + i * 16 + lane / 8 % 2 * 8]);
      }
    }
    HALFTONE_UNROLL
    for (int j = 0; j < fragments / 2; ++j) {  // (n, k), (n, k + 8), (n + 8, k), (n + 8, k + 8)
      const int n = column + j * 16;
      if constexpr (Where::b_deep) {
        load_matrices<false>(of_b[j], &b.at[n + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8]);
      } else {
        load_matrices<true>(of_b[j], &b.at[k + lane / 8 % 2 * 8 + lane % 8][n + lane / 16 * 8]);
      }
    }
    HALFTONE_UNROLL
    for (int i = 0; i < 2; ++i) {
      HALFTONE_UNROLL
      for (int j = 0; j < fragments; ++j) {
        const std::uint32_t pair[2] = {of_b[j / 2][j % 2 * 2], of_b[j / 2][j % 2 * 2 + 1]};
        multiply_add<Format>(sums[i][j], of_a[i], pair);
      }
    }
  }
};

/// Any storages, products and sums in f32: a thread has 4 x 4 results of a tile of 64 x 64.
template <class Format, Direction direction>
struct PlainConvolution {
  static constexpr unsigned threads = 256;
  static constexpr int tile = 64, tile_depth = 16, each = 4;
  union Shared {
    struct {
      float a[tile_depth][tile + 1], b[tile_depth][tile + 1];
    } in;
    Results<tile, tile> out;
  };

  Matrices<direction> where;
  Tiling tiling;
  Source<Format> a, b;
  Finish finish;
  float* partials;  ///< [parts, count] where the depth is cut, else null
  std::int64_t count;

  /// Number i of a tile [tile, tile_depth] in the order in which memory has a matrix.
  template <bool deep>
  HALFTONE_DEVICE static void place(int i, int& row, int& depth) {
    row = deep ? i / tile_depth : i % tile;
    depth = deep ? i % tile_depth : i / tile;
  }

  HALFTONE_DEVICE void operator()(Shared& shared) const {
    using Where = Matrices<direction>;
    const Tile own = tiling.template tile<tile, tile>(where.depth);
    const typename Where::A matrix_a{where, own.group};
    const typename Where::B matrix_b{where, own.group};
    const int thread = static_cast<int>(thread_index()), row0 = thread / 16, column0 = thread % 16;
    float sums[each][each] = {};
    for (int depth = own.first; depth < own.end; depth += tile_depth) {
      HALFTONE_ROLLED
      for (int i = thread; i < tile * tile_depth; i += static_cast<int>(threads)) {
        int row, k;
        place<Where::a_deep>(i, row, k);
        shared.in.a[k][row] = own.row + row < where.rows && depth + k < own.end
                                  ? number(a, matrix_a, own.row + row, depth + k)
                                  : 0.0f;
        place<Where::b_deep>(i, row, k);
        shared.in.b[k][row] = own.column + row < where.columns && depth + k < own.end
                                  ? number(b, matrix_b, own.column + row, depth + k)
                                  : 0.0f;
      }
      sync_block();
      for (int k = 0; k < tile_depth; ++k) {
        float of_a[each], of_b[each];
        HALFTONE_UNROLL
        for (int i = 0; i < each; ++i) {
          of_a[i] = shared.in.a[k][row0 + 16 * i];
          of_b[i] = shared.in.b[k][column0 + 16 * i];
        }
        HALFTONE_UNROLL
        for (int i = 0; i < each; ++i) {
          HALFTONE_UNROLL
          for (int j = 0; j < each; ++j) sums[i][j] = multiply_add(of_a[i], of_b[j], sums[i][j]);
        }
      }
      sync_block();
    }
    HALFTONE_UNROLL
    for (int i = 0; i < each; ++i) {
      HALFTONE_UNROLL
      for (int j = 0; j < each; ++j) shared.out.at[row0 + 16 * i][column0 + 16 * j] = sums[i][j];
    }
    sync_block();
    shared.out.template write<threads>(where, own, finish, partials, count);
  }

  template <class Matrix>
  HALFTONE_DEVICE static float number(const Source<Format>& from, const Matrix& matrix, int row, int along) {
    const std::int64_t i = matrix(matrix.row(row), matrix.along(along));
    return i >= 0 ? from[i] : 0.0f;
  }
};

/// y = activation(y + bias).
struct AddBias {
  static constexpr unsigned threads = 256;
  using Shared = NoShared;
  Source<F32> before;
  Sink<F32> y;
  Source<Any> bias;
  bool has_bias;
  std::int64_t count, channels;
  Epilogue activation;
  HALFTONE_DEVICE void operator()(Shared&) const {
    const std::int64_t i = thread_number<AddBias>();
    if (i < count) y.write(i, activation.of(has_bias ? before[i] + bias[i % channels] : before[i]));
  }
};

/// Where results make fewer blocks than this, the depth is cut as far as it goes.
constexpr int wanted_blocks = 264;

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

template <class Format, Direction direction, int tile_rows, int tile_columns>
Launch on_tensor_cores(const Convolution& convolution) {
  using Kernel = TensorCoreConvolution<Format, direction, tile_rows, tile_columns>;
  const Matrices<direction> where(convolution.problem);
  return cut<direction>(
      convolution, tile_rows, tile_columns, Kernel::tile_depth,
      [=](const Tiling& tiling, const Finish& finish, float* partials, std::int64_t count, const Arguments& a) {
        enqueue(a, tiling.blocks(),
                Kernel{where, tiling, a.in<std::uint16_t>(input_a<direction>), a.in<std::uint16_t>(input_b<direction>),
                       where.a_packs(), where.b_packs(), finish, partials, count});
      });
}

/// Narrow results get tall tiles.
template <class Format, Direction direction>
Launch on_tensor_cores(const Convolution& convolution) {
  return Matrices<direction>(convolution.problem).columns <= 16
             ? on_tensor_cores<Format, direction, 128, 16>(convolution)
             : on_tensor_cores<Format, direction, 64, 64>(convolution);
}

template <class F>
Launch with_direction(Direction direction, const F& f) {
  if (direction == Direction::forward) return f(std::integral_constant<Direction, Direction::forward>{});
  if (direction == Direction::d_input) return f(std::integral_constant<Direction, Direction::d_input>{});
  return f(std::integral_constant<Direction, Direction::d_weight>{});
}

/// Positions of pixels and taps, and of numbers in an image, have 32 bits.
bool is_large(const ConvProblem& x) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max() / 2;
  return x.n * x.p * x.q > most || x.n * x.h * x.w > most || x.r * x.s * x.c > most || x.r * x.s * x.k > most ||
         x.h * x.w * x.c > most || x.p * x.q * x.k > most;
}

}  // namespace

std::string decline_tensor_cores(const Convolution& convolution) {
  const Storage& storage = convolution.operands.inputs[0].storage;
  if (storage != DType::f16 && storage != DType::bf16) return "tensor cores take f16 or bf16 alone";
  if (convolution.operands.inputs[1].storage != storage) return "operands are stored in two ways";
  return decline_plain(convolution);
}

std::string decline_plain(const Convolution& convolution) {
  return is_large(convolution.problem) ? "more than 2^30 pixels, or numbers in an image" : "";
}

Launch tensor_cores(const Convolution& convolution) {
  return with_direction(convolution.direction, [&](auto direction) {
    return convolution.operands.inputs[0].storage == DType::f16 ? on_tensor_cores<F16, direction()>(convolution)
                                                                : on_tensor_cores<BF16, direction()>(convolution);
  });
}

std::function<void(const Arguments&)> add_bias(const Convolution& convolution) {
  return [operands = convolution.operands, activation = Epilogue(convolution.activation)](const Arguments& a) {
    const std::int64_t count = operands.output.shape.elements();
    const bool has_bias = operands.inputs.size() > 2;
    enqueue(a, blocks_for<AddBias>(count),
            AddBias{{operands.output, a.outputs[0]},
                    {operands.output, a.outputs[0], a.state},
                    has_bias ? Source<Any>(operands.inputs[2], a.inputs[2]) : Source<Any>(),
                    has_bias,
                    count,
                    operands.output.shape.c,
                    activation});
  };
}

Launch plain(const Convolution& convolution) {
  const auto& inputs = convolution.operands.inputs;
  return with_direction(convolution.direction, [&](auto constant) {
    constexpr Direction direction = constant();
    const auto as = [&](auto format) {
      using Kernel = PlainConvolution<decltype(format), direction>;
      const Matrices<direction> where(convolution.problem);
      return cut<direction>(
          convolution, Kernel::tile, Kernel::tile, Kernel::tile_depth,
          [=](const Tiling& tiling, const Finish& finish, float* partials, std::int64_t count, const Arguments& a) {
            const auto source = [&](std::size_t i) { return Source<decltype(format)>(inputs[i], a.inputs[i]); };
            enqueue(a, tiling.blocks(),
                    Kernel{where, tiling, source(input_a<direction>), source(input_b<direction>), finish, partials,
                           count});
          });
    };
    return inputs[0].storage == DType::f32 && inputs[1].storage == DType::f32 ? as(F32{}) : as(Any{});
  });
}

}  // namespace halftone::cuda
