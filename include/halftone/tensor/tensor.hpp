#pragma once
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "halftone/numeric/storage.hpp"
#include "halftone/tensor/device.hpp"
#include "halftone/tensor/shape.hpp"

namespace halftone {

/// What a tensor is, apart from its memory.
struct TensorSpec {
  Shape shape;
  Storage storage = DType::f32;
  std::size_t bytes() const { return storage.bytes(shape.elements()); }
  bool operator==(const TensorSpec&) const = default;
};

/// "f16", "i16 x 2^-10, stochastic", "e2m1 in blocks of 32": all that tells storages apart.
std::string to_string(const Storage& storage);

/// Somebody else's memory on a device, seen as a tensor. `read` and `write` convert from and to f32, however the
/// numbers are stored.
struct TensorView {
  TensorSpec spec;
  void* data = nullptr;
  Backend* backend = nullptr;
  const RangeState* range = nullptr;  ///< of a `Scaling::range`, on the device

  std::vector<float> read() const;
  /// Into as many numbers as there are; throws Error where the count differs.
  void read_into(std::span<float> values) const;
  /// Throws Error where the count differs; `key` decides where rounding is stochastic.
  void write(std::span<const float> values, const RandomKey& key = {}, Noticed* noticed = nullptr);
  std::vector<std::byte> read_bytes() const;
  /// Bytes as they are stored; throws Error where the count differs.
  void write_bytes(std::span<const std::byte> bytes);

 private:
  float scale() const;
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
