#pragma once
#include <algorithm>

#include "kernels/cuda/driver.hpp"

namespace halftone::cuda {

/// Device memory that is freed with it, zeros at first.
class Scratch {
 public:
  Scratch(Driver& driver, std::size_t bytes)
      : driver_(driver), data_(driver.allocate(std::max<std::size_t>(bytes, 1))) {
    if (bytes > 0) driver.clear(data_, bytes);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { driver_.free(data_); }
  void* data() const { return data_; }

 private:
  Driver& driver_;
  void* data_;
};

}  // namespace halftone::cuda
