#pragma once
#include <cstdint>

#include "kernels/cuda/device.hpp"

namespace halftone::cuda {

/// Divides numbers from 0 to 2^31 - 1 by one that is fixed, by a product (Granlund and Montgomery, Division by
/// invariant integers using multiplication, 1994).
class Divisor {
 public:
  Divisor() = default;
  explicit Divisor(int divisor) : divisor_(divisor) {
    while (std::int64_t{1} << shift_ < divisor) ++shift_;
    const std::uint64_t above = (std::uint64_t{1} << shift_) - static_cast<std::uint64_t>(divisor);
    factor_ = static_cast<std::uint32_t>((above << 32) / static_cast<std::uint64_t>(divisor) + 1);
  }

  struct Result {
    int quotient, remainder;
  };
  HALFTONE_DEVICE Result operator()(int x) const {
    const auto n = static_cast<std::uint32_t>(x);
    const auto high = static_cast<std::uint32_t>((std::uint64_t{n} * factor_) >> 32);
    const int quotient = static_cast<int>((high + n) >> shift_);
    return {quotient, x - quotient * divisor_};
  }

 private:
  int divisor_ = 1;
  std::uint32_t factor_ = 1, shift_ = 0;
};

}  // namespace halftone::cuda
