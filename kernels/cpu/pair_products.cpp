#include "kernels/cpu/pair_products.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "halftone/numeric/formats.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/pair_products.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#if HWY_TARGET == HWY_AVX3
#include <immintrin.h>
#endif

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {
namespace {

constexpr std::int64_t width = PairProducts::width;

/// Subnormal numbers are zero to both units, before and after.
inline float flushed(float x) {
  return bit_cast<float>(bit_cast<std::uint32_t>(x) & 0x7f800000 ? bit_cast<std::uint32_t>(x)
                                                                 : bit_cast<std::uint32_t>(x) & 0x80000000);
}
inline float first_of(std::uint32_t pair) { return flushed(bit_cast<float>(pair << 16)); }
inline float second_of(std::uint32_t pair) { return flushed(bit_cast<float>(pair & 0xffff0000)); }

/// Products of bf16 numbers are exact in f32, but for its range, so that a sum is rounded once, fused or not.
struct EmulatedDot {
  static constexpr int height = 2;  // of a block of two panels; more would take the compiler long
  struct Vector {
    float lane[width];
  };
  struct Pairs {
    std::uint32_t lane[width];
  };
  static Vector zero() { return {}; }
  static Pairs load(const std::uint16_t* from) {
    Pairs pairs;
    std::memcpy(&pairs, from, sizeof pairs);
    return pairs;
  }
  static Pairs repeat(const std::uint16_t* from) {
    Pairs pairs;
    for (std::uint32_t& pair : pairs.lane) std::memcpy(&pair, from, sizeof pair);
    return pairs;
  }
  static Vector multiply_add(const Pairs& left, const Pairs& right, Vector sum) {
    for (std::int64_t i = 0; i < width; ++i) {
      sum.lane[i] = flushed(second_of(left.lane[i]) * second_of(right.lane[i]) + flushed(sum.lane[i]));
      sum.lane[i] = flushed(first_of(left.lane[i]) * first_of(right.lane[i]) + sum.lane[i]);
    }
    return sum;
  }
  static void store(const Vector& sum, bool add, float* to) {
    for (std::int64_t i = 0; i < width; ++i) to[i] = (add ? to[i] : 0) + sum.lane[i];
  }
};

/// Eight tiles of 16 rows of 64 bytes.
struct EmulatedTiles {
  struct Tile {
    std::uint32_t word[16][16];
  };
  Tile tiles[8];

  template <int tile>
  void zero() {
    tiles[tile] = {};
  }
  template <int tile>
  void load(const void* from, std::int64_t bytes_apart) {
    for (int i = 0; i < 16; ++i)
      std::memcpy(tiles[tile].word[i], static_cast<const std::byte*>(from) + i * bytes_apart, 64);
  }
  template <int tile>
  void store(void* to, std::int64_t bytes_apart) {
    for (int i = 0; i < 16; ++i) std::memcpy(static_cast<std::byte*>(to) + i * bytes_apart, tiles[tile].word[i], 64);
  }
  /// Chains of all first and of all second numbers, then their sum.
  template <int sum, int left, int right>
  void multiply_add() {
    for (int i = 0; i < 16; ++i) {
      float first[16] = {}, second[16] = {};
      for (int p = 0; p < 16; ++p)
        for (int j = 0; j < 16; ++j) {
          const std::uint32_t a = tiles[left].word[i][p], b = tiles[right].word[p][j];
          first[j] = flushed(first_of(a) * first_of(b) + first[j]);
          second[j] = flushed(second_of(a) * second_of(b) + second[j]);
        }
      for (int j = 0; j < 16; ++j) {
        const float before = flushed(bit_cast<float>(tiles[sum].word[i][j]));
        tiles[sum].word[i][j] = bit_cast<std::uint32_t>(flushed(before + flushed(first[j] + second[j])));
      }
    }
  }
};

#if HWY_TARGET == HWY_AVX3
// As assembly, which needs neither the compiler's knowledge of the instructions nor its flags for them.
struct Dot {
  static constexpr int height = 12;  // 24 vectors of sums of 32 registers
  using Vector = __m512;
  using Pairs = __m512i;
  static HWY_INLINE Vector zero() { return _mm512_setzero_ps(); }
  static HWY_INLINE Pairs load(const std::uint16_t* from) { return _mm512_loadu_si512(from); }
  static HWY_INLINE Pairs repeat(const std::uint16_t* from) {
    int pair;
    std::memcpy(&pair, from, sizeof pair);
    return _mm512_set1_epi32(pair);
  }
  static HWY_INLINE Vector multiply_add(Pairs left, Pairs right, Vector sum) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(left), "v"(right));
    return sum;
  }
  static HWY_INLINE void store(Vector sum, bool add, float* to) {
    _mm512_storeu_ps(to, add ? _mm512_add_ps(_mm512_loadu_ps(to), sum) : sum);
  }
};

