#include "halftone/data/dataset.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>

#include "halftone/data/cifar10.hpp"
#include "halftone/data/fetch.hpp"
#include "halftone/data/image_folder.hpp"
#include "halftone/data/mnist.hpp"
#include "halftone/data/npz.hpp"
#include "halftone/data/rendered_digits.hpp"
#include "halftone/numeric/philox.hpp"
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
    const auto deviation = static_cast<float>(std::sqrt(squares / count) / unit);
    data.stddev.push_back(deviation >= std::numeric_limits<float>::min() ? deviation : 1.0f);
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
  Dataset (*read)(std::string_view name, const fs::path& dir, Split, std::int64_t limit);
  bool (*lies_in)(std::string_view name, const fs::path& dir);
  std::array<std::string_view, 5> folders;  // of a place, in which it may lie
  std::string_view classes;                 // their names
};

bool any_exists(const fs::path& one, const fs::path& other) {
  std::error_code ignored;
  return fs::exists(one, ignored) || fs::exists(other, ignored);
}

bool idx_lies_in(std::string_view, const fs::path& dir) {
  return any_exists(idx_file(dir, Split::train, "images", 3), idx_file(dir, Split::test, "images", 3));
}

bool emnist_lies_in(std::string_view set, const fs::path& dir) {
  return any_exists(idx_file(dir, Split::train, "images", 3, set), idx_file(dir, Split::test, "images", 3, set));
}

bool cifar10_lies_in(std::string_view, const fs::path& dir) {
  return any_exists(dir / "data_batch_1.bin", dir / "test_batch.bin");
}

bool cifar100_lies_in(std::string_view, const fs::path& dir) { return any_exists(dir / "train.bin", dir / "test.bin"); }

template <auto read_set>
Dataset read(std::string_view, const fs::path& dir, Split split, std::int64_t limit) {
  return read_set(dir, split, limit);
}

constexpr Source emnist(std::string_view name, std::string_view classes) {
  return {name, read_emnist, emnist_lies_in, {"", "gzip", "raw", "EMNIST/raw", "../emnist/gzip"}, classes};
}

constexpr std::string_view digits = "0,1,2,3,4,5,6,7,8,9";
constexpr std::string_view some_lower =
    "0,1,2,3,4,5,6,7,8,9,A,B,C,D,E,F,G,H,I,J,K,L,M,N,O,P,Q,R,S,T,U,V,W,X,Y,Z,a,b,d,e,f,g,h,n,q,r,t";
constexpr Source sources[] = {
    {"mnist", read<read_mnist>, idx_lies_in, {"", "raw", "MNIST/raw"}, digits},
    {"fashion-mnist",
     read<read_fashion_mnist>,
     idx_lies_in,
     {"", "raw", "FashionMNIST/raw"},
     "t-shirt,trouser,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle boot"},
    {"kmnist", read<read_kmnist>, idx_lies_in, {"", "raw", "KMNIST/raw"}, "o,ki,su,tsu,na,ha,ma,ya,re,wo"},
    emnist("emnist-balanced", some_lower),
    emnist("emnist-bymerge", some_lower),
    emnist("emnist-byclass",
           "0,1,2,3,4,5,6,7,8,9,A,B,C,D,E,F,G,H,I,J,K,L,M,N,O,P,Q,R,S,T,U,V,W,X,Y,Z,a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,"
           "r,s,t,u,v,w,x,y,z"),
    emnist("emnist-letters", "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z"),
    emnist("emnist-digits", digits),
    emnist("emnist-mnist", digits),
    {"cifar10",
     read<read_cifar10>,
     cifar10_lies_in,
     {"", "cifar-10-batches-bin"},
     "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"},
    {"cifar100",
     read<read_cifar100>,
     cifar100_lies_in,
     {"", "cifar-100-binary"},
     "apple,aquarium_fish,baby,bear,beaver,bed,bee,beetle,bicycle,bottle,bowl,boy,bridge,bus,butterfly,camel,can,"
     "castle,"
     "caterpillar,cattle,chair,chimpanzee,clock,cloud,cockroach,couch,crab,crocodile,cup,dinosaur,dolphin,elephant,"
     "flatfish,forest,fox,girl,hamster,house,kangaroo,keyboard,lamp,lawn_mower,leopard,lion,lizard,lobster,man,"
     "maple_tree,motorcycle,mountain,mouse,mushroom,oak_tree,orange,orchid,otter,palm_tree,pear,pickup_truck,pine_tree,"
     "plain,plate,poppy,porcupine,possum,rabbit,raccoon,ray,road,rocket,rose,sea,seal,shark,shrew,skunk,skyscraper,"
     "snail,snake,spider,squirrel,streetcar,sunflower,sweet_pepper,table,tank,telephone,television,tiger,tractor,train,"
     "trout,tulip,turtle,wardrobe,whale,willow_tree,wolf,woman,worm"}};

