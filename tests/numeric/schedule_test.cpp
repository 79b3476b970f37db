#include "halftone/numeric/schedule.hpp"

#include <gtest/gtest.h>

namespace halftone {
namespace {

TEST(Schedule, Shapes) {
  const Schedule cycle = Schedule::one_cycle(1, 100);
  EXPECT_FLOAT_EQ(cycle.at(0), 0.04f);
  EXPECT_FLOAT_EQ(cycle.at(25), 1);
  EXPECT_FLOAT_EQ(cycle.at(100), 0);
  const Schedule triangle = Schedule::one_cycle(2, 100, 20, 0.5f, 0.25f);
  EXPECT_FLOAT_EQ(triangle.at(0), 0.5f);
  EXPECT_FLOAT_EQ(triangle.at(10), 1.25f);
  EXPECT_FLOAT_EQ(triangle.at(20), 2);
  EXPECT_FLOAT_EQ(triangle.at(60), 1.125f);
  EXPECT_FLOAT_EQ(triangle.at(100), 0.25f);
  EXPECT_FLOAT_EQ(Schedule::cosine(1, 100).at(50), 0.5f);
  EXPECT_FLOAT_EQ(Schedule::linear(1, 100).at(75), 0.25f);
  EXPECT_FLOAT_EQ(Schedule::exponential(1, 0.01f, 100).at(50), 0.1f);
  EXPECT_FLOAT_EQ(Schedule::constant(1, 4).at(0), 0.2f);
  const Schedule steps = Schedule::step(1, std::vector<std::int64_t>{10, 20}, 0.1f);
  EXPECT_FLOAT_EQ(steps.at(9), 1);
  EXPECT_FLOAT_EQ(steps.at(10), 0.1f);
  EXPECT_FLOAT_EQ(steps.at(20), 0.01f);
}

}  // namespace
}  // namespace halftone
