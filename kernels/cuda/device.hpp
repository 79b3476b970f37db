#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "halftone/numeric/formats.hpp"

// What kernels may use beside numeric/, by the same names for nvcc and for the host's twin of a GPU (tests/cuda_host),
// which runs the threads of a block as fibres.

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#define HALFTONE_DEVICE __device__ __forceinline__
#define HALFTONE_DEVICE_CALL __device__ __noinline__
#define HALFTONE_UNROLL _Pragma("unroll")
#define HALFTONE_UNROLL_BY_8 _Pragma("unroll 8")
#define HALFTONE_ROLLED _Pragma("unroll 1")
#else
#define HALFTONE_DEVICE inline __attribute__((always_inline))
#define HALFTONE_DEVICE_CALL inline
#define HALFTONE_UNROLL
#define HALFTONE_UNROLL_BY_8
#define HALFTONE_ROLLED
#endif

namespace halftone::cuda {

/// `count` elements that move as one load or store.
template <class T, int count>
struct alignas(sizeof(T) * count) Pack {
  T at[count];
};

inline constexpr unsigned warp_lanes = 32;

}  // namespace halftone::cuda

#if !defined(__CUDACC__)
#include "tests/cuda_host/device.hpp"
#else
namespace halftone::cuda {

HALFTONE_DEVICE unsigned thread_index() { return threadIdx.x; }
HALFTONE_DEVICE unsigned block_index() { return blockIdx.x; }
HALFTONE_DEVICE unsigned block_count() { return gridDim.x; }
HALFTONE_DEVICE unsigned lane_index() { return threadIdx.x % warp_lanes; }

/// Waits for all threads of the block and orders their memory.
HALFTONE_DEVICE void sync_block() { __syncthreads(); }
/// The same for the threads of the warp.
HALFTONE_DEVICE void sync_warp() { __syncwarp(); }

/// The number that lane (own ^ lanes) has brought; every lane of the warp must come. T of 4 or 8 bytes.
template <class T>
HALFTONE_DEVICE T shuffle_xor(T x, unsigned lanes) {
  return __shfl_xor_sync(~0u, x, static_cast<int>(lanes));
}

/// Stores 16 bytes at once, which the compiler would do in pieces at times.
template <class T>
HALFTONE_DEVICE void store(T* p, const T& x) {
  if constexpr (sizeof(T) == sizeof(uint4)) {
    const auto u = bit_cast<uint4>(x);
    asm volatile("st.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(u.x), "r"(u.y), "r"(u.z), "r"(u.w) : "memory");
  } else {
    *p = x;
  }
}

HALFTONE_DEVICE void atomic_min(std::int32_t* p, std::int32_t x) { atomicMin(p, x); }
HALFTONE_DEVICE void atomic_add(std::int64_t* p, std::int64_t x) {
  atomicAdd(reinterpret_cast<unsigned long long*>(p), static_cast<unsigned long long>(x));
}
/// Of floats that are not negative.
HALFTONE_DEVICE void atomic_max(float* p, float x) { atomicMax(reinterpret_cast<int*>(p), bit_cast<int>(x)); }
/// Stores a number that other threads store too, and nobody reads before the launch ends.
HALFTONE_DEVICE void store_same(std::int32_t* p, std::int32_t x) { atomicExch(p, x); }

/// a * b + c, rounded once.
HALFTONE_DEVICE float multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }

/// f16 and bf16 to f32 and back, as the formats do it but for the payload of NaNs.
template <class Format>
HALFTONE_DEVICE float decode(typename Format::Code code) {
  if constexpr (std::is_same_v<Format, F16>) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(code));
    return x;
  } else {
    return Format::decode(code);
  }
}
template <class Format>
HALFTONE_DEVICE typename Format::Code encode(float x) {
  if constexpr (std::is_same_v<Format, F16> || std::is_same_v<Format, BF16>) {
    std::uint16_t code;
    if constexpr (std::is_same_v<Format, F16>) {
      asm("cvt.rn.f16.f32 %0, %1;" : "=h"(code) : "f"(x));
    } else {
      asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(code) : "f"(x));
    }
    return code;
  } else {
    return Format::encode(x);
  }
}

HALFTONE_DEVICE unsigned shared_address(const void* p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }

/// Four 8x8 matrices of 16-bit elements in shared memory; lane l brings the address of row l % 8 of matrix l / 8, and
/// gets of each matrix the elements (l / 4, 2 (l % 4)) and the next, or, transposed, (2 (l % 4), l / 4) and the one
/// below.
template <bool transposed>
HALFTONE_DEVICE void load_matrices(std::uint32_t (&r)[4], const void* row) {
  if constexpr (transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
  }
}

/// d += a b on tensor cores, a 16x16, b 16x8, d 16x8 over the lanes of a warp (PTX: mma.m16n8k16).
template <class Format>
HALFTONE_DEVICE void multiply_add(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  if constexpr (std::is_same_v<Format, F16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

}  // namespace halftone::cuda
#endif
