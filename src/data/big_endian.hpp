#pragma once
#include <cstdint>

namespace halftone {

/// The number that four bytes hold, the highest first.
inline std::uint32_t big_endian(const std::uint8_t* b) {
  return std::uint32_t{b[0]} << 24 | std::uint32_t{b[1]} << 16 | std::uint32_t{b[2]} << 8 | b[3];
}

}  // namespace halftone
