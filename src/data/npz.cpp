#include "halftone/data/npz.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>

#include "halftone/tensor/text.hpp"
#include "src/data/places.hpp"
#include "src/data/zip_file.hpp"

namespace halftone {
namespace {

/// An array of a NumPy file, in C order.
struct Array {
  std::string type;  // as NumPy spells it: <f4
  std::vector<std::int64_t> shape;
  std::vector<std::byte> bytes;

  std::size_t item() const { return static_cast<std::size_t>(type[2] - '0'); }
  std::string text() const { return fmt::format("{} of ({})", type, fmt::join(shape, ", ")); }
};

class Archive {
 public:
  explicit Archive(const std::filesystem::path& path) : zip_(path), path_(path.string()) {}

  bool has(const std::string& name) const {
    const std::vector<std::string> names = zip_.names();
    return std::ranges::find(names, name + ".npy") != names.end();
  }

  Array read(const std::string& name) {
    const std::string member = name + ".npy";
    Array array{{}, {}, zip_.read(member)};
    const auto byte = [&](std::size_t at) { return std::to_integer<std::size_t>(array.bytes[at]); };
    constexpr std::size_t least = 12;
    if (array.bytes.size() < least || std::memcmp(array.bytes.data(), "\x93NUMPY", 6) != 0)
      broken(name, "is no NumPy array");
    const std::size_t version = byte(6);
    if (version < 1 || version > 3)
      broken(name, fmt::format("is of version {} of its format, which is not read", version));
    const bool wide = version > 1;
    const std::size_t begin = wide ? 12 : 10,
                      size = byte(8) | byte(9) << 8 | (wide ? byte(10) << 16 | byte(11) << 24 : 0);
    if (size > array.bytes.size() - begin) broken(name, "ends inside its header");
    read_header(array, {reinterpret_cast<const char*>(array.bytes.data()) + begin, size}, name);
    array.bytes.erase(array.bytes.begin(), array.bytes.begin() + static_cast<std::ptrdiff_t>(begin + size));
    std::size_t items = array.bytes.size() / array.item();
    if (array.bytes.size() % array.item() != 0) broken(name, "has not the bytes of its shape");
    for (const std::int64_t extent : array.shape) {
      if (extent < 1 || items % static_cast<std::size_t>(extent) != 0)
        broken(name, extent == 0 ? "is empty" : "has not the bytes of its shape");
      items /= static_cast<std::size_t>(extent);
    }
    if (items != 1) broken(name, "has not the bytes of its shape");
    return array;
  }

  [[noreturn]] void broken(const std::string& name, const std::string& what) const {
    throw FileError(fmt::format("{}: {} {}", path_, name, what));
  }

  std::string held() const { return fmt::format("{}", fmt::join(zip_.names(), ", ")); }

 private:
  /// What stands behind `key` in a header such as {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }.
  std::string_view behind(std::string_view header, std::string_view key, const std::string& name) const {
    const std::size_t at = header.find(fmt::format("'{}':", key));
    if (at == std::string_view::npos) broken(name, fmt::format("does not say its {}", key));
    header.remove_prefix(at + key.size() + 3);
    header.remove_prefix(std::min(header.find_first_not_of(' '), header.size()));
    return header;
  }

  void read_header(Array& array, std::string_view header, const std::string& name) const {
    const std::string_view type = behind(header, "descr", name);
    constexpr std::string_view kinds = "uifb";  // others, as text, have items of other sizes
    if (type.size() < 5 || type[0] != '\'' || type[4] != '\'' || type[3] < '1' || type[3] > '8' ||
        kinds.find(type[2]) == std::string_view::npos)
      broken(name, fmt::format("is of {}, which is not read", type.substr(0, type.find(", 'f"))));
    array.type = type.substr(1, 3);
    if (!behind(header, "fortran_order", name).starts_with("False"))
      broken(name, "lies in Fortran's order: save numpy.ascontiguousarray of it");
    std::string_view shape = behind(header, "shape", name);
    const std::size_t end = shape.find(')');
    if (!shape.starts_with('(') || end == std::string_view::npos) broken(name, "does not say its shape");
    for (std::string_view part : parts(shape.substr(1, end - 1), ',')) {
      part.remove_prefix(std::min(part.find_first_not_of(' '), part.size()));
      if (part.empty()) continue;
      std::int64_t extent = -1;
      const auto [rest, error] = std::from_chars(part.data(), part.data() + part.size(), extent);
      if (error != std::errc() || rest != part.data() + part.size() || extent < 0)
        broken(name, "does not say its shape");
      array.shape.push_back(extent);
    }
  }

