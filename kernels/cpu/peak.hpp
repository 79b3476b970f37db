#pragma once
#include "kernels/cpu/isa.hpp"

namespace halftone::cpu {

/// Operations a second of f32 multiply-adds on so many threads together, in independent chains and without memory:
/// measured in some 40 milliseconds.
double multiply_add_peak(Isa isa, int threads);

}  // namespace halftone::cpu