struct Tiles {
  Tiles() {
    struct alignas(64) {
      std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
      std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shape;
    asm volatile("ldtilecfg %0" ::"m"(shape));
  }
  ~Tiles() { asm volatile("tilerelease"); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
  template <int tile>
  void zero() {
    asm volatile("tilezero %%tmm%c0" ::"n"(tile));
  }
  template <int tile>
  void load(const void* from, std::int64_t bytes_apart) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"n"(tile), "r"(from), "r"(bytes_apart) : "memory");
  }
  template <int tile>
  void store(void* to, std::int64_t bytes_apart) {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"n"(tile), "r"(to), "r"(bytes_apart) : "memory");
  }
  template <int sum, int left, int right>
  void multiply_add() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"n"(sum), "n"(left), "n"(right));
  }
};
#else
using Dot = EmulatedDot;
using Tiles = EmulatedTiles;
#endif

/// c [height, panels * width] (+)= a b.
template <class Unit, int height, int panels>
void dot_block(std::int64_t depth, const std::uint16_t* a, std::int64_t a_stride, const std::uint16_t* b, bool add,
               float* c, std::int64_t c_stride) {
  constexpr int shared = 4;  // rows that one register addresses
  typename Unit::Vector sum[height][panels];
  const std::uint16_t* from[(height + shared - 1) / shared];
#pragma GCC unroll 16
  for (int i = 0; i < height; i += shared) from[i / shared] = a + i * a_stride;
#pragma GCC unroll 16
  for (int i = 0; i < height; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < panels; ++j) sum[i][j] = Unit::zero();
  }
  for (std::int64_t d = 0; d < depth; d += 2, b += 2 * width) {
    typename Unit::Pairs right[panels];
#pragma GCC unroll 2
    for (int j = 0; j < panels; ++j) right[j] = Unit::load(b + j * depth * width);
#pragma GCC unroll 16
    for (int i = 0; i < height; ++i) {
      const auto left = Unit::repeat(from[i / shared] + i % shared * a_stride);
#pragma GCC unroll 2
      for (int j = 0; j < panels; ++j) sum[i][j] = Unit::multiply_add(left, right[j], sum[i][j]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < height; i += shared) from[i / shared] += 2;
  }
#pragma GCC unroll 16
  for (int i = 0; i < height; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < panels; ++j) Unit::store(sum[i][j], add, c + i * c_stride + j * width);
  }
}

template <class Unit, int panels>
inline constexpr auto dot_blocks = []<int... i>(std::integer_sequence<int, i...>) {
  return std::array{&dot_block<Unit, i + 1, panels>...};
}
(std::make_integer_sequence<int, Unit::height * 2 / panels>());

template <class Unit>
void multiply_dots(std::int64_t rows, std::int64_t panels, std::int64_t depth, const std::uint16_t* a,
                   std::int64_t a_stride, const std::uint16_t* b, bool add, float* c, std::int64_t c_stride) {
  for (std::int64_t panel = 0; panel < panels; panel += 2) {
    const bool two = panel + 1 < panels;
    const auto* blocks = two ? dot_blocks<Unit, 2>.data() : dot_blocks<Unit, 1>.data();
    const std::int64_t most = two ? Unit::height : 2 * Unit::height, parts = (rows + most - 1) / most;
    for (std::int64_t part = 0; part < parts; ++part) {
      const std::int64_t first = rows * part / parts, end = rows * (part + 1) / parts;
      blocks[end - first - 1](depth, a + first * a_stride, a_stride, b + panel * depth * width, add,
                              c + first * c_stride + panel * width, c_stride);
    }
  }
}

