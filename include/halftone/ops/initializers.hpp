#pragma once
#include "halftone/graph/graph.hpp"

namespace halftone {

/// Evenly spread in [-bound, bound).
Initializer uniform(float bound);

/// Normal with mean 0 (Box & Muller 1958).
Initializer normal(float stddev);

/// All the same.
Initializer constant(float value);

/// The very numbers given; throws Error when their count does not fit.
Initializer numbers(std::vector<float> values);

}  // namespace halftone
