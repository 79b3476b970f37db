#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "halftone/tensor/shape.hpp"

namespace halftone {

struct Pixels {
  std::int64_t h = 0, w = 0;
  std::vector<std::uint8_t> rgb;  // [h, w, 3]
};

/// Throws FileError whose text goes on after a file's name.
Pixels decode_image(std::span<const std::byte> file);

/// Throws Error naming the option `image` unless it is one that images can be brought to.
void check_image(const Shape& image);

/// What read_image makes of pixels, into `to`, which holds image.elements() bytes.
void fit(const Pixels& pixels, const Shape& image, std::uint8_t* to);

}  // namespace halftone
