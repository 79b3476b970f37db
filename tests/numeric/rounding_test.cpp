#include "halftone/numeric/rounding.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "halftone/numeric/storage.hpp"
#include "tests/numeric/type_lists.hpp"

namespace halftone {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// A number's code, rounded as a storage of this format does.
template <class Format>
typename Format::Code encode(float x, Rounding rounding, std::uint32_t random) {
  return Format::encode(Storage(Format::dtype, rounding).grid()(x, to_uniform(random)));
}

/// The format's numbers around `x`, found by going through the codes.
template <class Format>
std::pair<float, float> neighbours(float x) {
  float low = -Format::largest, high = Format::largest;
  for (int code = 0; code <= Format::largest_code; ++code) {
    for (const float sign : {1.0f, -1.0f}) {
      const float y = sign * Format::decode(static_cast<typename Format::Code>(code));
      if (y <= x) low = std::max(low, y);
      if (y >= x) high = std::min(high, y);
    }
  }
  return {low, high};
}

/// The mean of `round(random bits)` must lie within 5 sigma of `x`, and only `low` and `high` may appear.
template <class Round>
void expect_unbiased(float x, float low, float high, Round round) {
  constexpr int count = 20000;
  int ups = 0;
  for (int i = 0; i < count; ++i) {
    const float y = round(bits(1, 0, bit_cast<std::uint32_t>(x), i));
    ASSERT_TRUE(y == low || y == high) << x << " became " << y;
    ups += y == high && low != high;
  }
  const double p = low == high ? 0 : (double{x} - low) / (double{high} - low);
  EXPECT_NEAR(ups, count * p, 5 * std::sqrt(count * p * (1 - p)) + 1e-3) << x;
}

template <class Format>
struct Stochastic : testing::Test {};
TYPED_TEST_SUITE(Stochastic, test::SmallFormats);

TYPED_TEST(Stochastic, IsUnbiasedBetweenTheTwoNeighbours) {
  const float tiny = TypeParam::smallest;
  for (const float x : {1.001f, -1.3f, 3.14159f, 0.7f, 0.3f * tiny, -2.6f * tiny, 0.01f * tiny, 1.9f * tiny,
                        0.999f * TypeParam::largest}) {
    const auto [low, high] = neighbours<TypeParam>(x);
    expect_unbiased(x, low, high, [x](std::uint32_t random) {
      return TypeParam::decode(encode<TypeParam>(x, Rounding::stochastic, random));
    });
  }
}

TYPED_TEST(Stochastic, NeverMovesWhatTheFormatHas) {
  for (int code = 0; code <= TypeParam::largest_code; ++code) {
    const auto stored = static_cast<typename TypeParam::Code>(code);
    for (const std::uint32_t random : {0u, 0x80000000u, ~0u}) {
      ASSERT_EQ(encode<TypeParam>(TypeParam::decode(stored), Rounding::stochastic, random), stored);
      ASSERT_EQ(encode<TypeParam>(TypeParam::decode(stored), Rounding::toward_zero, random), stored);
    }
  }
}

TYPED_TEST(Stochastic, TowardZeroTakesTheNeighbourNearerZero) {
  std::mt19937 random(3);
  for (int i = 0; i < 200; ++i) {
    const float x = std::ldexp(1 + static_cast<float>(random()) * 0x1p-32f, static_cast<int>(random() % 24) - 16);
    if (x > TypeParam::largest) continue;
    const float low = neighbours<TypeParam>(x).first;
    EXPECT_EQ(TypeParam::decode(encode<TypeParam>(x, Rounding::toward_zero, 0)), low) << x;
    EXPECT_EQ(TypeParam::decode(encode<TypeParam>(-x, Rounding::toward_zero, 0)), -low) << x;
  }
  EXPECT_EQ(TypeParam::decode(encode<TypeParam>(0x1.fffffep127f, Rounding::toward_zero, 0)), TypeParam::largest);
}

TYPED_TEST(Stochastic, KeepsNanAndTheMeaningOfInfinity) {
  for (const Rounding rounding : {Rounding::nearest, Rounding::stochastic, Rounding::toward_zero}) {
    const float y = TypeParam::decode(encode<TypeParam>(std::nanf(""), rounding, ~0u));
    EXPECT_TRUE(test::has_specials<TypeParam> ? std::isnan(y) : y == TypeParam::largest);
    EXPECT_EQ(encode<TypeParam>(infinity, rounding, 0), TypeParam::encode(infinity));
    EXPECT_EQ(encode<TypeParam>(-infinity, rounding, ~0u), TypeParam::encode(-infinity));
  }
}

TEST(Stochastic16, FarBelowTheSmallestNumberTheMeanStillHolds) {
  // 2^-6 of the spacing: 2^16 draws see it 1024 times, give or take 5 * 32.
  int ups = 0;
  for (int i = 0; i < 1 << 16; ++i) ups += encode<F16>(0x1p-30f, Rounding::stochastic, bits(5, 0, 0, i));
  EXPECT_NEAR(ups, 1024, 160);
  EXPECT_EQ(encode<F16>(0x1p-36f, Rounding::stochastic, 0xfff00000u), 1);  // 2^-12 of all draws
  EXPECT_EQ(encode<F16>(0x1p-36f, Rounding::stochastic, 0xffefffffu), 0);
  EXPECT_EQ(encode<F16>(0x1p-149f, Rounding::stochastic, ~0u), 0);
  EXPECT_EQ(encode<E4M3>(0x1p-41f, Rounding::stochastic, ~0u), 0);
}

TEST(StochasticInteger, IsUnbiased) {
  expect_unbiased(7.3f, 7, 8, [](std::uint32_t r) { return U8::decode(encode<U8>(7.3f, Rounding::stochastic, r)); });
  expect_unbiased(-7.3f, -8, -7,
                  [](std::uint32_t r) { return I32::decode(encode<I32>(-7.3f, Rounding::stochastic, r)); });
  EXPECT_EQ(encode<I32>(8388609.0f, Rounding::stochastic, ~0u), 8388609);
  EXPECT_EQ(encode<F32>(0.1f, Rounding::stochastic, ~0u), 0.1f);
}

/// Any f32 number, and often one in the range of small formats.
float any_number(std::mt19937& random) {
  const std::uint32_t bits = random();
  return bit_cast<float>(bits & 1 ? bits : (bits & 0x8fffffffu) | 0x30000000u);
}

/// What becomes of x in a format, in double, where all of this is exact.
template <class Format>
float rounded(float x, Rounding rounding, float u, Overflow overflow) {
  if (std::isnan(x)) return x;
  const float end = overflow == Overflow::saturate ? Format::largest : infinity;
  if (std::isinf(x)) return std::copysign(end, x);
  const double magnitude = std::abs(double{x});
  const double own = x == 0 ? 0 : std::ldexp(double{Format::epsilon}, std::ilogb(x));
  const double spacing = std::max(own, double{Format::smallest});
  const double whole = std::floor(magnitude / spacing), rest = magnitude / spacing - whole;
  const bool odd = std::fmod(whole, 2) != 0;
  const bool up = rounding == Rounding::stochastic
                      ? u + rest >= 1
                      : rounding == Rounding::nearest && (rest > 0.5 || (rest == 0.5 && odd));
  const double y = (whole + up) * spacing;
  if (y > Format::largest) return std::copysign(rounding == Rounding::toward_zero ? Format::largest : end, x);
  return std::copysign(static_cast<float>(y), x);
}

template <class Format>
void expect_same_as_format(Grid grid, Overflow overflow = Format::overflow) {
  std::mt19937 random(7);
  for (const Rounding rounding : {Rounding::nearest, Rounding::stochastic, Rounding::toward_zero}) {
    grid.rounding = rounding;
    for (int i = 0; i < 200000; ++i) {
      const float x = any_number(random);
      const float u = to_uniform(random() & 0xffffff00u);
      const float expected = rounded<Format>(x, rounding, u, overflow), y = grid(x, u);
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(y));
      } else {
        ASSERT_EQ(bit_cast<std::uint32_t>(y), bit_cast<std::uint32_t>(expected)) << x << ' ' << u;
        if (overflow == Format::overflow && rounding == Rounding::nearest) {
          ASSERT_EQ(Format::decode(Format::encode(x)), expected) << x;
        }
        if (overflow == Format::overflow) {
          ASSERT_EQ(Format::decode(Format::encode(y)), expected) << x;
        }
      }
    }
  }
}

