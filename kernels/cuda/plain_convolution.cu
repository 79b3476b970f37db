#include "kernels/cuda/convolution.hpp"
#include "kernels/cuda/table.hpp"

namespace halftone::cuda {
namespace {

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
        shared.in.a[k][row] =
            own.row + row < where.rows && depth + k < own.end ? number(a, matrix_a, own.row + row, depth + k) : 0.0f;
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

/// Positions of pixels and taps, and of numbers in an image, have 32 bits.
bool is_large(const ConvProblem& x) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max() / 2;
  return x.n * x.p * x.q > most || x.n * x.h * x.w > most || x.r * x.s * x.c > most || x.r * x.s * x.k > most ||
         x.h * x.w * x.c > most || x.p * x.q * x.k > most;
}

}  // namespace

std::string decline_plain(const Convolution& convolution) {
  return is_large(convolution.problem) ? "more than 2^30 pixels, or numbers in an image" : "";
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
            enqueue(
                a, tiling.blocks(),
                Kernel{where, tiling, source(input_a<direction>), source(input_b<direction>), finish, partials, count});
          });
    };
    return inputs[0].storage == DType::f32 && inputs[1].storage == DType::f32 ? as(F32{}) : as(Any{});
  });
}

}  // namespace halftone::cuda
