#pragma once
#include <cstdint>
#include <vector>

namespace halftone {

/// A control point of a stroke in a box of 100 x 100, y downwards.
struct GlyphPoint {
  std::int8_t x, y;
};
using GlyphStroke = std::vector<GlyphPoint>;  // a smooth curve through its points
using Glyph = std::vector<GlyphStroke>;

/// The ways of writing the digit 0 ... 9.
const std::vector<Glyph>& glyphs(int digit);

}  // namespace halftone
