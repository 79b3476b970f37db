#pragma once
#include <deque>
#include <string>

#include "kernels/common/convolution.hpp"
#include "kernels/cuda/scratch.hpp"

namespace halftone::cuda {

/// Holds other ways to do a convolution, activation relu or none, to the library's own kernels, on the device and on
/// numbers that leave rounding no room: small integers, integers whose sums need f32, then an infinity of either sign
/// and a NaN among small ones.
class Agreement {
 public:
  /// Takes device memory for all operands. Throws Failure where there is none left, or no own kernel to hold to.
  Agreement(Driver& driver, const Convolution& convolution);

  /// How the results of `launch` differ; empty where they don't.
  std::string differs(const Launch& launch) const;

 private:
  bool differs(const Launch& launch, int largest, bool finite) const;

  Driver& driver_;
  Convolution convolution_;
  Launch own_;
  std::deque<Scratch> inputs_;
  Scratch expected_, output_, verdict_;
};

}  // namespace halftone::cuda
