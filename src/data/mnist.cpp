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
constexpr int classes = 10;

/// An idx file, gzipped or plain, whose header is checked while it is opened.
class IdxFile {
 public:
  IdxFile(const fs::path& dir, Split split, std::string_view kind, int dimensions)
      : file_(idx_file(dir, split, kind, dimensions)) {
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
  Images(const fs::path& dir, Split split) : IdxFile(dir, split, "images", 3) {
    const std::uint32_t h = number(), w = number();
    if (h != side || w != side) broken(fmt::format("holds images of {} x {} pixels, not {} x {}", h, w, side, side));
    if (count() == 0) broken("holds no images");
  }

  std::vector<std::byte> pixels(std::int64_t wanted) { return items(wanted, side * side); }
};

/// What is known of a data set: checksums of its training and test images, mean and deviation of the first.
struct Known {
  std::uint32_t train, test;
  float mean, stddev;
};

Dataset read(const char* name, const Known& known, const fs::path& dir, Split split, std::int64_t limit) {
  Dataset data{.name = name, .split = split, .image = {1, side, side, 1}};
  Images images(dir, split);
  IdxFile labels(dir, split, "labels", 1);
  if (labels.count() != images.count())
    labels.broken(fmt::format("has {} labels, but there are {} images", labels.count(), images.count()));
  const std::int64_t count = images_to_take(data.name, images.count(), limit);
  data.pixels = images.pixels(count);
  for (const std::byte label : labels.items(labels.count(), 1)) {
    if (std::to_integer<int>(label) >= classes)
      labels.broken(fmt::format("has label {} at image {}, labels must be in [0, {})", std::to_integer<int>(label),
                                data.labels.size(), classes));
    data.labels.push_back(std::to_integer<std::int32_t>(label));
  }
  data.labels.resize(static_cast<std::size_t>(count));
  if (images.checksum() == (split == Split::train ? known.train : known.test)) {
    data.mean = {known.mean}, data.stddev = {known.stddev};
  } else {  // another set by the same names
    std::error_code ignored;
    Images training(dir, fs::exists(idx_file(dir, Split::train, "images", 3), ignored) ? Split::train : split);
    measure(data, training.pixels(training.count()));
  }
  return data;
}

}  // namespace

Dataset read_mnist(const fs::path& dir, Split split, std::int64_t limit) {
  return read("mnist", {0xf3639b56, 0xe4ca5f57, 0.13066048f, 0.30810781f}, dir, split, limit);
}

Dataset read_fashion_mnist(const fs::path& dir, Split split, std::int64_t limit) {
  return read("fashion-mnist", {0xae65dccd, 0x12728439, 0.28604059f, 0.35302424f}, dir, split, limit);
}

}  // namespace halftone
