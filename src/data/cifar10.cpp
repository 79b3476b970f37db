#include "halftone/data/cifar10.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "src/data/input_file.hpp"
#include "src/data/places.hpp"

namespace halftone {
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t side = 32, channels = 3, plane = side * side, images_per_file = 10000;
constexpr std::int64_t record = 1 + channels * plane;
constexpr int classes = 10;

/// Appends the first `count` records of one file: a label byte, then a plane each of red, green and blue. The labels of
/// all are checked.
void append(Dataset& data, const fs::path& path, std::int64_t count) {
  InputFile file(path);
  if (file.size() != images_per_file * record)
    file.broken(fmt::format("has {} bytes, a CIFAR-10 file has {}", file.size(), images_per_file * record));
  std::array<std::byte, record> bytes;
  for (std::int64_t i = 0; i < images_per_file; ++i) {
    if (file.read(bytes) != bytes.size()) file.broken("cannot be read");
    const int label = std::to_integer<int>(bytes[0]);
    if (label >= classes)
      file.broken(fmt::format("has label {} at image {}, labels must be in [0, {})", label, i, classes));
    if (i >= count) continue;
    data.labels.push_back(label);
    for (std::int64_t p = 0; p < plane; ++p)
      for (std::int64_t c = 0; c < channels; ++c)
        data.pixels.push_back(bytes[static_cast<std::size_t>(1 + c * plane + p)]);
  }
}

}  // namespace

Dataset read_cifar10(const fs::path& dir, Split split, std::int64_t limit) {
  Dataset data{.name = "cifar10",
               .split = split,
               .image = {1, side, side, channels},
               .mean = {0.49139968f, 0.48215841f, 0.44653091f},
               .stddev = {0.24703223f, 0.24348513f, 0.26158784f}};
  const int files = split == Split::train ? 5 : 1;
  const std::int64_t count = images_to_take(data.name, files * images_per_file, limit);
  data.pixels.reserve(static_cast<std::size_t>(count * channels * plane));
  for (int f = 1; data.size() < count; ++f)
    append(data, dir / (split == Split::train ? fmt::format("data_batch_{}.bin", f) : "test_batch.bin"),
           std::min(images_per_file, count - data.size()));
  return data;
}

}  // namespace halftone
