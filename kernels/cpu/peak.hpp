#pragma once
#include "kernels/cpu/isa.hpp"

namespace halftone::cpu {

/// Operations a second of one thread's f32 multiply-adds, in independent chains and without memory: measured in some
/// milliseconds.
double multiply_add_peak(Isa isa);

}  // namespace halftone::cpu
