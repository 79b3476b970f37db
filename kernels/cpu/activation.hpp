#pragma once
#include <cstdint>

#include "halftone/numeric/pointwise.hpp"
#include "kernels/cpu/isa.hpp"

namespace halftone::cpu {

/// y = activation(x); y may be x.
using ActivationLoop = void (*)(const Activation& activation, const float* x, float* y, std::int64_t count);
ActivationLoop activation_loop(Isa isa, const Activation& activation);

}  // namespace halftone::cpu