/// c [rows * 16, panels * width] (+)= a b.
template <class Unit, int rows, int panels>
void tile_block(Unit& unit, std::int64_t depth, const std::uint16_t* a, std::int64_t a_stride, const std::uint16_t* b,
                bool add, float* c, std::int64_t c_stride) {
  const auto sum = [&]<int tile>(std::integral_constant<int, tile>, auto f) {
    if constexpr (tile / 2 < rows && tile % 2 < panels)
      f(std::integral_constant<int, tile>(), c + tile / 2 * 16 * c_stride + tile % 2 * width);
  };
  const auto sums = [&](auto f) {
    [&]<int... tile>(std::integer_sequence<int, tile...>) { (sum(std::integral_constant<int, tile>(), f), ...); }
    (std::make_integer_sequence<int, 4>());
  };
  sums([&]<int tile>(std::integral_constant<int, tile>, float* at) {
    if (add) unit.template load<tile>(at, c_stride * 4);
    if (!add) unit.template zero<tile>();
  });
  for (std::int64_t d = 0; d < depth; d += 32) {
    unit.template load<4>(a + d, a_stride * 2);
    if constexpr (rows > 1) unit.template load<5>(a + 16 * a_stride + d, a_stride * 2);
    unit.template load<6>(b + d * width, 64);
    if constexpr (panels > 1) unit.template load<7>(b + (depth + d) * width, 64);
    sums([&]<int tile>(std::integral_constant<int, tile>, float*) {
      unit.template multiply_add<tile, 4 + tile / 2, 6 + tile % 2>();
    });
  }
  sums([&]<int tile>(std::integral_constant<int, tile>, float* at) { unit.template store<tile>(at, c_stride * 4); });
}

template <class Unit>
void multiply_tiles(std::int64_t rows, std::int64_t panels, std::int64_t depth, const std::uint16_t* a,
                    std::int64_t a_stride, const std::uint16_t* b, bool add, float* c, std::int64_t c_stride) {
  Unit unit;
  for (std::int64_t panel = 0; panel < panels; panel += 2) {
    const bool two = panel + 1 < panels;
    const std::uint16_t* right = b + panel * depth * width;
    std::int64_t row = 0;
    for (; row + 32 <= rows; row += 32)
      (two ? &tile_block<Unit, 2, 2> : &tile_block<Unit, 2, 1>)(unit, depth, a + row * a_stride, a_stride, right, add,
                                                                c + row * c_stride + panel * width, c_stride);
    for (; row < rows; row += 16) {
      float rest[16 * 2 * width];
      float* to = c + row * c_stride + panel * width;
      const std::int64_t whole = std::min<std::int64_t>(rows - row, 16), used = two ? 2 * width : width;
      const auto block = two ? &tile_block<Unit, 1, 2> : &tile_block<Unit, 1, 1>;
      if (whole == 16) {
        block(unit, depth, a + row * a_stride, a_stride, right, add, to, c_stride);
        continue;
      }
      for (std::int64_t i = 0; add && i < whole; ++i) std::copy_n(to + i * c_stride, used, rest + i * 2 * width);
      block(unit, depth, a + row * a_stride, a_stride, right, add, rest, 2 * width);
      for (std::int64_t i = 0; i < whole; ++i) std::copy_n(rest + i * 2 * width, used, to + i * c_stride);
    }
  }
}

PairProducts products_of(PairUnit unit) {
  switch (unit) {
    case PairUnit::dot:
      return {2, multiply_dots<Dot>};
    case PairUnit::tile:
      return {32, multiply_tiles<Tiles>};
    case PairUnit::emulated_dot:
      return {2, multiply_dots<EmulatedDot>};
    case PairUnit::emulated_tile:
      break;
  }
  return {32, multiply_tiles<EmulatedTiles>};
}

}  // namespace
}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {

bool supported(PairUnit unit) {
  if (unit == PairUnit::dot) return supported(Isa::avx512_bf16);
  return unit != PairUnit::tile || supported(Isa::amx);
}

PairProducts pair_products(Isa isa, PairUnit unit) { return HALFTONE_PER_ISA(isa, products_of)(unit); }

}  // namespace halftone::cpu
#endif
