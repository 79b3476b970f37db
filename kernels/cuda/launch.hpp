#pragma once
#include <typeinfo>

#include "halftone/graph/kernel.hpp"
#include "halftone/tensor/error.hpp"
#include "kernels/cuda/device.hpp"
#include "kernels/cuda/driver.hpp"

// A kernel is a struct: its members are the arguments, `threads` the size of its blocks, `Shared` its shared memory and
// operator() its body.
namespace halftone::cuda {

struct NoShared {};

#if defined(__CUDACC__)
template <class Kernel>
__global__ void __launch_bounds__(Kernel::threads) entry(const __grid_constant__ Kernel kernel) {
  using Shared = typename Kernel::Shared;
  if constexpr (std::is_empty_v<Shared>) {
    Shared none;
    kernel(none);
  } else if constexpr (sizeof(Shared) <= most_static_shared) {
    __shared__ Shared shared;
    kernel(shared);
  } else {
    extern __shared__ __align__(128) unsigned char bytes[];
    kernel(*reinterpret_cast<Shared*>(bytes));
  }
}
#else
/// Runs one thread of a block.
template <class Kernel>
void entry(const void* kernel, void* shared) {
  (*static_cast<const Kernel*>(kernel))(*static_cast<typename Kernel::Shared*>(shared));
}
#endif

template <class Kernel>
KernelCode code_of() {
  static_assert(std::is_trivially_copyable_v<Kernel> && sizeof(Kernel) <= 4096);
  return {typeid(Kernel).name(), reinterpret_cast<const void*>(&entry<Kernel>), Kernel::threads,
          std::is_empty_v<typename Kernel::Shared> ? 0 : sizeof(typename Kernel::Shared), sizeof(Kernel)};
}

/// Enqueues `blocks` blocks of a kernel.
template <class Kernel>
void enqueue(const Arguments& arguments, std::int64_t blocks, const Kernel& kernel) {
  if (blocks > std::numeric_limits<std::int32_t>::max()) throw Failure("cuda: a launch of 2^31 blocks or more");
  if (blocks > 0)
    static_cast<Driver*>(arguments.stream)->launch(code_of<Kernel>(), static_cast<unsigned>(blocks), &kernel);
}

/// Blocks that give each of `count` something a thread, `each` of them a thread.
template <class Kernel>
constexpr std::int64_t blocks_for(std::int64_t count, std::int64_t each = 1) {
  const std::int64_t per_block = each * Kernel::threads;
  return (count + per_block - 1) / per_block;
}

/// The sum over the block's threads in a fixed order; every thread gets it. `parts` may be used again after the call.
template <int threads, class T>
HALFTONE_DEVICE T block_sum(T x, T (&parts)[threads / warp_lanes]) {
  HALFTONE_UNROLL
  for (unsigned lanes = warp_lanes / 2; lanes > 0; lanes /= 2) x += shuffle_xor(x, lanes);
  if (lane_index() == 0) parts[thread_index() / warp_lanes] = x;
  sync_block();
  x = parts[0];
  for (unsigned i = 1; i < threads / warp_lanes; ++i) x += parts[i];
  sync_block();
  return x;
}

}  // namespace halftone::cuda
