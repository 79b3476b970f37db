#include <gtest/gtest.h>

#include <cstdio>

#include "halftone/tensor/device.hpp"

/// Status 77 where there is no GPU.
int main(int count, char** arguments) {
  testing::InitGoogleTest(&count, arguments);
  const halftone::CudaStatus cuda = halftone::cuda_status();
  if (cuda.devices == 0 && !testing::GTEST_FLAG(list_tests))
    return std::printf("skipped: %s\n", cuda.why_none.c_str()), 77;
  return RUN_ALL_TESTS();
}
