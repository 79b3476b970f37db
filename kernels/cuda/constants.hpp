#pragma once
#include <memory>
#include <vector>

#include "halftone/tensor/device.hpp"

namespace halftone::cuda {

/// A table in device memory that a launch owns: room from the beginning, content when the launch is prepared.
template <class T>
class Constants {
 public:
  Constants(const Device& device, std::size_t count) : memory_(std::make_shared<Buffer>(device, count * sizeof(T))) {}
  void upload(const std::vector<T>& values) const {
    memory_->device().backend().upload(memory_->data(), values.data(), values.size() * sizeof(T));
  }
  const T* data() const { return reinterpret_cast<const T*>(memory_->data()); }
  std::int64_t size() const { return static_cast<std::int64_t>(memory_->bytes() / sizeof(T)); }

 private:
  std::shared_ptr<Buffer> memory_;
};

}  // namespace halftone::cuda
