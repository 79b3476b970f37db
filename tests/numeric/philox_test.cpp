#include "halftone/numeric/philox.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace halftone {
namespace {

using Words = std::array<std::uint32_t, 4>;

// The published known answers of Random123 for philox4x32 with 10 rounds: zeros, ones, digits of pi.
TEST(Philox, GivesTheKnownAnswers) {
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, EveryPartOfTheAddressCounts) {
  std::set<std::uint32_t> seen;
  int drawn = 0;
  for (const std::uint64_t seed : {0ull, 1ull, 1ull << 32}) {
    for (const std::uint64_t step : {0ull, 1ull, 1ull << 32}) {
      for (const std::uint32_t node : {0u, 1u}) {
        for (const std::uint64_t element : {0ull, 1ull, 2ull, 3ull, 4ull, 1ull << 33}) {
          seen.insert(bits(seed, step, node, element));
          ++drawn;
        }
      }
    }
  }
  EXPECT_EQ(static_cast<int>(seen.size()), drawn);
}

TEST(Philox, ABlockIsFourElements) {
  for (std::uint64_t element = 0; element < 64; ++element) {
    EXPECT_EQ(bits(7, 8, 9, element), block_bits(7, 8, 9, element / 4)[element % 4]);
  }
}

TEST(Uniform, StaysBelowOneAndFillsTheInterval) {
  EXPECT_EQ(to_uniform(~0u), 1 - 0x1p-24f);
  EXPECT_EQ(to_uniform(0), 0);
  constexpr int count = 1 << 18, bins = 64;
  double sum = 0, chi_square = 0;
  int histogram[bins] = {};
  for (int i = 0; i < count; ++i) {
    const float u = uniform(1, 2, 3, i);
    sum += u;
    ++histogram[static_cast<int>(u * bins)];
  }
  constexpr double expected = double{count} / bins;
  for (const int n : histogram) chi_square += (n - expected) * (n - expected) / expected;
  EXPECT_NEAR(sum / count, 0.5, 5 * std::sqrt(1.0 / 12 / count));
  EXPECT_NEAR(chi_square, bins - 1, 5 * std::sqrt(2.0 * (bins - 1)));
}

}  // namespace
}  // namespace halftone
