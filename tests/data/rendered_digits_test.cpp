#include "halftone/data/rendered_digits.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "halftone/tensor/error.hpp"

namespace halftone {
namespace {

/// FNV-1a over pixels and labels.
std::uint64_t checksum(const Dataset& data) {
  std::uint64_t sum = 0xcbf29ce484222325;
  const auto add = [&](unsigned value) { sum = (sum ^ value) * 0x100000001b3; };
  for (const std::byte p : data.pixels) add(std::to_integer<unsigned>(p));
  for (const std::int32_t l : data.labels) add(static_cast<unsigned>(l));
  return sum;
}

TEST(RenderedDigits, AreTheSameBytesEverywhere) {
  const Dataset data = rendered_digits(Split::train, 100, 1);
  EXPECT_EQ(checksum(data), checksum(rendered_digits(Split::train, 100, 1)));
  EXPECT_EQ(checksum(data), 14583122046936530113u) << "another compiler or machine drew other bytes";
  EXPECT_TRUE(data.synthetic);
  EXPECT_EQ(data.name, "digits");
  EXPECT_EQ(data.image, (Shape{1, 28, 28, 1}));
}

TEST(RenderedDigits, DifferBySeedAndSplit) {
  const std::uint64_t sum = checksum(rendered_digits(Split::train, 20, 1));
  EXPECT_NE(sum, checksum(rendered_digits(Split::train, 20, 2)));
  EXPECT_NE(sum, checksum(rendered_digits(Split::test, 20, 1)));
}

TEST(RenderedDigits, AnImageDoesNotDependOnTheCount) {
  const Dataset few = rendered_digits(Split::test, 10), many = rendered_digits(Split::test, 50);
  EXPECT_TRUE(std::equal(few.pixels.begin(), few.pixels.end(), many.pixels.begin()));
  EXPECT_TRUE(std::equal(few.labels.begin(), few.labels.end(), many.labels.begin()));
}

TEST(RenderedDigits, HaveEveryClassAboutEquallyOften) {
  const Dataset data = rendered_digits(Split::train, 4000);
  const double expected = 400, deviation = std::sqrt(4000 * 0.1 * 0.9);
  for (int c = 0; c < 10; ++c)
    EXPECT_NEAR(static_cast<double>(std::count(data.labels.begin(), data.labels.end(), c)), expected, 5 * deviation);
}

TEST(RenderedDigits, HaveInkAndTheMeanAndDeviationTheyTell) {
  const Dataset data = rendered_digits(Split::train, 4000, 3);
  double sum = 0, squares = 0, squares_of_means = 0;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    double ink = 0;
    for (int p = 0; p < 784; ++p) {
      const double v = std::to_integer<int>(data.at(i)[p]) / 255.0;
      ink += v;
      squares += v * v;
    }
    EXPECT_GT(ink, 10) << "image " << i << " is blank";
    sum += ink;
    squares_of_means += ink / 784 * ink / 784;
  }
  const double images = static_cast<double>(data.size()), mean = sum / images / 784;
  const double error_of_mean = std::sqrt((squares_of_means / images - mean * mean) / images);
  EXPECT_NEAR(data.mean[0], mean, 5 * error_of_mean + 5e-5);  // the constant has four digits
  EXPECT_NEAR(data.stddev[0], std::sqrt(squares / images / 784 - mean * mean), 0.02 * data.stddev[0]);
}

TEST(RenderedDigits, RefuseToBeNone) { EXPECT_THROW(rendered_digits(Split::train, 0), Error); }

}  // namespace
}  // namespace halftone
