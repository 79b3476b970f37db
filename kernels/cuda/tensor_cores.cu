#include "kernels/cuda/convolution.hpp"
#include "kernels/cuda/table.hpp"

namespace halftone::cuda {
namespace {

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

}  // namespace

std::string decline_tensor_cores(const Convolution& convolution) {
  const Storage& storage = convolution.operands.inputs[0].storage;
  if (storage != DType::f16 && storage != DType::bf16) return "tensor cores take f16 or bf16 alone";
  if (convolution.operands.inputs[1].storage != storage) return "operands are stored in two ways";
  return decline_plain(convolution);
}

Launch tensor_cores(const Convolution& convolution) {
  return with_direction(convolution.direction, [&](auto direction) {
    return convolution.operands.inputs[0].storage == DType::f16 ? on_tensor_cores<F16, direction()>(convolution)
                                                                : on_tensor_cores<BF16, direction()>(convolution);
  });
}

}  // namespace halftone::cuda
