#pragma once
#include <memory>
#include <string>

#include "halftone/graph/kernel.hpp"
#include "halftone/tensor/device.hpp"

namespace halftone::cuda {

/// The backend of CUDA device `ordinal`. Throws Error where this build or this machine has none, saying why.
std::shared_ptr<Backend> make_backend(int ordinal);

/// How many devices there are, and, where none, why.
int device_count();
std::string why_no_device();

/// What this build holds: "CUDA 13.0 for sm_80, sm_90a"; empty where it has no device code.
std::string built_for();

class Driver;

/// The backend on a driver of one's own.
std::shared_ptr<Backend> make_backend(std::unique_ptr<Driver> driver);

/// The driver of the device that a request names.
Driver& driver_of(const Request& request);

/// The lists of all CUDA kernels (table.cpp).
const KernelTable& kernel_table();

}  // namespace halftone::cuda
