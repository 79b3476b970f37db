#pragma once
#include "kernels/common/convolution.hpp"
#include "kernels/cpu/isa.hpp"

namespace halftone::cpu {

/// What a way to do a convolution is predicted to take on one thread, in multiply-adds of whole vectors, of which a
/// core begins two a cycle. The choice between ways goes by these alone, so it is the same on every machine of an
/// instruction set.
double direct_cost(const ConvProblem& problem, Direction direction, Isa isa);
double winograd_cost(const ConvProblem& problem, Direction direction, Isa isa);

}  // namespace halftone::cpu
