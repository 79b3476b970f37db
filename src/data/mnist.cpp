#include "halftone/data/mnist.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>

#include "src/data/input_file.hpp"
#include "src/data/places.hpp"

namespace halftone {
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t side = 28;

/// How a set differs from MNIST, and what is known of its own files: checksums of training and test images, mean and
/// deviation of the first.
struct Set {
  std::string_view name, prefix = {};
  int classes = 10, first_label = 0;
  bool transposed = false;
  std::uint32_t train = 0, test = 0;
  float mean = 0, stddev = 0;
};

/// An idx file, gzipped or plain, whose header is checked while it is opened.
class IdxFile {
 public:
  IdxFile(const fs::path& dir, Split split, std::string_view kind, int dimensions, const Set& set)
      : file_(idx_file(dir, split, kind, dimensions, set.prefix)) {
    const std::uint32_t magic = 0x800u + static_cast<std::uint32_t>(dimensions), found = number();
    if (found != magic)
      broken(fmt::format("is not the idx file expected: it begins with {:#010x}, not {:#010x}", found, magic));
    count_ = number();
  }

  std::int64_t count() const { return count_; }
  std::uint32_t checksum() const { return checksum_; }  ///< of the items that were read

  std::uint32_t number() {
    std::uint32_t big_endian = 0;
    if (file_.read(std::as_writable_bytes(std::span(&big_endian, 1))) != 4) broken("ends inside its header");
    return __builtin_bswap32(big_endian);
  }

  /// Reads the items, of `size` bytes each, to the end of the file and returns the first `wanted`; memory grows with
  /// what is there, not with what the header says.
  std::vector<std::byte> items(std::int64_t wanted, std::int64_t size) {
    std::vector<std::byte> kept, chunk(1 << 20);
    std::int64_t bytes = 0;
    for (std::size_t got = 1; got > 0 && bytes <= count_ * size; bytes += static_cast<std::int64_t>(got)) {
      got = file_.read(chunk);
      checksum_ = static_cast<std::uint32_t>(crc32_z(checksum_, reinterpret_cast<const Bytef*>(chunk.data()), got));
      const std::size_t missing = static_cast<std::size_t>(wanted * size) - kept.size();
      kept.insert(kept.end(), chunk.data(), chunk.data() + std::min(got, missing));
    }
    if (bytes < count_ * size)
      broken(fmt::format("ends early: its header tells of {} items, {} are there", count_, bytes / size));
    if (bytes > count_ * size) broken(fmt::format("goes on after the {} items of its header", count_));
    return kept;
  }

  [[noreturn]] void broken(const std::string& what) const { file_.broken(what); }

 private:
  InputFile file_;
  std::int64_t count_ = 0;
  std::uint32_t checksum_ = 0;
};

struct Images : IdxFile {
  Images(const fs::path& dir, Split split, const Set& set) : IdxFile(dir, split, "images", 3, set) {
    const std::uint32_t h = number(), w = number();
    if (h != side || w != side) broken(fmt::format("holds images of {} x {} pixels, not {} x {}", h, w, side, side));
    if (count() == 0) broken("holds no images");
  }

  std::vector<std::byte> pixels(std::int64_t wanted) { return items(wanted, side * side); }
};

void transpose(std::vector<std::byte>& pixels) {
  for (std::size_t image = 0; image < pixels.size(); image += side * side)
    for (std::size_t y = 0; y < side; ++y)
      for (std::size_t x = 0; x < y; ++x) std::swap(pixels[image + y * side + x], pixels[image + x * side + y]);
}

Dataset read(const Set& set, const fs::path& dir, Split split, std::int64_t limit) {
  Dataset data{.name = std::string(set.name), .split = split, .image = {1, side, side, 1}, .classes = set.classes};
  Images images(dir, split, set);
  IdxFile labels(dir, split, "labels", 1, set);
  if (labels.count() != images.count())
    labels.broken(fmt::format("has {} labels, but there are {} images", labels.count(), images.count()));
  const std::int64_t count = images_to_take(data.name, images.count(), limit);
  data.pixels = images.pixels(count);
  if (set.transposed) transpose(data.pixels);
  for (const std::byte byte : labels.items(labels.count(), 1)) {
    const int label = std::to_integer<int>(byte), end = set.first_label + set.classes;
    if (label < set.first_label || label >= end)
      labels.broken(fmt::format("has label {} at image {}, labels must be in [{}, {})", label, data.labels.size(),
                                set.first_label, end));
    data.labels.push_back(label - set.first_label);
  }
  data.labels.resize(static_cast<std::size_t>(count));
  if (images.checksum() == (split == Split::train ? set.train : set.test)) {
    data.mean = {set.mean}, data.stddev = {set.stddev};
  } else if (split == Split::train && count == images.count()) {  // another set by the same names
    measure(data, data.pixels);
  } else {
    std::error_code ignored;
    const bool measurable = fs::exists(idx_file(dir, Split::train, "images", 3, set.prefix), ignored);
    Images training(dir, measurable ? Split::train : split, set);
    measure(data, training.pixels(training.count()));
  }
  return data;
}

constexpr Set mnist{
    .name = "mnist", .train = 0xf3639b56, .test = 0xe4ca5f57, .mean = 0.13066048f, .stddev = 0.30810781f};
constexpr Set fashion_mnist{
    .name = "fashion-mnist", .train = 0xae65dccd, .test = 0x12728439, .mean = 0.28604059f, .stddev = 0.35302424f};

}  // namespace

Dataset read_mnist(const fs::path& dir, Split split, std::int64_t limit) { return read(mnist, dir, split, limit); }

Dataset read_fashion_mnist(const fs::path& dir, Split split, std::int64_t limit) {
  return read(fashion_mnist, dir, split, limit);
}

Dataset read_kmnist(const fs::path& dir, Split split, std::int64_t limit) {
  return read({.name = "kmnist"}, dir, split, limit);
}

Dataset read_emnist(std::string_view name, const fs::path& dir, Split split, std::int64_t limit) {
  Set set{.name = name, .prefix = name, .transposed = true};
  if (name == "emnist-letters")
    set.classes = 26, set.first_label = 1;
  else if (name == "emnist-byclass")
    set.classes = 62;
  else if (name == "emnist-balanced" || name == "emnist-bymerge")
    set.classes = 47;
  else if (name != "emnist-digits" && name != "emnist-mnist")
    fail(fmt::format("data {}: no set of EMNIST", name));
  return read(set, dir, split, limit);
}

}  // namespace halftone
