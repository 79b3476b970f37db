#include "halftone/data/cifar10.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <span>

#include "src/data/input_file.hpp"
#include "src/data/places.hpp"

namespace halftone {
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t side = 32, channels = 3, plane = side * side;

/// A file and the checksum that its content has if it is CIFAR-10's own.
struct Known {
  const char* name;
  std::uint32_t checksum;
  std::int64_t images = 10000;
};

/// A set, the files of its two splits, and the bytes before an image, of which the last is its label.
struct Set {
  const char* name;
  const char* title;
  std::span<const Known> training_files, test_files;
  int classes;
  std::int64_t label_bytes;

  std::int64_t record() const { return label_bytes + channels * plane; }
};

constexpr Known training_files[] = {{"data_batch_1.bin", 0xb3220c1f},
                                    {"data_batch_2.bin", 0xc439a348},
                                    {"data_batch_3.bin", 0x8c6f54f0},
                                    {"data_batch_4.bin", 0x6a83637e},
                                    {"data_batch_5.bin", 0x2f355afd}};
constexpr Known test_files[] = {{"test_batch.bin", 0x19777d49}};
constexpr Known training_files_of_100[] = {{"train.bin", 0, 50000}}, test_files_of_100[] = {{"test.bin", 0}};

constexpr Set cifar10{"cifar10", "CIFAR-10", training_files, test_files, 10, 1};
constexpr Set cifar100{"cifar100", "CIFAR-100", training_files_of_100, test_files_of_100, 100, 2};

/// Appends the first `count` records of one file: its label, then a plane each of red, green and blue. The labels of
/// all are checked. Returns the checksum of the file.
std::uint32_t append(Dataset& data, const Set& set, const fs::path& path, std::int64_t images, std::int64_t count) {
  InputFile file(path);
  if (file.size() != static_cast<std::uint64_t>(images * set.record()))
    file.broken(fmt::format("has {} bytes, a {} file has {}", file.size(), set.title, images * set.record()));
  std::vector<std::byte> bytes(static_cast<std::size_t>(set.record()));
  uLong checksum = 0;
  for (std::int64_t i = 0; i < images; ++i) {
    if (file.read(bytes) != bytes.size()) file.broken("cannot be read");
    checksum = crc32_z(checksum, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
    const int label = std::to_integer<int>(bytes[static_cast<std::size_t>(set.label_bytes - 1)]);
    if (label >= set.classes)
      file.broken(fmt::format("has label {} at image {}, labels must be in [0, {})", label, i, set.classes));
    if (i >= count) continue;
    data.labels.push_back(label);
    for (std::int64_t p = 0; p < plane; ++p)
      for (std::int64_t c = 0; c < channels; ++c)
        data.pixels.push_back(bytes[static_cast<std::size_t>(set.label_bytes + c * plane + p)]);
  }
  return static_cast<std::uint32_t>(checksum);
}

/// Reads the first `count` images of these files; true if what was read is the set's own.
bool append(Dataset& data, const Set& set, const fs::path& dir, std::span<const Known> files, std::int64_t count) {
  bool own = true;
  data.pixels.reserve(static_cast<std::size_t>(count * channels * plane));
  for (const Known& file : files)
    if (data.size() < count)
      own &=
          append(data, set, dir / file.name, file.images, std::min(file.images, count - data.size())) == file.checksum;
  return own;
}

bool all_there(const fs::path& dir, std::span<const Known> files) {
  return std::ranges::all_of(files, [&](const Known& file) {
    std::error_code ignored;
    return fs::exists(dir / file.name, ignored);
  });
}

Dataset read(const Set& set, Dataset data, const fs::path& dir, Split split, std::int64_t limit) {
  data.name = set.name, data.split = split, data.image = {1, side, side, channels}, data.classes = set.classes;
  const auto all = [](std::span<const Known> files) {
    std::int64_t images = 0;
    for (const Known& file : files) images += file.images;
    return images;
  };
  const std::span<const Known> files = split == Split::train ? set.training_files : set.test_files;
  if (!append(data, set, dir, files, images_to_take(data.name, all(files), limit))) {  // another set by the same names
    const bool at_hand = split == Split::train && data.size() == all(files);
    Dataset training;
    if (!at_hand && all_there(dir, set.training_files))
      append(training, set, dir, set.training_files, all(set.training_files));
    measure(data, training.pixels.empty() ? data.pixels : training.pixels);
  }
  return data;
}

}  // namespace

Dataset read_cifar10(const fs::path& dir, Split split, std::int64_t limit) {
  return read(cifar10,
              {.mean = {0.49139968f, 0.48215841f, 0.44653091f}, .stddev = {0.24703223f, 0.24348513f, 0.26158784f}}, dir,
              split, limit);
}

Dataset read_cifar100(const fs::path& dir, Split split, std::int64_t limit) {
  return read(cifar100, {}, dir, split, limit);
}

}  // namespace halftone
