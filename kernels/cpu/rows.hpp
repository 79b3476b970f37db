#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/backend.hpp"
#include "kernels/cpu/parallel.hpp"

namespace halftone::cpu {

/// Elements converted at a time: a few f32 buffers of them stay in the first-level cache. A multiple of 64.
inline constexpr std::int64_t chunk = 1024;

/// Elements in a task of `for_chunks`, a multiple of `chunk`: less is not worth another thread.
inline constexpr std::int64_t chunk_task = 8 * chunk;

/// Reads runs of a stored tensor as f32.
class Reader {
 public:
  Reader() = default;
  Reader(const Machine& machine, const ValueSpec& value)
      : decode_(value.dtype == DType::f32 ? nullptr : machine.decode(value)), size_(size_of(value.dtype)) {}

  /// Elements [first, first + count) of the tensor at `data`: where they are if they are f32, else decoded to `buffer`.
  const float* operator()(const void* data, std::int64_t first, std::int64_t count, float* buffer) const {
    const auto* from = static_cast<const std::byte*>(data) + static_cast<std::size_t>(first) * size_;
    if (!decode_) return reinterpret_cast<const float*>(from);
    decode_(from, buffer, count);
    return buffer;
  }

 private:
  Decode decode_ = nullptr;
  std::size_t size_ = sizeof(float);
};

/// Stores runs of f32 numbers in a tensor.
class Writer {
 public:
  Writer() = default;
  Writer(const Machine& machine, const ValueSpec& value)
      : encode_(value.dtype == DType::f32 ? nullptr : machine.encode(value)), size_(size_of(value.dtype)) {}

  /// Where to compute the elements from `first` on: in the tensor itself if it is f32, else in `buffer`.
  float* place(void* data, std::int64_t first, float* buffer) const {
    return encode_ ? buffer : static_cast<float*>(data) + first;
  }

  /// Stores elements [first, first + count) of the tensor at `data`; nothing is left to do where `from` is their place.
  void operator()(void* data, std::int64_t first, std::int64_t count, const float* from) const {
    auto* to = static_cast<std::byte*>(data) + static_cast<std::size_t>(first) * size_;
    if (encode_) return encode_(from, to, count);
    if (reinterpret_cast<const float*>(to) != from) std::copy_n(from, count, reinterpret_cast<float*>(to));
  }

 private:
  Encode encode_ = nullptr;
  std::size_t size_ = sizeof(float);
};

/// Calls f(first, count) for all of `elements` in runs of `chunk`, the last one shorter.
template <class F>
void for_chunks(int threads, std::int64_t elements, const F& f) {
  parallel_for(threads, (elements + chunk_task - 1) / chunk_task, [&](std::int64_t task) {
    const std::int64_t end = std::min(elements, (task + 1) * chunk_task);
    for (std::int64_t first = task * chunk_task; first < end; first += chunk) f(first, std::min(chunk, end - first));
  });
}

}  // namespace halftone::cpu
