#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

namespace halftone {

/// A run of numbers of one of many tensors that are worked on together.
struct Chunk {
  static constexpr std::int64_t most = 2048;
  std::size_t tensor;
  std::int64_t first, count;
};

/// All numbers of `tensors`, which have shapes, in their order.
template <class Tensors>
std::vector<Chunk> chunks_of(const Tensors& tensors) {
  std::vector<Chunk> chunks;
  for (std::size_t i = 0; i < tensors.size(); ++i)
    for (std::int64_t first = 0, elements = tensors[i].shape.elements(); first < elements; first += Chunk::most)
      chunks.push_back({i, first, std::min(Chunk::most, elements - first)});
  return chunks;
}

}  // namespace halftone