  ZipFile zip_;
  std::string path_;
};

template <class T>
std::vector<std::int32_t> labels_of(const Array& array, std::int64_t& largest) {
  std::vector<std::int32_t> labels;
  constexpr std::int64_t most = 1 << 20;
  for (std::size_t at = 0; at < array.bytes.size(); at += sizeof(T)) {
    T value;
    std::memcpy(&value, &array.bytes[at], sizeof value);
    const bool good = std::cmp_greater_equal(value, 0) && std::cmp_less(value, most);
    labels.push_back(good ? static_cast<std::int32_t>(value) : -1);
    if (good) largest = std::max(largest, static_cast<std::int64_t>(value));
  }
  return labels;
}

std::vector<std::int32_t> read_labels(Archive& archive, const std::string& name, std::int64_t& largest) {
  const Array array = archive.read(name);
  if (array.shape.empty() || array.shape[0] * static_cast<std::int64_t>(array.item()) != std::ssize(array.bytes))
    archive.broken(name, fmt::format("is {}, labels are (n) or (n, 1)", array.text()));
  std::vector<std::int32_t> labels;
  const std::string kind = array.type.substr(1);
  if (array.type[0] == '>') archive.broken(name, "is big-endian: save it little-endian");
  if (kind == "u1") labels = labels_of<std::uint8_t>(array, largest);
  if (kind == "i1") labels = labels_of<std::int8_t>(array, largest);
  if (kind == "u2") labels = labels_of<std::uint16_t>(array, largest);
  if (kind == "i2") labels = labels_of<std::int16_t>(array, largest);
  if (kind == "u4") labels = labels_of<std::uint32_t>(array, largest);
  if (kind == "i4") labels = labels_of<std::int32_t>(array, largest);
  if (kind == "u8") labels = labels_of<std::uint64_t>(array, largest);
  if (kind == "i8") labels = labels_of<std::int64_t>(array, largest);
  if (labels.empty()) archive.broken(name, fmt::format("is {}, labels are integers", array.text()));
  const auto bad = std::ranges::find(labels, -1);
  if (bad != labels.end())
    archive.broken(name, fmt::format("has at {} a label that is not in [0, {})", bad - labels.begin(), 1 << 20));
  return labels;
}

/// [1, h, w, c] of an array of images, and whether its channels come first.
std::pair<Shape, bool> shape_of(const Archive& archive, const std::string& name, const Array& array,
                                const DataOptions& options) {
  const auto& s = array.shape;
  if (s.size() == 3) return {{1, s[1], s[2], 1}, false};
  if (s.size() != 4)
    archive.broken(name, fmt::format("is {}, images are (n, h, w), (n, h, w, c) or (n, c, h, w)", array.text()));
  const Shape last{1, s[1], s[2], s[3]}, first{1, s[2], s[3], s[1]};
  const auto fits = [&](const Shape& shape) { return shape.h == options.image.h && shape.w == options.image.w; };
  PixelLayout layout = options.layout;
  if (layout == PixelLayout::unknown && fits(last) != fits(first))
    layout = fits(last) ? PixelLayout::nhwc : PixelLayout::nchw;
  if (layout == PixelLayout::unknown)
    fail(fmt::format("layout: {} is {}; whether that is nhwc or nchw must be given", name, array.text()));
  return {layout == PixelLayout::nhwc ? last : first, layout == PixelLayout::nchw};
}

/// [n, c, h, w] to [n, h, w, c], where a pixel's number has `item` bytes.
std::vector<std::byte> channels_last(const std::vector<std::byte>& from, const Shape& image, std::size_t item) {
  std::vector<std::byte> to(from.size());
  const auto pixels = static_cast<std::size_t>(image.h * image.w), channels = static_cast<std::size_t>(image.c),
             each = pixels * channels;
  for (std::size_t i = 0; i < from.size() / item; ++i) {
    const std::size_t n = i / each, c = i % each / pixels, p = i % pixels;
    std::memcpy(&to[((n * pixels + p) * channels + c) * item], &from[i * item], item);
  }
  return to;
}

}  // namespace

Dataset read_npz(const std::filesystem::path& file, Split split, const DataOptions& options) {
  Archive archive(file);
  Dataset data{.name = "npz:" + file.filename().string(), .split = split};
  const bool one = archive.has("x");
  const std::string train = one ? "" : "_train";
  const bool labelled = !(options.without_labels && one && !archive.has("y"));
  if (!archive.has("x" + train) || (labelled && !archive.has("y" + train)))
    throw FileError(
        fmt::format("{} holds neither x and y nor x_train and y_train, but {}", file.string(), archive.held()));
  if (labelled) {
    hold_out(data, options, archive.has("x_test") && archive.has("y_test") && !one,
             file.string() + " has no x_test and y_test");
  } else {
    take_whole(data, options, file.string() + " has no y");
  }
  const bool apart = !data.whole && data.validation == 0;
  const std::string part = split == Split::test && apart ? "_test" : train, x = "x" + part, y = "y" + part;
  std::int64_t largest = 0;
  for (const char* other : {"y_train", "y_test"})  // both splits have the classes of all
    if (!one && archive.has(other) && other != y) read_labels(archive, other, largest);
  if (labelled) data.labels = read_labels(archive, y, largest);
  data.classes = labelled ? static_cast<int>(largest) + 1 : 0;

  Array images = archive.read(x);
  if (images.type != "|u1" && images.type != "<f4")
    archive.broken(x, fmt::format("is {}, images are |u1 (uint8) or <f4 (float32)", images.text()));
  if (!labelled && !images.shape.empty()) data.labels.assign(static_cast<std::size_t>(images.shape[0]), -1);
  if (images.shape.empty() || images.shape[0] != data.size())
    archive.broken(x, fmt::format("is {}, but {} has {} labels", images.text(), y, data.size()));
  data.dtype = images.type == "|u1" ? DType::u8 : DType::f32;
  const auto [image, channels_first] = shape_of(archive, x, images, options);
  data.image = image;
  data.pixels = channels_first ? channels_last(images.bytes, image, images.item()) : std::move(images.bytes);
  if (data.validation != 0) keep(data, part_of(data.labels, data.validation, split));
  truncate(data, options.limit);
  measure(data, data.pixels);
  return data;
}

}  // namespace halftone
