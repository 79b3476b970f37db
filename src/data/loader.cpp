#include "halftone/data/loader.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <numeric>

#include "halftone/numeric/philox.hpp"
#include "src/data/places.hpp"

namespace halftone {
namespace {

// Streams of random numbers, far from the node numbers of a graph.
constexpr std::uint32_t shuffle_stream = 0xda7a0001, augment_stream = 0xda7a0002;
constexpr std::uint64_t draws_per_image = 8;  // numbers of the augmentation stream that each image has to itself

std::vector<std::int64_t> order_of(std::int64_t size, bool shuffle, std::uint64_t seed, std::int64_t epoch) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(size));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  for (std::size_t i = order.size(); shuffle && i > 1; --i) {  // Fisher-Yates
    const std::uint64_t r = bits(seed, static_cast<std::uint64_t>(epoch), shuffle_stream, i);
    std::swap(order[i - 1], order[r * i >> 32]);
  }
  return order;
}

/// Random crop, mirror and cutout of one image.
class Augmentation {
 public:
  Augmentation(const Dataset& data, const LoaderOptions& options)
      : options_(options),
        h_(data.image.h),
        w_(data.image.w),
        pixel_(data.image_bytes() / static_cast<std::size_t>(h_ * w_)) {
    for (std::int64_t x = 0; x < w_; ++x)
      for (const float mean : data.mean) append(mean, data.dtype);
  }

  /// `image`: its number in the data set; `position`: in the epoch's order.
  void operator()(const std::byte* from, std::byte* to, std::int64_t epoch, std::int64_t image,
                  std::int64_t position) const {
    const auto draw_of = [&](std::int64_t of_epoch, std::int64_t place, std::uint64_t which, std::int64_t below) {
      assert(which < draws_per_image);
      const std::uint64_t element = static_cast<std::uint64_t>(place) * draws_per_image + which;
      const std::uint64_t r = bits(options_.seed, static_cast<std::uint64_t>(of_epoch), augment_stream, element);
      return static_cast<std::int64_t>(r * static_cast<std::uint64_t>(below) >> 32);
    };
    const auto draw = [&](std::uint64_t which, std::int64_t below) { return draw_of(epoch, position, which, below); };
    const std::int64_t offsets = 2 * options_.crop + 1, half = options_.cutout / 2;
    const View& view = options_.view;
    shift(from, to, draw(0, offsets) - options_.crop + view.dy, draw(1, offsets) - options_.crop + view.dx);
    const std::int64_t mirrored = options_.alternate ? draw_of(0, image, 5, 2) + epoch : draw(2, 2);
    if ((options_.flip && mirrored % 2 == 1) != view.mirror) mirror(to);
    if (options_.cutout > 0) blank(to, draw(3, h_) - half, draw(4, w_) - half);
  }

 private:
  std::size_t bytes(std::int64_t pixels) const { return static_cast<std::size_t>(pixels) * pixel_; }

  void append(float mean, DType dtype) {
    const auto byte = static_cast<std::uint8_t>(std::clamp(std::lround(mean * 255.0f), 0l, 255l));
    const auto* value =
        dtype == DType::u8 ? reinterpret_cast<const std::byte*>(&byte) : reinterpret_cast<const std::byte*>(&mean);
    fill_.insert(fill_.end(), value, value + size_of(dtype));
  }

  /// to[y][x] = from[y + dy][x + dx], reflected or filled outside.
  void shift(const std::byte* from, std::byte* to, std::int64_t dy, std::int64_t dx) const {
    const std::int64_t begin = std::max<std::int64_t>(0, -dx), end = std::min(w_, w_ - dx);
    for (std::int64_t y = 0; y < h_; ++y, to += bytes(w_)) {
      const std::int64_t row = reflects_ ? reflected(y + dy, h_) : y + dy;
      const bool inside = row >= 0 && row < h_;
      if (!inside || end - begin < w_) std::memcpy(to, fill_.data(), bytes(w_));
      if (inside) std::memcpy(to + bytes(begin), from + bytes(row * w_ + begin + dx), bytes(end - begin));
      for (std::int64_t x = 0; reflects_ && x < w_; ++x)
        if (x < begin || x >= end) std::memcpy(to + bytes(x), from + bytes(row * w_ + reflected(x + dx, w_)), pixel_);
    }
  }

  /// The place within [0, n) that stands for `i`; the border itself is not repeated.
  static std::int64_t reflected(std::int64_t i, std::int64_t n) { return i < 0 ? -i : i < n ? i : 2 * n - 2 - i; }

  void mirror(std::byte* image) const {
    for (std::int64_t y = 0; y < h_; ++y)
      for (std::int64_t x = 0; x < w_ / 2; ++x) {
        std::byte *left = image + bytes(y * w_ + x), *right = image + bytes(y * w_ + w_ - 1 - x);
        std::swap_ranges(left, left + pixel_, right);
      }
  }

  void blank(std::byte* image, std::int64_t top, std::int64_t left) const {
    const std::int64_t begin = std::max<std::int64_t>(0, left), end = std::min(w_, left + options_.cutout);
    for (std::int64_t y = std::max<std::int64_t>(0, top); y < std::min(h_, top + options_.cutout); ++y)
      std::memcpy(image + bytes(y * w_ + begin), fill_.data(), bytes(end - begin));
  }

  LoaderOptions options_;
  bool reflects_ = options_.reflect || options_.view.dy != 0 || options_.view.dx != 0;
  std::int64_t h_, w_;
  std::size_t pixel_;
  std::vector<std::byte> fill_;  // one row
};

