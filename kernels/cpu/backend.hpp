#pragma once
#include "halftone/graph/kernel.hpp"
#include "halftone/tensor/device.hpp"
#include "kernels/cpu/isa.hpp"

namespace halftone::cpu {

/// Throws Error for an instruction set that is unknown or absent, for unknown algorithms and a negative thread count.
std::shared_ptr<Backend> make_backend(const CpuOptions& options);

/// The lists of all CPU kernels (table.cpp).
const KernelTable& kernel_table();

/// What CPU factories ask of the device that a request names.
struct Machine {
  int threads;
  Isa isa;
};
Machine machine_of(const Request& request);
/// Whether its convolutions must be direct ones (`CpuOptions::algorithms`).
bool direct_only(const Request& request);

}  // namespace halftone::cpu
