#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/dense.hpp"
#include "kernels/common/convolution.hpp"
#include "kernels/cuda/activation.hpp"
#include "kernels/cuda/operands.hpp"
#include "kernels/cuda/table.hpp"

// Convolutions as products of matrices that are never stored: c[m, n] = sum over k of a[m, k] b[n, k], where a kernel
// computes where a[m, k] and b[n, k] lie as it loads tiles of them into shared memory.
namespace halftone::cuda {
namespace {

/// Where the numbers of a convolution's matrices lie. Forward: m are output pixels, n filters, k taps x channels; data
/// gradient: input pixels, channels, taps x filters; weight gradient: filters, taps x channels, output pixels.
template <Direction direction>
struct Matrices {
  int h, w, c, k, r, s, p, q, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  int channels, filters;  ///< of a group
  int rows, columns, depth;

  explicit Matrices(const ConvProblem& x)
      : h(static_cast<int>(x.h)),
        w(static_cast<int>(x.w)),
        c(static_cast<int>(x.c)),
        k(static_cast<int>(x.k)),
        r(static_cast<int>(x.r)),
        s(static_cast<int>(x.s)),
        p(static_cast<int>(x.p)),
        q(static_cast<int>(x.q)),
        stride_h(x.stride_h),
        stride_w(x.stride_w),
        pad_h(x.pad_h),
        pad_w(x.pad_w),
        dilation_h(x.dilation_h),
        dilation_w(x.dilation_w),
        channels(c / x.groups),
        filters(k / x.groups) {
    const int outputs = static_cast<int>(x.n) * p * q, inputs = static_cast<int>(x.n) * h * w, taps = r * s;
    rows = direction == Direction::forward ? outputs : direction == Direction::d_input ? inputs : filters;
    columns = direction == Direction::forward ? filters : direction == Direction::d_input ? channels : taps * channels;
    depth = direction == Direction::forward   ? taps * channels
            : direction == Direction::d_input ? taps * filters
                                              : outputs;
  }

  /// Which matrix runs along its depth in memory; the others run along their rows.
  static constexpr bool a_deep = direction != Direction::d_weight, b_deep = direction == Direction::forward;
  /// Whether eight numbers that follow each other in that direction follow each other in memory.
  bool a_packs() const { return (direction == Direction::forward ? channels : filters) % pack == 0; }
  bool b_packs() const { return channels % pack == 0; }

  /// Element in its tensor, -1 where it lies in padding.
  HALFTONE_DEVICE std::int64_t a(int group, int m, int depth) const {
    if constexpr (direction == Direction::forward) return input(group, m, depth);
    if constexpr (direction == Direction::d_input) return output(group, m, depth);
    if constexpr (direction == Direction::d_weight) return std::int64_t{depth} * k + group * filters + m;
  }
  HALFTONE_DEVICE std::int64_t b(int group, int n, int depth) const {
    if constexpr (direction == Direction::forward) return std::int64_t{group * filters + n} * this->depth + depth;
    if constexpr (direction == Direction::d_input) {
      const int filter = depth % filters, tap = depth / filters;
      return (std::int64_t{group * filters + filter} * (r * s) + tap) * channels + n;
    }
    if constexpr (direction == Direction::d_weight) return input(group, depth, n);
  }
  HALFTONE_DEVICE std::int64_t result(int group, int m, int n) const {
    if constexpr (direction == Direction::forward) return std::int64_t{m} * k + group * filters + n;
    if constexpr (direction == Direction::d_input) return std::int64_t{m} * c + group * channels + n;
    if constexpr (direction == Direction::d_weight) return std::int64_t{group * filters + m} * columns + n;
  }

 private:
  /// In x, what output pixel `pixel` sees by `tap_channel`.
  HALFTONE_DEVICE std::int64_t input(int group, int pixel, int tap_channel) const {
    const int channel = tap_channel % channels, tap = tap_channel / channels;
    const int row = pixel / q % p * stride_h - pad_h + tap / s * dilation_h;
    const int column = pixel % q * stride_w - pad_w + tap % s * dilation_w;
    if (row < 0 || row >= h || column < 0 || column >= w) return -1;
    return ((std::int64_t{pixel / (p * q)} * h + row) * w + column) * c + group * channels + channel;
  }
  /// In d_output, what input pixel `pixel` was seen by through `tap_filter`.
  HALFTONE_DEVICE std::int64_t output(int group, int pixel, int tap_filter) const {
    const int filter = tap_filter % filters, tap = tap_filter / filters;
    const int row = pixel / w % h + pad_h - tap / s * dilation_h, column = pixel % w + pad_w - tap % s * dilation_w;
    if (row < 0 || row % stride_h != 0 || row / stride_h >= p) return -1;
    if (column < 0 || column % stride_w != 0 || column / stride_w >= q) return -1;
    return ((std::int64_t{pixel / (h * w)} * p + row / stride_h) * q + column / stride_w) * k + group * filters +
           filter;
  }
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

/// What becomes of a sum: written at once with bias and activation, or left to be added to those of other parts.
struct Result {
  Sink<Any> y;
  Source<Any> bias;
  bool has_bias = false;
  Epilogue activation;
  float* partials = nullptr;  ///< [parts, results], where there are any
  std::int64_t count = 0;     ///< results

