#include "halftone/data/dataset.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "halftone/data/cifar10.hpp"
#include "halftone/data/mnist.hpp"
#include "halftone/data/rendered_digits.hpp"
#include "halftone/tensor/text.hpp"
#include "src/data/places.hpp"

namespace halftone {
namespace fs = std::filesystem;

namespace {

void check_shape(const Dataset& data, std::size_t values) {
  const Shape& s = data.image;
  if (s.n != 1 || s.h < 1 || s.w < 1 || s.c < 1 || s.h > 65536 || s.w > 65536 || s.c > 65536)
    fail(fmt::format("{}: the image shape must be [1, h, w, c], it is {}", data.name, to_string(s)));
  if (data.labels.empty()) fail(fmt::format("{}: the data set is empty", data.name));
  const auto each = static_cast<std::size_t>(s.elements());
  if (values % each != 0 || values / each != data.labels.size())
    fail(fmt::format("{}: {} labels need {} pixel values each, {} values are given", data.name, data.labels.size(),
                     each, values));
}

void check_labels(const Dataset& data) {
  for (std::size_t i = 0; i < data.labels.size(); ++i)
    if (data.labels[i] < 0 || data.labels[i] >= data.classes)
      fail(fmt::format("{}: image {} has label {}, labels must be in [0, {})", data.name, i, data.labels[i],
                       data.classes));
}

template <class T>
void measure(Dataset& data, std::span<const T> values, double unit) {
  const auto channels = static_cast<std::size_t>(data.image.c);
  const std::size_t pixels = values.size() / channels;
  data.mean.clear(), data.stddev.clear();
  const auto count = static_cast<double>(pixels);
  for (std::size_t c = 0; c < channels; ++c) {
    double sum = 0, squares = 0;
    for (std::size_t i = c; i < values.size(); i += channels) sum += static_cast<double>(values[i]);
    const double mean = sum / count;
    if (!std::isfinite(mean)) fail(fmt::format("{}: channel {} has pixels that are not finite", data.name, c));
    for (std::size_t i = c; i < values.size(); i += channels) {
      const double d = static_cast<double>(values[i]) - mean;
      squares += d * d;
    }
    data.mean.push_back(static_cast<float>(mean / unit));
    data.stddev.push_back(squares > 0 ? static_cast<float>(std::sqrt(squares / count) / unit) : 1.0f);
  }
}

template <class T>
Dataset from_memory(std::string name, Shape image, std::span<const T> pixels, std::vector<std::int32_t> labels,
                    int classes) {
  constexpr bool bytes = sizeof(T) == 1;
  Dataset data{.name = std::move(name), .image = image, .labels = std::move(labels), .classes = classes};
  data.dtype = bytes ? DType::u8 : DType::f32;
  check_shape(data, pixels.size());
  check_labels(data);
  measure(data, pixels, bytes ? 255.0 : 1.0);
  data.pixels.resize(pixels.size() * sizeof(T));
  std::memcpy(data.pixels.data(), pixels.data(), data.pixels.size());
  return data;
}

struct Source {
  std::string_view name;
  Dataset (*read)(const fs::path& dir, Split, std::int64_t limit);
  bool (*lies_in)(const fs::path& dir);
  std::array<std::string_view, 3> folders;  // of a place, in which it may lie
  std::string_view classes;                 // their names
};

bool idx_lies_in(const fs::path& dir) {
  std::error_code ignored;
  return fs::exists(idx_file(dir, Split::train, "images", 3), ignored) ||
         fs::exists(idx_file(dir, Split::test, "images", 3), ignored);
}

bool cifar10_lies_in(const fs::path& dir) {
  std::error_code ignored;
  return fs::exists(dir / "data_batch_1.bin", ignored) || fs::exists(dir / "test_batch.bin", ignored);
}

constexpr std::string_view digits = "0,1,2,3,4,5,6,7,8,9";
constexpr Source sources[] = {{"mnist", read_mnist, idx_lies_in, {"", "raw", "MNIST/raw"}, digits},
                              {"fashion-mnist",
                               read_fashion_mnist,
                               idx_lies_in,
                               {"", "raw", "FashionMNIST/raw"},
                               "t-shirt,trouser,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle boot"},
                              {"cifar10",
                               read_cifar10,
                               cifar10_lies_in,
                               {"", "cifar-10-batches-bin"},
                               "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"}};

Dataset named(Dataset data, std::string_view classes) {
  for (std::string_view name : parts(classes, ',')) data.class_names.emplace_back(name);
  return data;
}

const Source& source(std::string_view name) {
  for (const Source& s : sources)
    if (s.name == name) return s;
  fail(fmt::format("data {}: known data sets are {}", name, listed(dataset_names(), " and ")));
}

/// ", which holds a, b, c and 5 more", or nothing for an empty place.
std::string seen_in(const fs::path& place) {
  constexpr std::size_t most = 3;
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(place, error), end; !error && entry != end; entry.increment(error))
    names.push_back(entry->path().filename().string());
  if (names.empty()) return "";
  std::ranges::sort(names);
  const std::size_t rest = names.size() - std::min(names.size(), most);
  names.resize(names.size() - rest);
  if (rest > 0) names.push_back(fmt::format("{} more", rest));
  return ", which holds " + listed(std::vector<std::string_view>(names.begin(), names.end()), " and ");
}

Dataset load_digits(Split split, std::int64_t limit) {
  const std::int64_t have = split == Split::train ? 20000 : 4000;
  return named(rendered_digits(split, images_to_take("digits", have, limit)), digits);
}

const char* environment(const char* name) {
  const char* value = std::getenv(name);
  return value && *value ? value : nullptr;
}

std::vector<fs::path> usual_places(std::string_view name) {
  std::vector<fs::path> places;
  if (const char* root = environment("HALFTONE_DATA")) places.push_back(fs::path(root) / name);
  places.push_back(fs::path("data") / name);
  if (const char* cache = environment("XDG_CACHE_HOME"))
    places.push_back(fs::path(cache) / "halftone" / name);
  else if (const char* home = environment("HOME"))
    places.push_back(fs::path(home) / ".cache" / "halftone" / name);
  return places;
}

}  // namespace

