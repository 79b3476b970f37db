#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "halftone/data/dataset.hpp"

namespace halftone {

/// An image as evaluation may see it too: shifted by so many pixels, reflected at the border, then mirrored.
struct View {
  int dy = 0, dx = 0;
  bool mirror = false;
  float weight = 1;  ///< of its logits where several views are added
};

/// An image and its mirror image, each as it is (1/4) and shifted by a pixel up and left or down and right (1/8).
std::span<const View> six_views();

struct LoaderOptions {
  std::int64_t batch = 128;
  std::optional<bool> shuffle = {};  ///< by default as the split: train yes, test no
  int crop = 0;                      ///< pads by so many pixels on each side, then crops at random to the old size
  bool reflect = false;              ///< the padding shows the image reflected at its border, not the mean
  bool flip = false;                 ///< mirrors left and right half of the images, chosen at random
  bool alternate = false;            ///< flip: at random in the first epoch, then each image in every other one
  int cutout = 0;                    ///< blanks a square of this side around a random pixel, clipped at the border
  int workers = 1;                   ///< threads that make batches; 0: the calling thread
  int prefetch = 2;                  ///< batches made ahead; 0: the calling thread makes each when it is asked for
  View view = {};                    ///< of all images, whatever else happens to them
  std::uint64_t seed = 1;
  std::int64_t limit = 0;              ///< only the first so many images, 0: all
  std::optional<bool> drop_last = {};  ///< whether a short last batch is left out, by default train yes, test no
};

struct Batch {
  std::int64_t size = 0;
  std::vector<std::byte> images;  // [size, h, w, c] in the data set's dtype
  std::vector<std::int32_t> labels;
};

/// Batches in order, made ahead by worker threads. May be destroyed before its end.
class Epoch {
 public:
  using Make = std::function<void(std::int64_t batch, Batch&)>;

  /// Serves the batches [first, last) that `make` fills; `make` is called from `workers` threads at once.
  Epoch(Make make, std::int64_t first, std::int64_t last, int workers, int prefetch);
  ~Epoch();
  Epoch(Epoch&&) noexcept;
  Epoch& operator=(Epoch&&) noexcept;

  /// The next batch, valid until the following call, or nullptr at the end. Rethrows what `make` threw. In a process
  /// forked meanwhile throws Error if there are workers.
  const Batch* next();

 private:
  class Queue;
  std::unique_ptr<Queue> queue_;
};

/// Cuts a data set into batches. What batch b of epoch e holds depends only on the data, the options and (e, b), never
/// on workers, prefetch or what was read before. Padding and cutout fill with the value nearest to the channel's mean,
/// which is zero after normalisation.
class Loader {
 public:
  /// Throws Error on options out of range and on a batch larger than the data.
  Loader(std::shared_ptr<const Dataset> dataset, LoaderOptions options = {});

  std::int64_t batches() const;  ///< in an epoch
  std::int64_t batch() const { return options_.batch; }
  std::int64_t size() const { return size_; }  ///< images in use
  const Dataset& dataset() const { return *dataset_; }
  const LoaderOptions& options() const { return options_; }

  /// All the same images as they are, or in another view, in their order: what evaluation reads.
  Loader in_order() const;
  Loader in_order(const View& view) const;

  /// The batches of epoch `index` from `first_batch` on. Throws Error if there are fewer batches.
  Epoch epoch(std::int64_t index, std::int64_t first_batch = 0) const;

 private:
  std::shared_ptr<const Dataset> dataset_;
  LoaderOptions options_;
  std::int64_t size_ = 0;
};

/// Loaders over the data sets of load_dataset; an empty `dir` searches the usual places.
Loader mnist(const std::filesystem::path& dir, Split split, LoaderOptions options = {});
Loader fashion_mnist(const std::filesystem::path& dir, Split split, LoaderOptions options = {});
Loader cifar10(const std::filesystem::path& dir, Split split, LoaderOptions options = {});
Loader digits(Split split, LoaderOptions options = {});

}  // namespace halftone
