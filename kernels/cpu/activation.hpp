#pragma once
#include <cstdint>

#include "halftone/numeric/pointwise.hpp"
#include "kernels/cpu/isa.hpp"

namespace halftone::cpu {

/// y = activation(x); y may be x.
using ActivationLoop = void (*)(const Activation& activation, const float* x, float* y, std::int64_t count);
ActivationLoop activation_loop(Isa isa, const Activation& activation);

/// The same of two numbers; y may be a or b.
using BinaryLoop = void (*)(const Activation&, const float* a, const float* b, float* y, std::int64_t count);

}  // namespace halftone::cpu
