#pragma once
#include "halftone/data/dataset.hpp"

namespace halftone {

/// Draws `count` handwriting-like digits of 28 x 28 x 1 from strokes, with random glyph variant, affine and elastic
/// distortion, pen and noise. Image i depends only on (seed, split, i) and has the same bytes on every machine.
Dataset rendered_digits(Split split, std::int64_t count, std::uint64_t seed = 1);

}  // namespace halftone
