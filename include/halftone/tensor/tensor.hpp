#pragma once
#include <cstddef>
#include <span>
#include <vector>

#include "halftone/numeric/formats.hpp"
#include "halftone/tensor/device.hpp"
#include "halftone/tensor/shape.hpp"

namespace halftone {

/// What a tensor is, apart from its memory.
struct TensorSpec {
  Shape shape;
  DType dtype = DType::f32;
  std::size_t bytes() const { return static_cast<std::size_t>(shape.elements()) * size_of(dtype); }
  bool operator==(const TensorSpec&) const = default;
};

/// Somebody else's memory on a device, seen as a tensor. `read` and `write` convert from and to f32, whatever the
/// format.
struct TensorView {
  TensorSpec spec;
  void* data = nullptr;
  Backend* backend = nullptr;

  std::vector<float> read() const;
  void write(std::span<const float> values) const;  ///< throws Error where the count differs
  void write_bytes(std::span<const std::byte> bytes)
      const;  ///< already in the tensor's format; throws Error where the count differs
};

/// A tensor that owns its memory.
class Tensor {
 public:
  Tensor(Device device, TensorSpec spec) : spec_(spec), memory_(std::move(device), spec.bytes()) {}
  TensorView view() const { return {spec_, memory_.data(), &memory_.device().backend()}; }

 private:
  TensorSpec spec_;
  Buffer memory_;
};

}  // namespace halftone