std::uint32_t checksum_of(const Dataset& data) {
  uLong sum = 0;
  for (const auto bytes : {std::span<const std::byte>(data.pixels), std::as_bytes(std::span(data.labels))})
    sum = crc32_z(sum, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
  return static_cast<std::uint32_t>(sum);
}

Dataset in_memory(std::string name, Shape image, std::span<const std::uint8_t> pixels, std::vector<std::int32_t> labels,
                  int classes) {
  return from_memory(std::move(name), image, pixels, std::move(labels), classes);
}

Dataset in_memory(std::string name, Shape image, std::span<const float> pixels, std::vector<std::int32_t> labels,
                  int classes) {
  return from_memory(std::move(name), image, pixels, std::move(labels), classes);
}

std::vector<std::string_view> dataset_names() {
  std::vector<std::string_view> names;
  for (const Source& s : sources) names.push_back(s.name);
  names.push_back("digits");
  return names;
}

fs::path download_folder(std::string_view name) {
  const std::vector<fs::path> places = usual_places(name);
  return environment("HALFTONE_DATA") ? places.front() : places.back();
}

void measure(Dataset& data, std::span<const std::byte> training_pixels) {
  measure(data, std::span(reinterpret_cast<const std::uint8_t*>(training_pixels.data()), training_pixels.size()), 255);
}

fs::path idx_file(const fs::path& dir, Split split, std::string_view kind, int dimensions) {
  const char* prefix = split == Split::train ? "train" : "t10k";
  std::error_code ignored;
  for (const char mark : {'-', '.'})
    for (const char* ending : {"", ".gz"}) {
      fs::path path = dir / fmt::format("{}-{}{}idx{}-ubyte{}", prefix, kind, mark, dimensions, ending);
      if (fs::exists(path, ignored)) return path;
    }
  return dir / fmt::format("{}-{}-idx{}-ubyte.gz", prefix, kind, dimensions);
}

std::int64_t images_to_take(std::string_view name, std::int64_t have, std::int64_t limit) {
  if (limit < 0 || limit > have) fail(fmt::format("limit {}: {} has {} images", limit, name, have));
  return limit == 0 ? have : limit;
}

fs::path find_data(std::string_view name, const fs::path& dir) {
  const Source& wanted = source(name);
  const std::vector<fs::path> places = dir.empty() ? usual_places(name) : std::vector<fs::path>{dir};
  std::string searched;
  for (const fs::path& place : places) {
    for (const std::string_view folder : wanted.folders) {
      const fs::path dir = folder.empty() ? place : place / folder;
      if (wanted.lies_in(dir)) return dir;
    }
    searched += (searched.empty() ? "" : ", ") + place.string() + seen_in(place);
  }
  throw Failure(fmt::format("{} is not in {}; 'halftone fetch {}' gets it", name, searched, name));
}

Dataset load_dataset(std::string_view name, Split split, const fs::path& dir, std::int64_t limit) {
  if (name == "digits") return load_digits(split, limit);
  const Source& wanted = source(name);
  return named(wanted.read(find_data(name, dir), split, limit), wanted.classes);
}

}  // namespace halftone