constexpr std::string_view folder_prefix = "folder:", npz_prefix = "npz:";

Dataset named(Dataset data, std::string_view classes) {
  for (std::string_view name : parts(classes, ',')) data.class_names.emplace_back(name);
  return data;
}

const Source& source(std::string_view name) {
  for (const Source& s : sources)
    if (s.name == name) return s;
  fail(fmt::format("data {}: it is {}", name, data_spellings()));
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
  const std::byte* first = training_pixels.data();
  if (data.dtype == DType::u8)
    measure(data, std::span(reinterpret_cast<const std::uint8_t*>(first), training_pixels.size()), 255);
  else
    measure(data, std::span(reinterpret_cast<const float*>(first), training_pixels.size() / sizeof(float)), 1);
}

void hold_out(Dataset& data, const DataOptions& options, bool test_part, std::string_view lacking) {
  data.validation = options.validation;
  if (options.validation != 0 || test_part) return;
  if (data.split == Split::test && !options.validation_without_parts)
    fail(fmt::format("validation: {}; the share of its images to test with must be given", lacking));
  data.validation = options.validation_without_parts.value_or(0);
  data.whole = data.validation == 0;
}

void take_whole(Dataset& data, const DataOptions& options, std::string_view lacking) {
  if (options.validation != 0) fail(fmt::format("validation: {}; a share of each class is held out", lacking));
  data.whole = true;
}

std::vector<std::size_t> part_of(std::span<const std::int32_t> labels, double share, Split split,
                                 std::span<const std::uint32_t> keys) {
  constexpr std::uint32_t stream = 0xda7a0003;
  if (!(share > 0 && share < 1)) fail(fmt::format("validation {}: it must lie between 0 and 1", share));
  std::map<std::int32_t, std::vector<std::size_t>> by_class;
  for (std::size_t i = 0; i < labels.size(); ++i) by_class[labels[i]].push_back(i);
  std::vector<char> tests(labels.size());
  for (auto& [label, images] : by_class) {
    std::ranges::sort(images, {}, [&](std::size_t i) {
      return std::pair(bits(1, 0, stream, keys.empty() ? static_cast<std::uint32_t>(i) : keys[i]), i);
    });
    const auto all = static_cast<double>(images.size()), most = std::max(all - 1, 0.0);
    const auto count = static_cast<std::size_t>(std::clamp(std::round(share * all), std::min(1.0, most), most));
    for (std::size_t i = 0; i < count; ++i) tests[images[i]] = 1;
  }
  std::vector<std::size_t> taken;
  for (std::size_t i = 0; i < labels.size(); ++i)
    if ((tests[i] != 0) == (split == Split::test)) taken.push_back(i);
  if (taken.empty()) fail(fmt::format("validation {}: no class has two images", share));
  return taken;
}

void keep(Dataset& data, std::span<const std::size_t> taken) {
  const std::size_t bytes = data.image_bytes();
  for (std::size_t i = 0; i < taken.size(); ++i) {
    std::memmove(data.pixels.data() + i * bytes, data.pixels.data() + taken[i] * bytes, bytes);
    data.labels[i] = data.labels[taken[i]];
  }
  data.labels.resize(taken.size());
  data.pixels.resize(taken.size() * bytes);
}

