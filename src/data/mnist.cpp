#include "halftone/data/mnist.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "src/data/places.hpp"

namespace halftone {
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t side = 28;
constexpr int classes = 10;

/// An idx file, gzipped or plain, whose header is checked while it is opened.
class IdxFile {
 public:
  IdxFile(const fs::path& dir, const std::string& name, std::uint32_t magic) : path_(dir / name) {
    if (std::error_code ignored; !fs::exists(path_, ignored)) path_ += ".gz";
    errno = 0;
    file_.reset(gzopen(path_.c_str(), "rb"));
    if (!file_) broken(fmt::format("cannot be opened: {}", std::strerror(errno)));
    const std::uint32_t found = number();
    if (path_.extension() == ".gz" && gzdirect(file_.get())) broken("is not a gzip file");
    if (found != magic)
      broken(fmt::format("is not the idx file expected: it begins with {:#010x}, not {:#010x}", found, magic));
    count_ = number();
  }

  std::int64_t count() const { return count_; }

  std::uint32_t number() {
    unsigned char b[4];
    if (read(b, 4) != 4) broken("ends inside its header");
    return std::uint32_t{b[0]} << 24 | std::uint32_t{b[1]} << 16 | std::uint32_t{b[2]} << 8 | b[3];
  }

  /// The first `items` items of `size` bytes; memory grows with what is there, not with what the header says.
  std::vector<std::byte> items(std::int64_t items, std::int64_t size) {
    constexpr std::int64_t chunk = 1 << 20;
    std::vector<std::byte> bytes;
    for (std::int64_t left = items * size; left > 0;) {
      const std::size_t want = static_cast<std::size_t>(std::min(left, chunk)), before = bytes.size();
      bytes.resize(before + want);
      const std::size_t got = read(bytes.data() + before, want);
      if (got < want)
        broken(fmt::format("ends early: its header tells of {} items, {} are there", count_,
                           (before + got) / static_cast<std::size_t>(size)));
      left -= static_cast<std::int64_t>(want);
    }
    std::byte extra;
    if (items == count_ && read(&extra, 1) != 0)
      broken(fmt::format("goes on after the {} items of its header", count_));
    return bytes;
  }

  [[noreturn]] void broken(const std::string& what) const { throw FileError(path_.string() + " " + what); }

 private:
  std::size_t read(void* to, std::size_t bytes) {
    const int got = gzread(file_.get(), to, static_cast<unsigned>(bytes));
    if (int ignored; got < 0) throw FileError(fmt::format("cannot read {}", gzerror(file_.get(), &ignored)));
    return static_cast<std::size_t>(got);
  }

  struct Close {
    void operator()(gzFile file) const { gzclose(file); }
  };
  fs::path path_;
  std::unique_ptr<gzFile_s, Close> file_;
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
  for (const std::byte label : labels.items(count, 1)) {
    if (std::to_integer<int>(label) >= classes)
      labels.broken(fmt::format("has label {} at image {}, labels must be in [0, {})", std::to_integer<int>(label),
                                data.labels.size(), classes));
    data.labels.push_back(std::to_integer<std::int32_t>(label));
  }
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
