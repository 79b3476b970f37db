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

TEST(Math, LogOfOneAndAShareIsWithinThreePlaces) {
  const auto in_range = [](auto f) { return [f](auto x) { return x >= 0 && x <= 1 ? f(x) : 0; }; };
  EXPECT_LT(
      worst_ulp(in_range([](float x) { return math::log1p(x); }), in_range([](double x) { return std::log1p(x); })), 3);
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

}  // namespace
}  // namespace halftone