template <class... Format>
void expect_grids_of(testing::Types<Format...>) {
  const auto check = [](auto format, Overflow overflow) {
    using F = decltype(format);
    SCOPED_TRACE(F::name);
    Storage storage(F::dtype);
    storage.overflow = overflow;
    expect_same_as_format<F>(storage.grid(), overflow);
  };
  (check(Format{}, Overflow::saturate), ...);
  (check(Format{}, Overflow::infinity), ...);
}

TEST(Storage, RoundsToTheNumbersOfItsFormat) { expect_grids_of(test::SmallFormats{}); }

TEST(Storage, EndsWhereItsFormatDoes) {
  for (std::size_t i = 0; i < Formats::size; ++i)
    visit_format(static_cast<DType>(i), [](auto format) {
      for (const float x : {-1e6f, -40000.0f, -200.0f, -1.0f, 0.25f, 1.0f, 200.0f, 40000.0f, 1e6f})
        EXPECT_EQ(Storage(format.dtype).grid()(x, 0), format.decode(format.encode(x))) << format.name << ' ' << x;
    });
}

TEST(Grid, FloatingIsTheFormatOfTheSameWidths) {
  expect_same_as_format<F16>(Grid::floating(5, 10));
  expect_same_as_format<BF16>(Grid::floating(8, 7));
  expect_same_as_format<F32>(Grid::floating(8, 23));
  Grid e5m2 = Grid::floating(5, 2);
  e5m2.saturate = true;
  expect_same_as_format<E5M2>(e5m2);
}