  HALFTONE_DEVICE float bias_of(int channel) const { return has_bias ? bias[channel] : 0.0f; }
  HALFTONE_DEVICE void write(int part, std::int64_t i, float bias, float sum) const {
    if (partials) {
      partials[part * count + i] = sum;
    } else {
      y.write(i, activation.of(has_bias ? sum + bias : sum));
    }
  }
};

struct AddParts {
  static constexpr unsigned threads = 256;
  using Shared = NoShared;
  const float* partials;
  std::int64_t count;
  int parts;
  Sink<Any> y;
  HALFTONE_DEVICE void operator()(Shared&) const {
    const std::int64_t i = thread_number<AddParts>();
    if (i >= count) return;
    double sum = 0;
    for (int part = 0; part < parts; ++part) sum += static_cast<double>(partials[part * count + i]);
    y.write(i, static_cast<float>(sum));
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
  struct alignas(16) Shared {
    A a[2];
    B b[2];
  };
  using Unit = Pack<std::uint16_t, pack>;

  Where where;
  Tiling tiling;
  const std::uint16_t *a, *b;
  bool a_packs, b_packs;
  Result result;

  /// Eight numbers of a matrix [rows, depth] from (row, at) on along its memory; zeros outside of it.
  template <bool deep, class Index>
  HALFTONE_DEVICE static Unit load(const std::uint16_t* from, bool packs, int row, int rows, int at, int end,
                                   const Index& index) {
    Unit unit{};
    if (packs) {
      const std::int64_t i = row < rows && at < end ? index(row, at) : -1;
      if (i >= 0) unit = *reinterpret_cast<const Unit*>(from + i);
      return unit;
    }
    HALFTONE_UNROLL
    for (int e = 0; e < pack; ++e) {
      const int m = deep ? row : row + e, depth = deep ? at + e : at;
      const std::int64_t i = m < rows && depth < end ? index(m, depth) : -1;
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
      share.a[i] = load<Where::a_deep>(a, a_packs, row, where.rows, at, tile.end,
                                       [&](int m, int k) { return where.a(tile.group, m, k); });
    }
    HALFTONE_UNROLL
    for (int i = 0; i < B::each; ++i) {
      if (!place<B, Where::b_deep>(i, line, column)) break;
      const int row = tile.column + (Where::b_deep ? line : column), at = depth + (Where::b_deep ? column : line);
      share.b[i] = load<Where::b_deep>(b, b_packs, row, where.columns, at, tile.end,
                                       [&](int n, int k) { return where.b(tile.group, n, k); });
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
          multiply(shared.a[stage ^ 1], shared.b[stage ^ 1], k, warp_row, warp_column, lane, sums);
      }
      if (depth >= tile.end) break;
      put(share, shared.a[stage], shared.b[stage]);
      sync_block();
    }
    HALFTONE_UNROLL
    for (int j = 0; j < 2 * fragments; ++j) {
      const int n = tile.column + warp_column + j / 2 * 8 + lane % 4 * 2 + j % 2;
      if (n >= where.columns) continue;
      const float bias = result.bias_of(tile.group * where.filters + n);
      HALFTONE_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int m = tile.row + warp_row + i * 8 + lane / 4;
        if (m < where.rows)
          result.write(tile.part, where.result(tile.group, m, n), bias, sums[i / 2][j / 2][i % 2 * 2 + j % 2]);
      }
    }
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
  struct Shared {
    float a[tile_depth][tile + 1], b[tile_depth][tile + 1];
  };

  Matrices<direction> where;
  Tiling tiling;
  Source<Format> a, b;
  Result result;

  /// Number i of a tile [tile, tile_depth] in the order in which memory has a matrix.
  template <bool deep>
  HALFTONE_DEVICE static void place(int i, int& row, int& depth) {
    row = deep ? i / tile_depth : i % tile;
    depth = deep ? i % tile_depth : i / tile;
  }

