#include "halftone/data/mnist.hpp"

#include <fmt/format.h>

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
  IdxFile(const fs::path& dir, const std::string& name, std::uint32_t magic) : file_(existing(dir / name)) {
    const std::uint32_t found = number();
    if (found != magic)
      broken(fmt::format("is not the idx file expected: it begins with {:#010x}, not {:#010x}", found, magic));
    count_ = number();
  }

  std::int64_t count() const { return count_; }

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
  static fs::path existing(fs::path path) {
    if (std::error_code ignored; !fs::exists(path, ignored)) path += ".gz";
    return path;
  }

  InputFile file_;
  std::int64_t count_ = 0;
};

Dataset read(Dataset data, const fs::path& dir, Split split, std::int64_t limit) {
  const std::string prefix = split == Split::train ? "train" : "t10k";
  IdxFile images(dir, prefix + "-images-idx3-ubyte", 0x00000803);
  IdxFile labels(dir, prefix + "-labels-idx1-ubyte", 0x00000801);
  const std::uint32_t h = images.number(), w = images.number();
  if (h != side || w != side)
    images.broken(fmt::format("holds images of {} x {} pixels, not {} x {}", h, w, side, side));
  if (images.count() == 0) images.broken("holds no images");
  if (labels.count() != images.count())
    labels.broken(fmt::format("has {} labels, but there are {} images", labels.count(), images.count()));
  const std::int64_t count = images_to_take(data.name, images.count(), limit);
  data.split = split;
  data.image = {1, side, side, 1};
  data.pixels = images.items(count, side * side);
  for (const std::byte label : labels.items(labels.count(), 1)) {
    if (std::to_integer<int>(label) >= classes)
      labels.broken(fmt::format("has label {} at image {}, labels must be in [0, {})", std::to_integer<int>(label),
                                data.labels.size(), classes));
    data.labels.push_back(std::to_integer<std::int32_t>(label));
  }
  data.labels.resize(static_cast<std::size_t>(count));
  return data;
}

}  // namespace

Dataset read_mnist(const fs::path& dir, Split split, std::int64_t limit) {
  return read({.name = "mnist", .mean = {0.13066048f}, .stddev = {0.30810781f}}, dir, split, limit);
}

Dataset read_fashion_mnist(const fs::path& dir, Split split, std::int64_t limit) {
  return read({.name = "fashion-mnist", .mean = {0.28604059f}, .stddev = {0.35302424f}}, dir, split, limit);
}

}  // namespace halftone
