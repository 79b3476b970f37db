#pragma once
#include <filesystem>
#include <fstream>
#include <string>

#include "halftone/data/rendered_digits.hpp"

namespace halftone::testing {

inline std::string big_endian(std::size_t n) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(n >> shift & 0xff);
  return bytes;
}

/// Writes drawn digits as files of MNIST's kind, so few that a training on them takes a moment.
inline void write_small_mnist(const std::filesystem::path& folder, std::int64_t training = 64, std::int64_t test = 50) {
  for (const Split split : {Split::train, Split::test}) {
    const Dataset data = rendered_digits(split, split == Split::train ? training : test);
    const std::string prefix = split == Split::train ? "train" : "t10k", size = big_endian(28);
    const auto count = static_cast<std::size_t>(data.size());
    std::ofstream images(folder / (prefix + "-images-idx3-ubyte"), std::ios::binary);
    images << big_endian(0x803) << big_endian(count) << size << size;
    images.write(reinterpret_cast<const char*>(data.pixels.data()), static_cast<std::streamsize>(data.pixels.size()));
    std::ofstream labels(folder / (prefix + "-labels-idx1-ubyte"), std::ios::binary);
    labels << big_endian(0x801) << big_endian(count);
    for (const std::int32_t label : data.labels) labels << static_cast<char>(label);
  }
}

}  // namespace halftone::testing
