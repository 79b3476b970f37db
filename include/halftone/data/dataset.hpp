#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "halftone/numeric/formats.hpp"
#include "halftone/tensor/shape.hpp"

namespace halftone {

enum class Split { train, test };

/// Images of one size with one label each, all in memory; -1 where it is not known (`DataOptions::without_labels`).
struct Dataset {
  std::string name = {};
  Split split = Split::train;
  Shape image = {};                    ///< [1, h, w, c]
  DType dtype = DType::u8;             ///< u8 or f32
  std::vector<std::byte> pixels = {};  // [size, h, w, c]
  std::vector<std::int32_t> labels = {};
  int classes = 10;
  std::vector<std::string> class_names = {};  ///< one a class where they are known
  /// Per channel over the training set, of value / 255 for u8, of the value for f32. Of files by the names of a known
  /// set that hold another they are measured; without its training files, over the images that were read, as of data of
  /// the user's own.
  std::vector<float> mean = {}, stddev = {};
  bool synthetic = false;                  ///< drawn, not collected
  double validation = 0;                   ///< the share that was held out of the training set for testing
  bool whole = false;                      ///< own data without parts: all images, whichever split was asked for
  std::vector<std::string> files = {};     ///< of a folder: one an image, relative to it
  std::vector<std::string> left_out = {};  ///< files that are no sound image, each with its reason

  std::int64_t size() const { return static_cast<std::int64_t>(labels.size()); }
  std::size_t image_bytes() const { return static_cast<std::size_t>(image.elements()) * size_of(dtype); }
  const std::byte* at(std::int64_t index) const {
    return pixels.data() + static_cast<std::size_t>(index) * image_bytes();
  }
};

/// CRC-32 of its pixels, then its labels.
std::uint32_t checksum_of(const Dataset& data);

/// Makes a data set of pixels [labels.size(), image.h, image.w, image.c] and measures their mean and standard
/// deviation; a constant channel gets the standard deviation 1. Throws Error on sizes that do not fit, on labels
/// outside [0, classes) and on pixels that are not finite.
Dataset in_memory(std::string name, Shape image, std::span<const std::uint8_t> pixels, std::vector<std::int32_t> labels,
                  int classes = 10);
Dataset in_memory(std::string name, Shape image, std::span<const float> pixels, std::vector<std::int32_t> labels,
                  int classes = 10);

/// How an array of images lies in its file.
enum class PixelLayout { unknown, nhwc, nchw };

/// Which part of which data is loaded, and how.
struct DataOptions {
  std::filesystem::path dir = {};  ///< where a known set lies; empty: the usual places
  std::int64_t limit = 0;          ///< only the first so many images of the split, 0: all
  double validation = 0;           ///< this share of each class of the training set is the test split; 0: none
  Shape image = {1, 0, 0, 3};      ///< what a folder's images are brought to; c is 3 (RGB) or 1 (gray)
  PixelLayout layout = PixelLayout::unknown;  ///< of an archive's arrays of four axes
  int threads = 0;                            ///< that decode a folder's images; 0: all of the machine
  bool skip_broken = false;                   ///< leaves out files that are no sound image
  /// Taken for `validation` where that is 0 and own data have no test part; 0: all images are of either split.
  std::optional<double> validation_without_parts = {};
  std::vector<std::string> class_names = {};  ///< a folder's classes by label; empty: those that it has, sorted
  bool without_labels = false;  ///< takes images without labels too: of a folder without classes, an archive without y
};

/// The data sets that load_dataset knows: those that lie in files, and "digits", which are drawn.
std::vector<std::string_view> dataset_names();

/// "mnist, ..., folder:DIR or npz:FILE": all that load_dataset takes.
std::string data_spellings();

/// Whether `name` is data of the user's own: folder:DIR or npz:FILE.
bool is_own_data(std::string_view name);

/// What a data set is called: `spelling` without the place where data of the user's own lie, as folder:flowers.
std::string data_name(std::string_view spelling);

/// The folder that holds the files of a known set. A given `dir` is the only place searched; else
/// $HALFTONE_DATA/<name>,
/// ./data/<name> and the user's cache folder. They may lie deeper where others put them: in `MNIST/raw` or
/// `FashionMNIST/raw`, or `cifar-10-batches-bin`. Throws Failure that says what is there instead and how to get the
/// data.
std::filesystem::path find_data(std::string_view name, const std::filesystem::path& dir = {});

/// Loads or draws one of dataset_names(), or reads `folder:DIR` (data/image_folder.hpp) or `npz:FILE` (data/npz.hpp).
/// Throws Error for a limit beyond what there is and for options that do not fit, FileError for damaged files.
Dataset load_dataset(std::string_view name, Split split, const DataOptions& options);
Dataset load_dataset(std::string_view name, Split split, const std::filesystem::path& dir = {}, std::int64_t limit = 0);

}  // namespace halftone
