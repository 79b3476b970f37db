#pragma once
#include "kernels/cpu/isa.hpp"

namespace halftone::cpu {

/// Measures the f32 multiply-add rate of one thread, in GFLOP/s: independent chains in registers, no memory.
double multiply_add_peak(Isa isa);

}  // namespace halftone::cpu
