#include <gtest/gtest.h>

#include "tests/cuda/training.hpp"
#include "tests/cuda_host/driver.hpp"

namespace halftone {
namespace {

using namespace test;

Device host_gpu(const std::string& schedule) {
  return Device(cuda::make_backend(cuda_host::make_driver(0, cuda_host::parse_schedule(schedule))));
}

TEST(CudaTraining, TheOrderOfThreadsAndBlocksDoesNotMatter) {
  const Training forward = train(lenet, overflowing(host_gpu("forward")), 3);
  for (const char* schedule : {"reverse", "random:1", "random:2"})
    EXPECT_TRUE(same(forward, train(lenet, overflowing(host_gpu(schedule)), 3))) << schedule;
}

}  // namespace
}  // namespace halftone
