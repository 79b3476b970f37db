#include "tests/kernels/harness.hpp"

namespace halftone::test {
namespace {

TEST(Harness, TellsTheFirstDifference) {
  const auto bytes = encoded({1, 2, 3}, DType::f16);
  EXPECT_EQ(first_difference(bytes, DType::f16, {1, 2, 3.0001}, {}), "");  // rounds to 3
  EXPECT_EQ(first_difference(bytes, DType::f16, {1, 2.01, 3.01}, {}), "element 1 is 2, not 2.01");
  EXPECT_EQ(first_difference(bytes, DType::f16, {1, 2.0039, 3}, {.output_epsilons = 2}), "");
  EXPECT_NE(first_difference(bytes, DType::f16, {1, 2.0041, 3}, {.output_epsilons = 2}), "");
  EXPECT_NE(first_difference(bytes, DType::f16, {1, 2, NAN}, {.output_epsilons = 100}), "");
  EXPECT_NE(first_difference(bytes, DType::f16, {1, 2}, {}), "");
}

TEST(Harness, BoundsWhatRoundingAtRandomGives) {
  const Storage storage = Storage::fixed(6, 2, Rounding::stochastic);
  const RandomKey key{1, 2, 3};
  const std::vector<float> values = random_values(100, 1);
  Doubles expected(values.begin(), values.end());
  const auto bytes = encoded(values, storage, key);
  EXPECT_EQ(first_difference(bytes, storage, expected, {}, key), "");
  EXPECT_NE(first_difference(bytes, storage, expected, {}, {}), "");  // other random numbers
  for (double& x : expected) x += 0.0625;
  EXPECT_NE(first_difference(bytes, storage, expected, {}, key), "");
  EXPECT_EQ(first_difference(bytes, storage, expected, {.f32_epsilons = 0x1p23, .scale = 0.0625}, key), "");
}

TEST(Harness, SeesWritesAroundABuffer) {
  for (std::size_t bytes : {0, 1, 63, 64, 65}) {
    for (int offset : {-64, -1, static_cast<int>(bytes), static_cast<int>(bytes) + 63}) {
      const Guarded buffer(cpu_device(), std::vector<unsigned char>(bytes, 0xff));
      EXPECT_TRUE(buffer.intact());
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64, 0u);
      static_cast<unsigned char*>(buffer.data())[offset] = 0;
      EXPECT_FALSE(buffer.intact()) << bytes << " " << offset;
    }
  }
}

}  // namespace
}  // namespace halftone::test
