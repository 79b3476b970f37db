#include "halftone/tensor/eigen.hpp"

#include <gtest/gtest.h>

#include "halftone/tensor/error.hpp"

namespace halftone {
namespace {

TEST(Eigen, SeesTheSameNumbers) {
  const Tensor tensor(cpu_device(), {{2, 1, 1, 3}, DType::f32});
  tensor.view().write(std::vector<float>{1, 2, 3, 4, 5, 6});
  auto matrix = as_eigen(tensor.view());
  EXPECT_EQ(matrix.rows(), 2);
  EXPECT_EQ(matrix(1, 0), 4);
  matrix(1, 2) = 7;
  EXPECT_EQ(tensor.view().read()[5], 7);
}

TEST(Eigen, RefusesOtherFormats) {
  const Tensor tensor(cpu_device(), {{2, 1, 1, 3}, DType::f16});
  EXPECT_THROW(as_eigen(tensor.view()), Error);
}

}  // namespace
}  // namespace halftone
