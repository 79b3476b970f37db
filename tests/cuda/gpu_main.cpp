#include <gtest/gtest.h>

#include <cstdio>

#include "halftone/tensor/device.hpp"
#include "kernels/cuda/cudnn.hpp"

/// Status 77 where there is no GPU.
int main(int count, char** arguments) {
  testing::InitGoogleTest(&count, arguments);
  const halftone::CudaStatus cuda = halftone::cuda_status();
  if (cuda.devices == 0 && !testing::GTEST_FLAG(list_tests))
    return std::printf("skipped: %s\n", cuda.why_none.c_str()), 77;
#if defined(HALFTONE_HAS_CUDNN)  // for tests that ask cuDNN where this GPU is not
  if (cuda.devices > 0 && halftone::cuda::why_no_cudnn().empty())
    std::printf("cuDNN sees %s\n", halftone::cuda::cudnn_device_text(0).c_str());
#endif
  return RUN_ALL_TESTS();
}
