#include "halftone/data/dataset.hpp"

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ranges>

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
    fail(
        fmt::format("{}: the image shape must be [1, h, w, c], it is [{}, {}, {}, {}]", data.name, s.n, s.h, s.w, s.c));
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
  std::string_view train_file, test_file;  // one of them in a folder makes it the data set's
  Dataset (*read)(const fs::path& dir, Split, std::int64_t limit);
  std::string_view classes;  // their names
};

constexpr std::string_view mnist_train = "train-images-idx3-ubyte", mnist_test = "t10k-images-idx3-ubyte";
constexpr std::string_view digits = "0,1,2,3,4,5,6,7,8,9";
constexpr Source sources[] = {{"mnist", mnist_train, mnist_test, read_mnist, digits},
                              {"fashion-mnist", mnist_train, mnist_test, read_fashion_mnist,
                               "t-shirt,trouser,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle boot"},
                              {"cifar10", "data_batch_1.bin", "test_batch.bin", read_cifar10,
                               "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"}};

Dataset named(Dataset data, std::string_view classes) {
  for (const auto name : std::views::split(classes, ',')) data.class_names.emplace_back(name.begin(), name.end());
  return data;
}

const Source& source(std::string_view name) {
  for (const Source& s : sources)
    if (s.name == name) return s;
  fail(fmt::format("data {}: known data sets are {}", name, listed(dataset_names(), " and ")));
}

bool holds(const fs::path& dir, const Source& s) {
  std::error_code ignored;
  for (const std::string_view file : {s.train_file, s.test_file})
    for (const char* ending : {"", ".gz"})
      if (fs::exists(dir / (std::string(file) + ending), ignored)) return true;
  return false;
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

std::int64_t images_to_take(std::string_view name, std::int64_t have, std::int64_t limit) {
  if (limit < 0 || limit > have) fail(fmt::format("limit {}: {} has {} images", limit, name, have));
  return limit == 0 ? have : limit;
}

fs::path find_data(std::string_view name, const fs::path& dir) {
  const Source& wanted = source(name);
  const std::vector<fs::path> places = dir.empty() ? usual_places(name) : std::vector<fs::path>{dir};
  std::string searched;
  for (const fs::path& place : places) {
    if (holds(place, wanted)) return place;
    if (name == "cifar10" && holds(place / "cifar-10-batches-bin", wanted)) return place / "cifar-10-batches-bin";
    searched += (searched.empty() ? "" : ", ") + place.string();
  }
  throw Failure(fmt::format("{} is not in {}; 'halftone fetch {}' gets it", name, searched, name));
}

Dataset load_dataset(std::string_view name, Split split, const fs::path& dir, std::int64_t limit) {
  if (name == "digits") return load_digits(split, limit);
  const Source& wanted = source(name);
  return named(wanted.read(find_data(name, dir), split, limit), wanted.classes);
}

}  // namespace halftone