void truncate(Dataset& data, std::int64_t limit) {
  const std::int64_t count = images_to_take(data.name, data.size(), limit);
  data.labels.resize(static_cast<std::size_t>(count));
  data.pixels.resize(static_cast<std::size_t>(count) * data.image_bytes());
}

fs::path idx_file(const fs::path& dir, Split split, std::string_view kind, int dimensions, std::string_view set) {
  std::string prefix = split == Split::train ? "train" : set.empty() ? "t10k" : "test";
  if (!set.empty()) prefix = fmt::format("{}-{}", set, prefix);
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
      const fs::path dir = folder.empty() ? place : (place / folder).lexically_normal();
      if (wanted.lies_in(name, dir)) return dir;
    }
    searched += (searched.empty() ? "" : ", ") + place.string() + seen_in(place);
  }
  const auto fetchable = fetchable_names();
  const bool known = std::ranges::find(fetchable, name) != fetchable.end();
  throw Failure(fmt::format("{} is not in {}{}", name, searched,
                            known ? fmt::format("; 'halftone fetch {}' gets it", name) : ""));
}

std::string data_spellings() {
  std::vector<std::string_view> names = dataset_names();
  names.insert(names.end(), {"folder:DIR", "npz:FILE"});
  return listed(names, " or ");
}

bool is_own_data(std::string_view name) { return name.starts_with(folder_prefix) || name.starts_with(npz_prefix); }

std::string data_name(std::string_view spelling) {
  if (!is_own_data(spelling)) return std::string(spelling);
  const std::size_t place = spelling.find(':') + 1;
  fs::path path = fs::path(spelling.substr(place)).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return std::string(spelling.substr(0, place)) + path.filename().string();
}

Dataset load_dataset(std::string_view name, Split split, const DataOptions& options) {
  const auto place = [&](std::string_view prefix) {
    if (name.size() == prefix.size()) fail(fmt::format("data {}: a place is missing", name));
    if (!options.dir.empty()) fail(fmt::format("data-dir: data {} says itself where it lies", name));
    return fs::path(name.substr(prefix.size()));
  };
  if (name.starts_with(folder_prefix)) {
    if (options.layout != PixelLayout::unknown) fail(fmt::format("layout: data {} is no array", name));
    return read_image_folder(place(folder_prefix), split, options);
  }
  if (!options.class_names.empty()) fail(fmt::format("class names: data {} numbers its classes itself", name));
  const bool archive = name.starts_with(npz_prefix);
  if (options.skip_broken) fail(fmt::format("skip-broken: data {} is no folder of images", name));
  if (!archive && options.layout != PixelLayout::unknown) fail(fmt::format("layout: data {} is no array", name));
  Dataset data;
  if (archive) {
    data = read_npz(place(npz_prefix), split, options);
  } else {
    const bool parted = options.validation != 0;
    const Split from = parted ? Split::train : split;
    const std::int64_t limit = parted ? 0 : options.limit;
    if (name == "digits") {
      data = load_digits(from, limit);
    } else {
      const Source& wanted = source(name);
      data = named(wanted.read(name, find_data(name, options.dir), from, limit), wanted.classes);
    }
    if (parted) keep(data, part_of(data.labels, options.validation, split)), truncate(data, options.limit);
    data.validation = options.validation;
    data.split = split;
  }
  const Shape& asked = options.image;
  if (asked.h != 0 && (asked.h != data.image.h || asked.w != data.image.w))
    fail(fmt::format("image {}x{}: {} has images of {}x{}, and only a folder's are scaled", asked.h, asked.w, data.name,
                     data.image.h, data.image.w));
  if (asked.h != 0 && asked.c == 1 && data.image.c != 1)
    fail(fmt::format("image {}x{}x1: {} has {} channels, and only a folder's images are made gray", asked.h, asked.w,
                     data.name, data.image.c));
  return data;
}

Dataset load_dataset(std::string_view name, Split split, const fs::path& dir, std::int64_t limit) {
  return load_dataset(name, split, DataOptions{.dir = dir, .limit = limit});
}

}  // namespace halftone
