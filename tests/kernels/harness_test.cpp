#include "tests/kernels/harness.hpp"

namespace halftone::test {
namespace {

TEST(Harness, TellsTheFirstDifference) {
  const auto stored = encoded({1, 2, 3}, DType::f16);
  EXPECT_EQ(first_difference(stored, DType::f16, {1, 2, 3.0001}, {}), "");  // rounds to 3
  EXPECT_EQ(first_difference(stored, DType::f16, {1, 2.01, 3.01}, {}), "element 1 is 2, not 2.01");
  EXPECT_EQ(first_difference(stored, DType::f16, {1, 2.0039, 3}, {.output_epsilons = 2}), "");
  EXPECT_NE(first_difference(stored, DType::f16, {1, 2.0041, 3}, {.output_epsilons = 2}), "");
  EXPECT_NE(first_difference(stored, DType::f16, {1, 2, NAN}, {.output_epsilons = 100}), "");
  EXPECT_NE(first_difference(stored, DType::f16, {1, 2}, {}), "");
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
