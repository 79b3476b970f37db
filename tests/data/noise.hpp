#pragma once
#include "halftone/data/dataset.hpp"
#include "halftone/numeric/philox.hpp"

namespace halftone::test {

/// Random images of `classes`, on which nothing can be learned but everything can be trained.
inline Dataset noise(std::int64_t count = 32, const Shape& image = {1, 8, 8, 3}, int classes = 4) {
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(count * image.elements()));
  std::vector<std::int32_t> labels(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(bits(5, 0, 0, i));
  for (std::size_t i = 0; i < labels.size(); ++i)
    labels[i] = static_cast<std::int32_t>(bits(6, 0, 0, i) % static_cast<std::uint32_t>(classes));
  return in_memory("noise", image, pixels, std::move(labels), classes);
}

}  // namespace halftone::test
