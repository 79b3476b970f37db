#include <gtest/gtest.h>

#include "halftone/graph/kernel.hpp"
#include "kernels/cuda/backend.hpp"

namespace halftone {
namespace {

TEST(CudaTable, ListsEveryOperationOfTheCpu) {
  const auto& own = cuda::kernel_table().all();
  for (const auto& [type, list] : cpu_device().backend().kernels().all())
    EXPECT_TRUE(own.contains(type)) << list.operation;
}

}  // namespace
}  // namespace halftone