  HALFTONE_DEVICE void operator()(Shared& shared) const {
    using Where = Matrices<direction>;
    const Tile own = tiling.template tile<tile, tile>(where.depth);
    const int thread = static_cast<int>(thread_index()), row0 = thread / 16, column0 = thread % 16;
    float sums[each][each] = {};
    for (int depth = own.first; depth < own.end; depth += tile_depth) {
      for (int i = thread; i < tile * tile_depth; i += static_cast<int>(threads)) {
        int row, k;
        place<Where::a_deep>(i, row, k);
        const std::int64_t in_a =
            own.row + row < where.rows && depth + k < own.end ? where.a(own.group, own.row + row, depth + k) : -1;
        shared.a[k][row] = in_a >= 0 ? a[in_a] : 0.0f;
        place<Where::b_deep>(i, row, k);
        const std::int64_t in_b = own.column + row < where.columns && depth + k < own.end
                                      ? where.b(own.group, own.column + row, depth + k)
                                      : -1;
        shared.b[k][row] = in_b >= 0 ? b[in_b] : 0.0f;
      }
      sync_block();
      for (int k = 0; k < tile_depth; ++k) {
        float of_a[each], of_b[each];
        HALFTONE_UNROLL
        for (int i = 0; i < each; ++i) {
          of_a[i] = shared.a[k][row0 + 16 * i];
          of_b[i] = shared.b[k][column0 + 16 * i];
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
    for (int j = 0; j < each; ++j) {
      const int n = own.column + column0 + 16 * j;
      if (n >= where.columns) continue;
      const float bias = result.bias_of(own.group * where.filters + n);
      HALFTONE_UNROLL
      for (int i = 0; i < each; ++i) {
        const int m = own.row + row0 + 16 * i;
        if (m < where.rows) result.write(own.part, where.result(own.group, m, n), bias, sums[i][j]);
      }
    }
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

/// Blocks that a weight gradient, whose results are few, is cut into at least, where its depth allows it.
constexpr int wanted_blocks = 264;

/// The launch of kernel(tiling, result, arguments) with tiles of that size.
template <Direction direction, class Kernel>
Launch cut(const Convolution& convolution, int tile_rows, int tile_columns, int tile_depth, Kernel kernel) {
  const Matrices<direction> where(convolution.problem);
  const int groups = convolution.problem.groups;
  const Tiling whole(where, groups, tile_rows, tile_columns, tile_depth, 1);
  const auto wanted_parts = static_cast<int>((wanted_blocks + whole.blocks() - 1) / whole.blocks());
  const Tiling tiling(where, groups, tile_rows, tile_columns, tile_depth,
                      direction == Direction::d_weight ? wanted_parts : 1);
  const bool in_parts = tiling.parts > 1;
  const auto& operands = convolution.operands;
  const std::int64_t count = operands.output.shape.elements();
  const auto run = [=, activation = Epilogue(convolution.activation)](const Arguments& a) {
    Result result;
    result.y = Sink<Any>(operands.output, a.outputs[0], a.state);
    result.has_bias = operands.inputs.size() > 2;
    if (result.has_bias) result.bias = Source<Any>(operands.inputs[2], a.inputs[2]);
    result.activation = activation;
    result.partials = in_parts ? static_cast<float*>(a.workspace) : nullptr;
    result.count = count;
    kernel(tiling, result, a);
    if (in_parts) enqueue(a, blocks_for<AddParts>(count), AddParts{result.partials, count, tiling.parts, result.y});
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
      [=](const Tiling& tiling, const Result& result, const Arguments& a) {
        enqueue(a, tiling.blocks(),
                Kernel{where, tiling, a.in<std::uint16_t>(input_a<direction>), a.in<std::uint16_t>(input_b<direction>),
                       where.a_packs(), where.b_packs(), result});
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

/// Results are computed with 32-bit positions of pixels and taps.
bool is_large(const ConvProblem& x) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max() / 2;
  return x.n * x.p * x.q > most || x.n * x.h * x.w > most || x.r * x.s * x.c > most || x.r * x.s * x.k > most;
}

}  // namespace

std::string decline_tensor_cores(const Convolution& convolution) {
  const Storage& storage = convolution.operands.inputs[0].storage;
  if (storage != DType::f16 && storage != DType::bf16) return "tensor cores take f16 or bf16 alone";
  if (convolution.operands.inputs[1].storage != storage) return "operands are stored in two ways";
  return decline_plain(convolution);
}

std::string decline_plain(const Convolution& convolution) {
  return is_large(convolution.problem) ? "more than 2^30 pixels" : "";
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
          [=](const Tiling& tiling, const Result& result, const Arguments& a) {
            const auto source = [&](std::size_t i) { return Source<decltype(format)>(inputs[i], a.inputs[i]); };
            enqueue(a, tiling.blocks(),
                    Kernel{where, tiling, source(input_a<direction>), source(input_b<direction>), result});
          });
    };
    return inputs[0].storage == DType::f32 && inputs[1].storage == DType::f32 ? as(F32{}) : as(Any{});
  });
}

}  // namespace halftone::cuda
