#pragma once
#include <string>

#include "kernels/common/convolution.hpp"

// Products of matrices by cuBLASLt: dense layers, and convolutions whose windows are single pixels at stride 1.
namespace halftone::cuda {

class Driver;

/// Why this machine has no cuBLASLt to use; empty where it has.
std::string why_no_cublas();

/// Why a convolution is not a product of two matrices as they lie in memory; empty where it is.
std::string decline_product(const Convolution& convolution);

/// Why cuBLASLt does not do a convolution on a driver's stream; empty where it does. When it is first asked, algorithms
/// run until one agrees with the library's own kernels (`Agreement`). Numbers of 16 bits are multiplied on tensor
/// cores, f32 never is; sums are in f32 and repeat their bits.
std::string decline_cublas(const Convolution& convolution, Driver& driver);

/// y = activation(x * weight + bias) or a gradient of x * weight, rounded once. The driver's device must be the current
/// one, here and when the launch runs.
Launch make_cublas(const Convolution& convolution, Driver& driver);

}  // namespace halftone::cuda
