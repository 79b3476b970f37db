#include "halftone/data/cifar10.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <span>

#include "src/data/input_file.hpp"
#include "src/data/places.hpp"

namespace halftone {
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t side = 32, channels = 3, plane = side * side, images_per_file = 10000;
constexpr std::int64_t record = 1 + channels * plane;
constexpr int classes = 10;

/// A file and the checksum that its content has if it is CIFAR-10's own.
struct Known {
  const char* name;
  std::uint32_t checksum;
};

constexpr Known training_files[] = {{"data_batch_1.bin", 0xb3220c1f},
                                    {"data_batch_2.bin", 0xc439a348},
                                    {"data_batch_3.bin", 0x8c6f54f0},
                                    {"data_batch_4.bin", 0x6a83637e},
                                    {"data_batch_5.bin", 0x2f355afd}};
constexpr Known test_files[] = {{"test_batch.bin", 0x19777d49}};

/// Appends the first `count` records of one file: a label byte, then a plane each of red, green and blue. The labels of
/// all are checked. Returns the checksum of the file.
std::uint32_t append(Dataset& data, const fs::path& path, std::int64_t count) {
  InputFile file(path);
  if (file.size() != images_per_file * record)
    file.broken(fmt::format("has {} bytes, a CIFAR-10 file has {}", file.size(), images_per_file * record));
  std::array<std::byte, record> bytes;
  uLong checksum = 0;
  for (std::int64_t i = 0; i < images_per_file; ++i) {
    if (file.read(bytes) != bytes.size()) file.broken("cannot be read");
    checksum = crc32_z(checksum, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
    const int label = std::to_integer<int>(bytes[0]);
    if (label >= classes)
      file.broken(fmt::format("has label {} at image {}, labels must be in [0, {})", label, i, classes));
    if (i >= count) continue;
    data.labels.push_back(label);
    for (std::int64_t p = 0; p < plane; ++p)
      for (std::int64_t c = 0; c < channels; ++c)
        data.pixels.push_back(bytes[static_cast<std::size_t>(1 + c * plane + p)]);
  }
  return static_cast<std::uint32_t>(checksum);
}

/// Reads the first `count` images of these files; true if what was read is CIFAR-10's own.
bool append(Dataset& data, const fs::path& dir, std::span<const Known> files, std::int64_t count) {
  bool own = true;
  data.pixels.reserve(static_cast<std::size_t>(count * channels * plane));
  for (const Known& file : files)
    if (data.size() < count)
      own &= append(data, dir / file.name, std::min(images_per_file, count - data.size())) == file.checksum;
  return own;
}

bool all_there(const fs::path& dir, std::span<const Known> files) {
  return std::ranges::all_of(files, [&](const Known& file) {
    std::error_code ignored;
    return fs::exists(dir / file.name, ignored);
  });
}

}  // namespace

Dataset read_cifar10(const fs::path& dir, Split split, std::int64_t limit) {
  Dataset data{.name = "cifar10",
               .split = split,
               .image = {1, side, side, channels},
               .mean = {0.49139968f, 0.48215841f, 0.44653091f},
               .stddev = {0.24703223f, 0.24348513f, 0.26158784f}};
  const std::span<const Known> files = split == Split::train ? std::span<const Known>(training_files) : test_files;
  const auto all = [](std::span<const Known> f) { return static_cast<std::int64_t>(f.size()) * images_per_file; };
  if (!append(data, dir, files, images_to_take(data.name, all(files), limit))) {  // another set by the same names
    const bool measurable = all_there(dir, training_files);
    Dataset training;
    if (measurable) append(training, dir, training_files, all(training_files));
    measure(data, measurable ? training.pixels : data.pixels);
  }
  return data;
}

}  // namespace halftone