void at_least(const char* option, std::int64_t value, std::int64_t least) {
  if (value < least) fail(fmt::format("loader option {} is {}, it must be at least {}", option, value, least));
}

void check(const Dataset& data, const LoaderOptions& options) {
  at_least("batch", options.batch, 1);
  at_least("crop", options.crop, 0);
  at_least("cutout", options.cutout, 0);
  at_least("workers", options.workers, 0);
  at_least("prefetch", options.prefetch, 0);
  if (options.reflect && options.crop == 0) fail("loader option reflect: there is no crop whose padding it could be");
  if (options.alternate && !options.flip) fail("loader option alternate: it says how to flip");
  const View& view = options.view;
  const bool shifts = view.dy != 0 || view.dx != 0;
  if (shifts && options.crop > 0 && !options.reflect)
    fail("loader option view: a shifted one is reflected at the border, so crop must be too (reflect)");
  const std::int64_t extent = std::min(data.image.h, data.image.w);
  const std::string images = fmt::format("the images of {} have {} x {} pixels", data.name, data.image.h, data.image.w);
  if (options.crop >= extent) fail(fmt::format("crop {}: {}", options.crop, images));
  if (std::max(std::abs(view.dy), std::abs(view.dx)) + options.crop >= extent)
    fail(fmt::format("loader option view: shifted by ({}, {}) with a crop of {}, but {}", view.dy, view.dx,
                     options.crop, images));
  if (data.pixels.size() != data.labels.size() * data.image_bytes() ||
      data.mean.size() != static_cast<std::size_t>(data.image.c))
    fail(fmt::format("data set {}: pixels, labels and mean do not fit together", data.name));
}

bool moves(const View& view) { return view.dy != 0 || view.dx != 0 || view.mirror; }

Loader named(const char* name, const std::filesystem::path& dir, Split split, LoaderOptions options) {
  return Loader(std::make_shared<const Dataset>(load_dataset(name, split, dir, options.limit)), options);
}

}  // namespace

Loader::Loader(std::shared_ptr<const Dataset> dataset, LoaderOptions options)
    : dataset_(std::move(dataset)), options_(options) {
  check(*dataset_, options_);
  const bool training = dataset_->split == Split::train;
  options_.shuffle = options_.shuffle.value_or(training);
  options_.drop_last = options_.drop_last.value_or(training);
  size_ = images_to_take(dataset_->name, dataset_->size(), options_.limit);
  if (options_.batch > size_) fail(fmt::format("batch {}: {} has {} images", options_.batch, dataset_->name, size_));
}

std::int64_t Loader::batches() const {
  return *options_.drop_last ? size_ / options_.batch : (size_ + options_.batch - 1) / options_.batch;
}

Loader Loader::in_order() const { return in_order(options_.view); }

Loader Loader::in_order(const View& view) const {
  LoaderOptions options = options_;
  options.view = view;
  options.shuffle = options.drop_last = options.flip = options.alternate = options.reflect = false;
  options.crop = options.cutout = 0;
  return Loader(dataset_, options);
}

Epoch Loader::epoch(std::int64_t index, std::int64_t first_batch) const {
  at_least("epoch", index, 0);
  if (first_batch < 0 || first_batch > batches())
    fail(fmt::format("batch {} of {} is asked for, there are {}", first_batch, dataset_->name, batches()));
  auto make = [data = dataset_, batch = options_.batch, size = size_, index,
               augmented = options_.crop > 0 || options_.flip || options_.cutout > 0 || moves(options_.view),
               augment = Augmentation(*dataset_, options_),
               order = order_of(size_, *options_.shuffle, options_.seed, index)](std::int64_t b, Batch& out) {
    const std::size_t bytes = data->image_bytes();
    out.size = std::min(batch, size - b * batch);
    out.images.resize(static_cast<std::size_t>(out.size) * bytes);
    out.labels.resize(static_cast<std::size_t>(out.size));
    for (std::size_t k = 0; k < out.labels.size(); ++k) {
      const std::int64_t position = b * batch + static_cast<std::int64_t>(k);
      const std::int64_t image = order[static_cast<std::size_t>(position)];
      std::byte* to = out.images.data() + k * bytes;
      out.labels[k] = data->labels[static_cast<std::size_t>(image)];
      if (augmented)
        augment(data->at(image), to, index, image, position);
      else
        std::memcpy(to, data->at(image), bytes);
    }
  };
  return Epoch(std::move(make), first_batch, batches(), options_.workers, options_.prefetch);
}

std::span<const View> six_views() {
  static constexpr View views[] = {{0, 0, false, 0.25f},   {0, 0, true, 0.25f},   {-1, -1, false, 0.125f},
                                   {-1, -1, true, 0.125f}, {1, 1, false, 0.125f}, {1, 1, true, 0.125f}};
  return views;
}

Loader mnist(const std::filesystem::path& dir, Split split, LoaderOptions options) {
  return named("mnist", dir, split, options);
}
Loader fashion_mnist(const std::filesystem::path& dir, Split split, LoaderOptions options) {
  return named("fashion-mnist", dir, split, options);
}
Loader cifar10(const std::filesystem::path& dir, Split split, LoaderOptions options) {
  return named("cifar10", dir, split, options);
}
Loader digits(Split split, LoaderOptions options) { return named("digits", {}, split, options); }

}  // namespace halftone
