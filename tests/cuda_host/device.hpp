#pragma once
#include <cstring>

#include "tests/cuda_host/fibres.hpp"

// What kernels/cuda/device.hpp, which includes this, has for nvcc, for the threads of fibres.hpp.
namespace halftone::cuda {

using cuda_host::Where;

HALFTONE_DEVICE unsigned thread_index() { return cuda_host::current->index; }
HALFTONE_DEVICE unsigned block_index() { return cuda_host::current->block; }
HALFTONE_DEVICE unsigned block_count() { return cuda_host::current->blocks; }
HALFTONE_DEVICE unsigned lane_index() { return thread_index() % warp_lanes; }

inline void sync_block(Where where = Where::here()) { cuda_host::sync_block(where); }
inline void sync_warp(Where where = Where::here()) { cuda_host::sync_warp(where); }

/// What the lanes of a warp bring to an operation that all of them take part in.
template <class T>
class Offers {
 public:
  Offers(const T& own, Where where) {
    static_assert(sizeof(T) <= sizeof(cuda_host::Offer));
    cuda_host::Offer offer = {};
    std::memcpy(&offer, &own, sizeof own);
    offers_ = cuda_host::meet_warp(offer, where);
  }
  T operator[](unsigned lane) const {
    T x;
    std::memcpy(&x, &offers_[lane], sizeof x);
    return x;
  }

 private:
  const cuda_host::Offer* offers_;
};

template <class T>
T shuffle_xor(T x, unsigned lanes, Where where = Where::here()) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  return Offers<T>(x, where)[(lane_index() ^ lanes) % warp_lanes];
}

template <class T>
void store(T* p, const T& x) {
  *p = x;
}

/// Replaces *p by `replace(*p)`, undivided.
template <class T, class F>
void atomic_replace(T* p, F&& replace) {
  T old;
  __atomic_load(p, &old, __ATOMIC_RELAXED);
  for (T next = replace(old); !__atomic_compare_exchange(p, &old, &next, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED);)
    next = replace(old);
}
inline void atomic_min(std::int32_t* p, std::int32_t x) {
  atomic_replace(p, [x](std::int32_t old) { return x < old ? x : old; });
}
inline void atomic_add(std::int64_t* p, std::int64_t x) { __atomic_fetch_add(p, x, __ATOMIC_RELAXED); }
inline void atomic_max(float* p, float x) {
  atomic_replace(p, [x](float old) { return bit_cast<std::int32_t>(x) > bit_cast<std::int32_t>(old) ? x : old; });
}
inline void store_same(std::int32_t* p, std::int32_t x) { __atomic_store_n(p, x, __ATOMIC_RELAXED); }

HALFTONE_DEVICE float multiply_add(float a, float b, float c) { return a * b + c; }

template <class Format>
HALFTONE_DEVICE float decode(typename Format::Code code) {
  return Format::decode(code);
}
template <class Format>
HALFTONE_DEVICE typename Format::Code encode(float x) {
  return Format::encode(x);
}

/// Each lane reads the row that it brings, so that races and overruns show.
template <bool transposed>
void load_matrices(std::uint32_t (&r)[4], const void* row, Where where = Where::here()) {
  using Row = Pack<std::uint16_t, 8>;
  const Offers<Row> rows(*static_cast<const Row*>(row), where);
  const unsigned i = lane_index() / 4, j = lane_index() % 4 * 2;
  for (unsigned matrix = 0; matrix < 4; ++matrix) {
    const unsigned first = matrix * 8;
    const std::uint32_t low = transposed ? rows[first + j].at[i] : rows[first + i].at[j],
                        high = transposed ? rows[first + j + 1].at[i] : rows[first + i].at[j + 1];
    r[matrix] = low | high << 16;
  }
}

template <class Format>
void multiply_add(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                  Where where = Where::here()) {
  // Lane l holds of a the rows l / 4 and l / 4 + 8, of b the column l / 4; of all these the same four places along the
  // sum, so that products go four at a time.
  using Four = float __attribute__((vector_size(16)));
  struct Fragments {
    Four rows[2], column;
  };
  const auto number = [](std::uint32_t pair, int i) {
    return Format::decode(static_cast<std::uint16_t>(pair >> 16 * i));
  };
  const auto four = [&](std::uint32_t low, std::uint32_t high) {
    return Four{number(low, 0), number(low, 1), number(high, 0), number(high, 1)};
  };
  const Offers<Fragments> warp({{four(a[0], a[2]), four(a[1], a[3])}, four(b[0], b[1])}, where);
  const unsigned i = lane_index() / 4 * 4, j = lane_index() % 4 * 8;  // lanes with its row of a, its columns of b
  Four sums[4] = {};
  for (unsigned t = 0; t < 4; ++t) {
    const Fragments of_a = warp[i + t];
    const Four columns[2] = {warp[j + t].column, warp[j + 4 + t].column};
    for (int k = 0; k < 4; ++k) sums[k] += of_a.rows[k / 2] * columns[k % 2];
  }
  for (int k = 0; k < 4; ++k) d[k] += (sums[k][0] + sums[k][1]) + (sums[k][2] + sums[k][3]);
}

}  // namespace halftone::cuda
