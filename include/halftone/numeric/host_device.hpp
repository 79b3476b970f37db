#pragma once
#include <cstdint>

/// Marks a function that must compile for both host and device and inline into its caller: CPU kernels are compiled
/// once per instruction set, and only what inlines into them is compiled for theirs.
#if defined(__CUDACC__)
#define HALFTONE_HD __host__ __device__ __forceinline__
#else
#define HALFTONE_HD inline __attribute__((always_inline))
#endif

namespace halftone {

/// `std::bit_cast` for both sides.
template <class To, class From>
HALFTONE_HD constexpr To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  return __builtin_bit_cast(To, from);
}

}  // namespace halftone
