#pragma once
#include "halftone/graph/graph.hpp"

namespace halftone {

/// Evenly spread in [-bound, bound).
Initializer uniform(float bound);

/// Normal with mean 0 (Box & Muller 1958).
Initializer normal(float stddev);

/// All the same.
Initializer constant(float value);

/// The first c filters of [k, r, s, c] pass one channel each on as it is, by their middle tap; `others` draws the rest.
Initializer identity_first(Shape shape, Initializer others);

/// The very numbers given; throws Error when their count does not fit.
Initializer numbers(std::vector<float> values);

}  // namespace halftone
