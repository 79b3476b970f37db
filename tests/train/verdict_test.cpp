#include "halftone/train/verdict.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "halftone/tensor/error.hpp"

namespace halftone {
namespace {

using Errors = std::vector<double>;
constexpr double chance = 0.9;

TEST(Verdict, SpreadIsThatOfASample) {
  const Errors errors = {0.02, 0.03, 0.07};
  EXPECT_NEAR(spread_of(errors).mean, 0.04, 1e-15);
  EXPECT_NEAR(spread_of(errors).deviation, std::sqrt(7e-4), 1e-15);  // (4 + 1 + 9) 1e-4 / 2
  EXPECT_EQ(spread_of(Errors{0.5}).deviation, 0);
}

/// By hand: variances of the means 1e-6 / 3 and 4e-6 / 3, so t has (5e-6 / 3)^2 / (17e-12 / 9 / 2) = 2.94 degrees of
/// freedom, rounded down to 2.
TEST(Verdict, TheIntervalIsWelchs) {
  const Comparison found = compare(Errors{0.031, 0.032, 0.033}, Errors{0.028, 0.030, 0.032}, chance);
  EXPECT_NEAR(found.difference, 0.002, 1e-15);
  EXPECT_NEAR(found.interval, 4.303 * std::sqrt(5e-6 / 3), 1e-12);
}

TEST(Verdict, TellsFineFromRiskyAndFails) {
  const Errors reference = {0.0100, 0.0104, 0.0096};
  const auto verdict = [&](const Errors& errors) { return compare(errors, reference, chance).verdict; };
  EXPECT_EQ(verdict(reference), Verdict::fine);
  EXPECT_EQ(verdict({0.0102, 0.0107, 0.0099}), Verdict::fine);
  EXPECT_EQ(verdict({0.0050, 0.0051, 0.0052}), Verdict::fine);  // better is no fault
  EXPECT_EQ(verdict({0.0140, 0.0142, 0.0144}), Verdict::risky);
  EXPECT_EQ(verdict({0.0100, 0.0104, 0.0300}), Verdict::risky) << "a seed far out buys itself no allowance";
  EXPECT_EQ(verdict({0.0100, 0.0104, 0.4000}), Verdict::risky);
  EXPECT_EQ(verdict({0.0220, 0.0230, 0.0240}), Verdict::fails);
  EXPECT_EQ(verdict({0.0100, 0.0104, 0.9020}), Verdict::fails);  // one run of three does not learn
  EXPECT_EQ(verdict({0.0100, 0.0104, std::nan("")}), Verdict::fails);
}

TEST(Verdict, OneSeedTellsOnlyWhatIsPlain) {
  EXPECT_EQ(compare(Errors{0.011}, Errors{0.010}, chance).verdict, Verdict::risky);
  EXPECT_EQ(compare(Errors{0.021}, Errors{0.010}, chance).verdict, Verdict::fails);
  EXPECT_EQ(compare(Errors{0.90}, Errors{0.010}, chance).verdict, Verdict::fails);
  EXPECT_TRUE(std::isinf(compare(Errors{0.011}, Errors{0.010}, chance).interval));
}

TEST(Verdict, TwiceTheErrorIsNeverFine) {
  EXPECT_EQ(compare(Errors{0.01, 0.44}, Errors{0.01, 0.01}, chance).verdict, Verdict::risky);
  EXPECT_EQ(compare(Errors{0.11, 0.11}, Errors{0.01, 0.10}, chance).verdict, Verdict::risky);  // within its deviation
}

TEST(Verdict, AReferenceWithoutErrorsIsNoDivisor) {
  const auto found = [&](const Errors& errors, const Errors& reference) { return compare(errors, reference, chance); };
  EXPECT_EQ(found({0, 0}, {0, 0}).verdict, Verdict::fine);
  EXPECT_EQ(found({0}, {0}).verdict, Verdict::risky);
  EXPECT_EQ(found({0.001}, {0}).verdict, Verdict::risky);
  EXPECT_EQ(found({0.0010, 0.0011}, {0, 0}).verdict, Verdict::fails);
  for (const auto& [errors, reference] : {std::pair(Errors{0}, Errors{0}), {{0.001}, {0}}, {{0.0010, 0.0011}, {0, 0}}})
    for (const char* word : {"nan", "inf"})
      EXPECT_EQ(found(errors, reference).reason.find(word), std::string::npos) << found(errors, reference).reason;
}

TEST(Verdict, AReferenceThatDoesNotLearnTellsNothing) {
  for (const Errors& errors : {Errors{0.01, 0.01}, Errors{0.9, 0.9}})
    EXPECT_EQ(compare(errors, Errors{0.9, 0.89}, chance).verdict, Verdict::risky);
  EXPECT_THROW(compare(Errors{}, Errors{0.1}, chance), Error);
}

}  // namespace
}  // namespace halftone
