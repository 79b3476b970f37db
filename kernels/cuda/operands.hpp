#pragma once
#include <type_traits>
#include <vector>

#include "kernels/cuda/storage.hpp"

// What kernels of several families need: the values of a node bound to memory, arrays in a workspace, numbers by packs.
namespace halftone::cuda {

/// The values that a launch works on, to be read and written by their storages.
struct Operands {
  std::vector<ValueSpec> inputs, outputs;

  explicit Operands(const Request& request)
      : inputs(request.inputs.begin(), request.inputs.end()), outputs(request.outputs.begin(), request.outputs.end()) {}

  template <class Format = Any>
  Source<Format> in(const Arguments& a, std::size_t i) const {
    return {inputs[i], a.inputs[i]};
  }
  template <class Format = Any>
  Sink<Format> out(const Arguments& a, std::size_t i) const {
    return {outputs[i], a.outputs[i], a.state};
  }
};

/// An array in a workspace, on lines of its own; `bytes` is what the workspace has so far.
template <class T>
class Array {
 public:
  Array(std::int64_t count, std::size_t& bytes) : offset_(bytes) {
    bytes += (static_cast<std::size_t>(count) * sizeof(T) + 127) / 128 * 128;
  }
  T* operator()(const Arguments& a) const {
    return reinterpret_cast<T*>(static_cast<std::byte*>(a.workspace) + offset_);
  }

 private:
  std::size_t offset_;
};

/// `with_format` that also settles how many numbers a thread takes at a time: calls f(format, integral constant), the
/// constant being `pack` where that is `wanted` and the storages are compiled ones, else 1.
template <class F>
auto with_pack(std::initializer_list<const ValueSpec*> values, bool wanted, F&& f) {
  return with_format(values, [&](auto format) {
    if constexpr (!std::is_same_v<decltype(format), Any>) {
      if (wanted) return f(format, std::integral_constant<int, pack>{});
    }
    return f(format, std::integral_constant<int, 1>{});
  });
}

/// f(i) for i in [0, n), n at most `most`; few are unrolled, so that arrays stay in registers.
template <int most, class F>
HALFTONE_DEVICE void for_each(int n, const F& f) {
  if constexpr (most <= pack) {
    HALFTONE_UNROLL
    for (int i = 0; i < most; ++i)
      if (i < n) f(i);
  } else {
    for (int i = 0; i < n; ++i) f(i);
  }
}

/// Numbers [first, first + n) of a tensor, n either 1 or `pack`.
template <class Format, int n>
HALFTONE_DEVICE void read(const Source<Format>& source, std::int64_t first, float (&x)[n]) {
  if constexpr (n == 1) {
    x[0] = source[first];
  } else {
    source.read(first, x);
  }
}
template <class Format, int n>
HALFTONE_DEVICE void write(const Sink<Format>& sink, std::int64_t first, const float (&x)[n]) {
  if constexpr (n == 1) {
    sink.write(first, x[0]);
  } else {
    sink.write(first, x);
  }
}

/// Elements [0, n) behind a pointer that is aligned to so many.
template <class T, int n>
HALFTONE_DEVICE void read(const T* from, T (&x)[n]) {
  constexpr int together = n * sizeof(T) <= 16 ? n : 16 / static_cast<int>(sizeof(T));
  HALFTONE_UNROLL
  for (int i = 0; i < n; i += together) {
    const auto some = *reinterpret_cast<const Pack<T, together>*>(from + i);
    HALFTONE_UNROLL
    for (int j = 0; j < together; ++j) x[i + j] = some.at[j];
  }
}
template <class T, int n>
HALFTONE_DEVICE void write(T* to, const T (&x)[n]) {
  constexpr int together = n * sizeof(T) <= 16 ? n : 16 / static_cast<int>(sizeof(T));
  HALFTONE_UNROLL
  for (int i = 0; i < n; i += together) {
    Pack<T, together> some;
    HALFTONE_UNROLL
    for (int j = 0; j < together; ++j) some.at[j] = x[i + j];
    *reinterpret_cast<Pack<T, together>*>(to + i) = some;
  }
}

/// The sum over a warp in a fixed order; every lane gets it.
template <class T>
HALFTONE_DEVICE T warp_sum(T x) {
  HALFTONE_UNROLL
  for (unsigned lanes = warp_lanes / 2; lanes > 0; lanes /= 2) x += shuffle_xor(x, lanes);
  return x;
}

/// The number of this thread, or of its warp, among all of the launch.
template <class Kernel>
HALFTONE_DEVICE std::int64_t thread_number() {
  return static_cast<std::int64_t>(block_index()) * Kernel::threads + thread_index();
}
template <class Kernel>
HALFTONE_DEVICE std::int64_t warp_number() {
  return static_cast<std::int64_t>(block_index()) * (Kernel::threads / warp_lanes) + thread_index() / warp_lanes;
}

}  // namespace halftone::cuda
