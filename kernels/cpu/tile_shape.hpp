#pragma once
#include <cstdint>

namespace halftone::cpu {

/// What a plan needs to know of an instruction set's microkernels; all in floats.
struct TileShape {
  std::int64_t lanes, width, packed_stride, max_depth, planar_height;
  std::int64_t (*planar_width)(int height);
  static constexpr std::int64_t line = 16;  ///< of the cache
};

}  // namespace halftone::cpu
