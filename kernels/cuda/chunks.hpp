#pragma once
#include <algorithm>

#include "kernels/common/chunks.hpp"
#include "kernels/cuda/constants.hpp"
#include "kernels/cuda/stored.hpp"

// Many tensors in one launch: a block has a chunk of one of them.
namespace halftone::cuda {

/// The chunks of many tensors, in device memory once they are uploaded.
class Chunks {
 public:
  template <class Tensors>
  Chunks(const Device& device, const Tensors& tensors) : chunks_(chunks_of(tensors)), table_(device, chunks_.size()) {}
  void upload() const { table_.upload(chunks_); }
  const Chunk* data() const { return table_.data(); }
  std::int64_t size() const { return table_.size(); }

 private:
  std::vector<Chunk> chunks_;
  Constants<Chunk> table_;
};

/// A tensor in one of the storages that all kernels know, with the functions of `Stored`.
struct Known {
  Sink<Any> sink;

  Known() = default;
  Known(const ValueSpec& value, const Memory& memory, StepState* state) : sink(value, memory, state) {}

  HALFTONE_DEVICE Source<Any> source() const {
    Source<Any> result;
    result.data = sink.data;
    result.code = sink.code;
    return result;
  }
  HALFTONE_DEVICE float operator[](std::int64_t i) const { return source()[i]; }
  HALFTONE_DEVICE float read_back(std::int64_t i) const { return source()[i]; }
};

/// Numbers that one thread takes of a tensor at a time.
template <class Tensor>
inline constexpr int most_at_once = std::is_same_v<Tensor, Known> ? pack : 64;

template <class Tensor, int most>
HALFTONE_DEVICE void read(const Tensor& tensor, std::int64_t first, int n, float (&x)[most]) {
  if constexpr (std::is_same_v<Tensor, Known>) {
    if (n == most) return tensor.source().read(first, x);
  }
  for_each<most>(n, [&](int i) { x[i] = tensor[first + i]; });
}
template <class Tensor, int most>
HALFTONE_DEVICE void write(const Tensor& tensor, std::int64_t first, int n, const float (&x)[most]) {
  if constexpr (std::is_same_v<Tensor, Known>) {
    if (n == most) return tensor.sink.write(first, x);
    for_each<most>(n, [&](int i) { tensor.sink.write(first + i, x[i]); });
  } else {
    tensor.write(first, n, x);
  }
}

template <class Tensor>
std::vector<Tensor> bound(const std::vector<ValueSpec>& values, std::span<const Memory> memory, StepState* state,
                          std::size_t first = 0) {
  std::vector<Tensor> result;
  for (std::size_t i = first; i < values.size(); ++i) result.emplace_back(values[i], memory[i], state);
  return result;
}

inline std::vector<float*> addresses(std::span<const Memory> memory, std::size_t count) {
  std::vector<float*> result;
  for (std::size_t i = 0; i < count; ++i) result.push_back(static_cast<float*>(memory[i].data));
  return result;
}

/// Calls f(Known{}) where all values are in storages that all kernels know, else f(Stored{}).
template <class F>
Launch with_tensor(const Request& request, const F& f) {
  const auto known = [](const ValueSpec& value) {  // u8: the step's state
    return is_compiled(value.storage) || value.storage == DType::u8;
  };
  return std::all_of(request.inputs.begin(), request.inputs.end(), known) &&
                 std::all_of(request.outputs.begin(), request.outputs.end(), known)
             ? f(Known{})
             : f(Stored{});
}

}  // namespace halftone::cuda
