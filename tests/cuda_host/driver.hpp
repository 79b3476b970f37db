#pragma once
#include <memory>
#include <string>

#include "kernels/cuda/driver.hpp"
#include "tests/cuda_host/fibres.hpp"

namespace halftone::cuda_host {

/// A GPU whose threads are fibres: the host cannot touch its memory, and work waits in a queue until somebody waits.
std::unique_ptr<cuda::Driver> make_driver(int ordinal, const Schedule& schedule);

/// "forward", "reverse", "random" or "random:7".
Schedule parse_schedule(const std::string& text);

/// The variable that holds the schedule of devices made without one; where it is not set, device 0 runs threads
/// forward, device 1 at random.
inline constexpr const char* schedule_variable = "HALFTONE_HOST_GPU_ORDER";

}  // namespace halftone::cuda_host
