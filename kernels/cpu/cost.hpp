#pragma once
#include "kernels/common/convolution.hpp"
#include "kernels/cpu/isa.hpp"

namespace halftone::cpu {

/// Ways to do a convolution of floating-point numbers, whose kernels have these names.
enum class Way { winograd, pairs, col2im, implicit_gemm };
inline constexpr Way all_ways[] = {Way::winograd, Way::pairs, Way::col2im, Way::implicit_gemm};
const char* name_of(Way way);

/// What a way is predicted to take on one thread, in multiply-adds of whole vectors, of which a core begins two a cycle
/// (AMD's before Zen 5: one of AVX-512's). The choice between ways goes by these alone, so it is the same on every
/// machine of an instruction set.
double predicted_cost(Way way, const ConvProblem& problem, Direction direction, Isa isa);
/// The products of the definition over what multiply-adds alone would do in that time.
double predicted_share(Way way, const ConvProblem& problem, Direction direction, Isa isa);

}  // namespace halftone::cpu
