#include "halftone/inspect/histogram.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <vector>

namespace halftone {
namespace {

TEST(ExponentHistogram, CountsAsFrexpDoes) {
  std::mt19937 random(3);
  std::vector<float> numbers;
  std::map<int, std::int64_t> expected;
  std::int64_t zeros = 0, nonfinite = 0;
  for (int i = 0; i < 100'003; ++i) {
    const float x = bit_cast<float>(static_cast<std::uint32_t>(random()) & (i % 17 == 0 ? 0x80000000u : ~0u));
    numbers.push_back(x);
    int exponent = 0;
    std::frexp(x, &exponent);
    zeros += x == 0;
    nonfinite += !std::isfinite(x);
    if (x != 0 && std::isfinite(x)) ++expected[std::max(exponent - 1, ExponentHistogram::lowest)];
  }
  ExponentHistogram seen;
  seen.add(std::span(numbers).first(50'000));
  ExponentHistogram rest;
  rest.add(std::span(numbers).subspan(50'000));
  seen.add(rest);
  for (int e = ExponentHistogram::lowest; e <= ExponentHistogram::highest; ++e)
    EXPECT_EQ(seen.count(e), expected[e]) << e;
  EXPECT_EQ(seen.zeros(), zeros);
  EXPECT_EQ(seen.nonfinite(), nonfinite);
  EXPECT_EQ(seen.numbers(), 100'003);
}

TEST(ExponentHistogram, TellsLargestSharesAndEnergy) {
  ExponentHistogram seen;
  seen.add(std::vector<float>{0, -6, 1, 0.5f, 0.75f, std::numeric_limits<float>::infinity(), 0x1p-149f});
  EXPECT_EQ(seen.largest(), 6);
  EXPECT_EQ(seen.zero_share(), 1.0 / 7);
  EXPECT_EQ(seen.share_below(0), 3.0 / 5);
  EXPECT_EQ(seen.share_below(-1), 1.0 / 5);
  EXPECT_NEAR(seen.energy(), 2.25 * (16 + 1 + 0.25 + 0.25), 1e-12);
}

TEST(StorageRange, IsThatOfTheFormats) {
  ExponentHistogram seen;
  seen.add(std::vector<float>{3});
  const auto range = [&](const Storage& storage) {
    const StorageRange r = range_of(storage, seen);
    return std::pair(r.lowest, r.highest);
  };
  EXPECT_EQ(range(DType::f16), std::pair(-24, 15));
  EXPECT_EQ(range(DType::bf16), std::pair(-133, 127));
  EXPECT_EQ(range(DType::e4m3), std::pair(-9, 8));
  EXPECT_EQ(range(Storage::fixed(6, 10)), std::pair(-10, 4));
  EXPECT_EQ(range(Storage::scaled(DType::e4m3)), std::pair(-16, 1)) << "its largest power of two is that of 3";
}

}  // namespace
}  // namespace halftone