TEST(Grid, FixedRoundsAndSaturates) {
  const Grid grid = Grid::fixed(8, 8);
  EXPECT_EQ(grid(1.0f, 0), 1);
  EXPECT_EQ(grid(0x1p-9f, 0), 0);
  EXPECT_EQ(grid(3 * 0x1p-9f, 0), 0x1p-7f);
  EXPECT_EQ(grid(-3.1f, 0), -794 * 0x1p-8f);
  EXPECT_EQ(grid(127.999f, 0), 128 - 0x1p-8f);
  EXPECT_EQ(grid(1e30f, 0), 128 - 0x1p-8f);
  EXPECT_EQ(grid(-infinity, 0), -128);
  EXPECT_TRUE(std::isnan(grid(std::nanf(""), 0)));
  EXPECT_EQ(Grid::fixed(8, 8, Rounding::toward_zero)(-3.999f, 0), -1023 * 0x1p-8f);
  EXPECT_EQ(Grid::fixed(16, 16)(1e9f, 0), std::nextafter(32768.0f, 0.0f));
  EXPECT_EQ(Grid::fixed(16, 16)(-1e9f, 0), -32768);
}

TEST(Grid, EveryNumberOfAFixedGridStays) {
  for (const Rounding rounding : {Rounding::nearest, Rounding::stochastic, Rounding::toward_zero}) {
    const Grid grid = Grid::fixed(4, 12, rounding);
    for (int i = -(1 << 15); i < 1 << 15; ++i) {
      const float x = static_cast<float>(i) * 0x1p-12f;
      ASSERT_EQ(grid(x, 0), x);
      ASSERT_EQ(grid(x, 1 - 0x1p-24f), x);
    }
  }
}

TEST(Grid, FixedIsUnbiasedWhereStochastic) {
  const Grid grid = Grid::fixed(8, 4, Rounding::stochastic);
  for (const float x : {0.01f, -0.01f, 1.1f, -1.1f, 99.99f}) {
    expect_unbiased(x, std::floor(x * 16) / 16, std::ceil(x * 16) / 16,
                    [&](std::uint32_t random) { return grid(x, to_uniform(random)); });
  }
}

TEST(Grid, PowersOfTwo) {
  const Grid grid = Grid::power_of_two();
  for (const auto& [x, y] : {std::pair{1.0f, 1.0f},
                             {1.49f, 1.0f},
                             {1.51f, 2.0f},
                             {-3.1f, -4.0f},
                             {0.0f, 0.0f},
                             {0.3f, 0.25f},
                             {1e38f, 0x1p126f},
                             {infinity, 0x1p127f}}) {
    EXPECT_EQ(grid(x, 0), y) << x;
  }
  expect_unbiased(-2.5f, -4, -2, [](std::uint32_t random) {
    return Grid::power_of_two(Rounding::stochastic)(-2.5f, to_uniform(random));
  });
}

TEST(Grid, Binary) {
  const Grid grid = Grid::binary();
  EXPECT_EQ(grid(0.001f, 0), 1);
  EXPECT_EQ(grid(0.0f, 0), 1);
  EXPECT_EQ(grid(-0.001f, 0), -1);
  EXPECT_TRUE(std::isnan(grid(std::nanf(""), 0)));
  for (const float x : {-1.0f, -0.5f, 0.0f, 0.9f, 1.0f}) {
    expect_unbiased(x, -1, 1,
                    [x](std::uint32_t random) { return Grid::binary(Rounding::stochastic)(x, to_uniform(random)); });
  }
}

}  // namespace
}  // namespace halftone
