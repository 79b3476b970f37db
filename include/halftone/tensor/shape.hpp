#pragma once
#include <cstdint>
#include <string>

#include "halftone/tensor/error.hpp"

namespace halftone {

/// The extent of a tensor, always of rank four and densely stored in this order: activations are [n, h, w, c], weights
/// [k, r, s, c] (k output channels in `n`, taps in `h` and `w`), a matrix [rows, 1, 1, columns], a vector [1, 1, 1, c].
struct Shape {
  std::int64_t n = 1, h = 1, w = 1, c = 1;

  static constexpr Shape vector(std::int64_t c) { return {1, 1, 1, c}; }
  static constexpr Shape matrix(std::int64_t rows, std::int64_t columns) { return {rows, 1, 1, columns}; }

  constexpr std::int64_t elements() const { return n * h * w * c; }
  constexpr std::int64_t rows() const { return n * h * w; }      ///< all but the innermost dimension
  constexpr std::int64_t features() const { return h * w * c; }  ///< all but the outermost dimension
  constexpr bool operator==(const Shape&) const = default;
};

/// "[128, 28, 28, 1]".
std::string to_string(const Shape& shape);

}  // namespace halftone
