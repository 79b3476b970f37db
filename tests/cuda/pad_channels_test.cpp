#include <gtest/gtest.h>

#include "halftone/tensor/device.hpp"
#include "kernels/cuda/agreement.hpp"
#include "kernels/cuda/table.hpp"

namespace halftone::cuda {
namespace {

Convolution of(Direction direction, std::int64_t c, DType type = DType::f16, std::int64_t n = 2) {
  const ConvProblem problem{
      .n = n, .h = 7, .w = 6, .c = c, .k = 16, .r = 3, .s = 3, .p = 7, .q = 6, .pad_h = 1, .pad_w = 1};
  const ValueSpec x{{n, 7, 6, c}, type}, weight{{16, 3, 3, c}, type}, y{{n, 7, 6, 16}, type};
  if (direction == Direction::forward) return {problem, direction, {{x, weight, {{1, 1, 1, 16}, type}}, y}, Relu()};
  return {problem, direction, {{x, y}, weight}};
}

TEST(PadChannels, ChangesNoResult) {
  const Device device = cuda_device();
  Driver& driver = *static_cast<Driver*>(device.backend().stream());
  for (const DType type : {DType::f16, DType::bf16}) {
    for (const std::int64_t c : {1, 3, 5, 6}) {
      SCOPED_TRACE(testing::Message() << name_of(type) << ", " << c << " channels");
      const Convolution narrow = of(Direction::forward, c, type);
      const Agreement agreement(driver, narrow);
      EXPECT_EQ(agreement.differs(with_padded_channels(plain(padded_channels(narrow)), narrow)), "");
      EXPECT_NE(agreement.differs(with_padded_channels(plain(narrow), narrow)), "");
    }
  }
}

TEST(PadChannels, IsForLargeFirstLayersInSixteenBits) {
  constexpr std::int64_t many = 1 << 14;
  EXPECT_TRUE(wants_padded_channels(of(Direction::forward, 3, DType::f16, many)));
  EXPECT_TRUE(wants_padded_channels(of(Direction::forward, 1, DType::bf16, 2 * many)));
  EXPECT_FALSE(wants_padded_channels(of(Direction::d_weight, 3, DType::f16, many)));
  EXPECT_FALSE(wants_padded_channels(of(Direction::forward, 3, DType::f16, 2)));
  EXPECT_FALSE(wants_padded_channels(of(Direction::forward, 4, DType::f16, many)));
  EXPECT_FALSE(wants_padded_channels(of(Direction::forward, 3, DType::f32, many)));
}

}  // namespace
}  // namespace halftone::cuda
