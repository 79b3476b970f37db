#pragma once
#include "kernels/cpu/isa.hpp"

namespace halftone::cpu {

/// Multiplications and additions a second that f32 multiply-adds in the registers of one thread reach now.
double multiply_add_peak(Isa isa);

}  // namespace halftone::cpu
