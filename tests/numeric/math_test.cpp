#include "halftone/numeric/math.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace halftone {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// The largest error over all f32 numbers, taken in strides, in units of the last place of the exact value.
template <class Ours, class Exact>
double worst_ulp(Ours ours, Exact exact) {
  double worst = 0;
  for (std::uint64_t i = 0; i < 1ull << 32; i += 4099) {
    const float x = bit_cast<float>(static_cast<std::uint32_t>(i));
    if (std::isnan(x)) continue;
    const double y = exact(double{x});
    const float y32 = static_cast<float>(y);
    if (std::isinf(y32) || y == 0) {
      EXPECT_EQ(ours(x), y32) << x;
      continue;
    }
    const double ulp = std::ldexp(1.0, std::max(std::ilogb(y), -126) - 23);
    worst = std::max(worst, std::abs(ours(x) - y) / ulp);
  }
  return worst;
}

TEST(Math, ExpIsRightToTheLastPlace) {
  EXPECT_LT(worst_ulp([](float x) { return math::exp(x); }, [](double x) { return std::exp(x); }), 1.5);
  EXPECT_EQ(math::exp(0), 1);
  EXPECT_EQ(math::exp(infinity), infinity);
  EXPECT_EQ(math::exp(-infinity), 0);
  EXPECT_EQ(math::exp(std::nextafter(88.72284f, 89.0f)), infinity);
  EXPECT_TRUE(std::isnan(math::exp(std::nanf(""))));
}

TEST(Math, TanhIsWithinThreePlaces) {
  EXPECT_LT(worst_ulp([](float x) { return math::tanh(x); }, [](double x) { return std::tanh(x); }), 3);
  EXPECT_EQ(math::tanh(infinity), 1);
  EXPECT_EQ(math::tanh(-infinity), -1);
  EXPECT_TRUE(std::signbit(math::tanh(-0.0f)));
  EXPECT_TRUE(std::isnan(math::tanh(std::nanf(""))));
}

TEST(Math, ErfIsWithinThreePlaces) {
  EXPECT_LT(worst_ulp([](float x) { return math::erf(x); }, [](double x) { return std::erf(x); }), 3);
  EXPECT_EQ(math::erf(infinity), 1);
  EXPECT_EQ(math::erf(-infinity), -1);
  EXPECT_TRUE(std::isnan(math::erf(std::nanf(""))));
}

TEST(Math, LogOfOneAndAShareIsWithinFourPlaces) {
  const auto in_range = [](auto f) { return [f](auto x) { return x >= 0 && x <= 1 ? f(x) : 0; }; };
  EXPECT_LT(
      worst_ulp(in_range([](float x) { return math::log1p(x); }), in_range([](double x) { return std::log1p(x); })), 4);
  EXPECT_TRUE(std::isnan(math::log1p(std::nanf(""))));
}

TEST(Math, RoundsAndTruncatesLikeTheStandardLibrary) {
  for (std::uint64_t i = 0; i < 1ull << 32; i += 8191) {
    const float x = bit_cast<float>(static_cast<std::uint32_t>(i));
    if (std::isnan(x)) continue;
    ASSERT_EQ(bit_cast<std::uint32_t>(math::round_even(x)), bit_cast<std::uint32_t>(std::nearbyint(x))) << x;
    ASSERT_EQ(bit_cast<std::uint32_t>(math::truncate(x)), bit_cast<std::uint32_t>(std::trunc(x))) << x;
  }
  EXPECT_EQ(math::round_even(2.5f), 2);
  EXPECT_EQ(math::round_even(-3.5f), -4);
  for (int n = -149; n < 128; ++n) EXPECT_EQ(math::power_of_two(n), std::ldexp(1.0f, n));
}

TEST(Math, ApproximatePowersOfTwoRoundTheLogarithm) {
  const auto bits_of_power = [](float x) { return bit_cast<std::uint32_t>(math::approximate_power_of_two(x)); };
  for (std::uint64_t i = 0; i < 1ull << 32; i += 4099) {
    const float x = bit_cast<float>(static_cast<std::uint32_t>(i));
    if (!std::isfinite(x) || x == 0) continue;
    const double power = std::min(std::exp2(std::round(std::log2(std::abs(double{x})))), 0x1p127);
    ASSERT_EQ(bits_of_power(x), bit_cast<std::uint32_t>(static_cast<float>(std::copysign(power, x)))) << x;
  }
  const float below = 1.41421354f, above = 1.41421366f;  // no f32 number is the root of 2
  EXPECT_EQ(std::nextafter(below, 2.0f), above);
  EXPECT_LT(double{below} * double{below}, 2);
  EXPECT_GT(double{above} * double{above}, 2);
  for (int n = -149; n < 128; ++n) {
    const float power = std::ldexp(1.0f, n);
    for (const float sign : {-1.0f, 1.0f}) {
      EXPECT_EQ(math::approximate_power_of_two(sign * power), sign * power);
      if (n < -126) continue;
      EXPECT_EQ(math::approximate_power_of_two(sign * power * below), sign * power);
      EXPECT_EQ(math::approximate_power_of_two(sign * power * above), sign * (n < 127 ? 2 * power : power));
    }
  }
  EXPECT_EQ(math::approximate_power_of_two(3 * 0x1p-149f), 0x1p-147f);
  EXPECT_EQ(math::approximate_power_of_two(5 * 0x1p-149f), 0x1p-147f);
  EXPECT_EQ(math::approximate_power_of_two(std::numeric_limits<float>::max()), 0x1p127f);
  for (const float x : {0.0f, -0.0f, infinity, -infinity}) EXPECT_EQ(bits_of_power(x), bit_cast<std::uint32_t>(x));
  EXPECT_TRUE(std::isnan(math::approximate_power_of_two(std::nanf(""))));
  EXPECT_TRUE(std::isnan(math::approximate_power_of_two(-std::nanf(""))));
}

}  // namespace
}  // namespace halftone
