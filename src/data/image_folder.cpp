#include "halftone/data/image_folder.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <map>
#include <mutex>
#include <new>
#include <thread>

#include "halftone/data/image.hpp"
#include "halftone/tensor/text.hpp"
#include "src/data/decode_image.hpp"
#include "src/data/places.hpp"

namespace halftone {
namespace fs = std::filesystem;

namespace {

struct File {
  fs::path path;
  std::int32_t label = 0;
};

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c; });
  return text;
}

/// Also by formats that are not read, so that none is left out in silence.
bool is_image(const fs::path& path) {
  const std::string ending = lower(path.extension().string());
  for (const char* known : {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".heic",
                            ".heif", ".avif", ".jp2", ".jxl", ".ppm", ".pgm", ".pnm", ".tga"})
    if (ending == known) return true;
  return false;
}

/// What a folder holds that `wanted` accepts, sorted; nothing hidden, nor what lies in hidden folders.
template <class Entries, class Wanted>
std::vector<fs::path> sorted(const fs::path& dir, Wanted&& wanted) {
  std::vector<fs::path> found;
  std::error_code error;
  for (Entries entry(dir, error), end; !error && entry != end; entry.increment(error)) {
    const bool hidden = entry->path().filename().string().starts_with('.');
    if constexpr (requires { entry.disable_recursion_pending(); })
      if (hidden) entry.disable_recursion_pending();
    if (!hidden && wanted(*entry)) found.push_back(entry->path());
  }
  if (error) throw FileError(fmt::format("{} cannot be read: {}", dir.string(), error.message()));
  std::ranges::sort(found);
  return found;
}

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

std::vector<fs::path> folders_in(const fs::path& dir) {
  return sorted<fs::directory_iterator>(dir, [](const fs::directory_entry& entry) { return is_folder(entry.path()); });
}

std::vector<std::string> classes_in(const fs::path& dir) {
  std::vector<std::string> names;
  for (const fs::path& path : folders_in(dir))
    if (!is_utf8(names.emplace_back(path.filename().string())))
      throw FileError(path.string() + " is a class, and its name is not UTF-8");
  if (names.empty()) throw FileError(dir.string() + " holds no folders, of which each would be a class");
  return names;
}

/// The images of all classes, in turn one of each.
std::vector<File> files_in(const fs::path& dir, const std::vector<std::string>& classes) {
  std::vector<std::pair<std::size_t, File>> found;
  for (const std::string& name : classes_in(dir)) {
    const auto label = std::ranges::find(classes, name) - classes.begin();
    if (label == std::ssize(classes))
      throw FileError(
          fmt::format("{}: {} is none of the {} classes of the training set", dir.string(), name, classes.size()));
    std::size_t turn = 0;
    std::vector<fs::path> images =
        sorted<fs::recursive_directory_iterator>(dir / name, [](const fs::directory_entry& entry) {
          const bool folder = is_folder(entry);
          if (folder && fs::is_symlink(entry.symlink_status()))
            throw FileError(entry.path().string() + " is a link to a folder, which is not followed inside a class");
          return is_image(entry.path()) && !folder;
        });
    if (images.empty()) throw FileError((dir / name).string() + " is a class and holds no images");
    for (fs::path& path : images) found.push_back({turn++, {std::move(path), static_cast<std::int32_t>(label)}});
  }
  std::ranges::stable_sort(found, {}, [](const auto& one) { return std::pair(one.first, one.second.label); });
  std::vector<File> files;
  for (auto& one : found) files.push_back(std::move(one.second));
  return files;
}

/// Decodes all files into `data.pixels`. Returns what is wrong with those that are broken.
std::vector<std::string> decode(Dataset& data, const std::vector<File>& files, int threads) {
  std::vector<std::string> broken(files.size());
  std::atomic<std::size_t> next = 0;
  std::exception_ptr error;
  std::mutex mutex;
  const std::size_t bytes = data.image_bytes();
  const auto work = [&] {
    try {
      for (std::size_t i; (i = next++) < files.size();) {
        try {
          const std::vector<std::uint8_t> image = read_image(files[i].path, data.image);
          std::ranges::copy(std::as_bytes(std::span(image)),
                            data.pixels.begin() + static_cast<std::ptrdiff_t>(i * bytes));
        } catch (const FileError& wrong) {
          broken[i] = wrong.what();
        }
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      error = std::current_exception();
      next = files.size();
    }
  };
  {
    std::vector<std::jthread> others;
    const std::size_t most = threads > 0 ? static_cast<std::size_t>(threads) : std::thread::hardware_concurrency();
    for (std::size_t i = 1; i < std::min(most, files.size()); ++i) others.emplace_back(work);
    work();
  }
  if (error) std::rethrow_exception(error);
  return broken;
}

/// The folders of both splits; where there is one folder for both, the second is empty.
std::pair<fs::path, fs::path> parts_of(const fs::path& dir) {
  if (!is_folder(dir)) throw FileError(dir.string() + " is no folder");
  if (!is_folder(dir / "train")) return {dir, {}};
  for (const char* name : {"test", "val", "valid"})
    if (is_folder(dir / name)) return {dir / "train", dir / name};
  return {dir / "train", {}};
}

/// The images of `data.split` in the folder of a set, whose classes become the data's.
std::vector<File> files_of_classes(Dataset& data, const fs::path& place, const DataOptions& options) {
  const auto [train, test] = parts_of(place);
  hold_out(
      data, options, !test.empty(),
      place.string() + (train == place ? " has no train/ and test/" : " has train/, but no test/, val/ or valid/"));
  const bool apart = !data.whole && data.validation == 0;
  data.class_names = options.class_names.empty() ? classes_in(train) : options.class_names;
  data.classes = static_cast<int>(data.class_names.size());
  std::vector<File> files = files_in(data.split == Split::test && apart ? test : train, data.class_names);
  if (data.validation != 0) {
    std::vector<std::int32_t> labels;
    std::vector<std::uint32_t> keys;  // so that another file changes nothing for the other classes
    for (const File& file : files) {
      const std::string path = file.path.lexically_relative(train).string();
      labels.push_back(file.label);
      keys.push_back(static_cast<std::uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(path.data()), path.size())));
    }
    std::vector<File> taken;
    for (const std::size_t i : part_of(labels, data.validation, data.split, keys)) taken.push_back(std::move(files[i]));
    files = std::move(taken);
  }
  return files;
}

/// The images in a folder without classes.
std::vector<File> files_without_labels(Dataset& data, const fs::path& place, const DataOptions& options) {
  take_whole(data, options, place.string() + " holds no classes");
  data.class_names = options.class_names;
  data.classes = static_cast<int>(data.class_names.size());
  std::vector<File> files;
  for (fs::path& path :
       sorted<fs::directory_iterator>(place, [](const fs::directory_entry& entry) { return is_image(entry.path()); }))
    files.push_back({std::move(path), -1});
  if (files.empty()) throw FileError(place.string() + " holds neither images nor folders of them");
  return files;
}

}  // namespace

Dataset read_image_folder(const fs::path& dir, Split split, const DataOptions& options) {
  fs::path place = dir.lexically_normal();
  if (!place.has_filename()) place = place.parent_path();
  Dataset data{.name = data_name("folder:" + place.string()), .split = split, .image = options.image};
  if (options.image.h == 0 || options.image.w == 0)
    fail(fmt::format("image: {} needs the size that its images are brought to, HEIGHTxWIDTH", data.name));
  check_image(options.image);
  std::vector<File> files = options.without_labels && is_folder(place) && folders_in(place).empty()
                                ? files_without_labels(data, place, options)
                                : files_of_classes(data, place, options);
  files.resize(
      static_cast<std::size_t>(images_to_take(data.name, static_cast<std::int64_t>(files.size()), options.limit)));
  try {
    data.pixels.resize(files.size() * data.image_bytes());
  } catch (const std::exception&) {  // bad_alloc or length_error
    throw Failure(
        fmt::format("{}: there is no memory for {} images of {}", data.name, files.size(), to_string(data.image)));
  }
  const std::vector<std::string> broken = decode(data, files, options.threads);
  std::size_t kept = 0;
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (!broken[i].empty()) {
      data.left_out.push_back(broken[i]);
      continue;
    }
    if (kept < i)
      std::copy_n(data.at(static_cast<std::int64_t>(i)), data.image_bytes(),
                  data.pixels.begin() + static_cast<std::ptrdiff_t>(kept * data.image_bytes()));
    data.labels.push_back(files[i].label);
    data.files.push_back(files[i].path.lexically_relative(place).string());
    ++kept;
  }
  data.pixels.resize(kept * data.image_bytes());
  if (!data.left_out.empty() && (!options.skip_broken || kept == 0))
    throw FileError(fmt::format("{}: {} of {} images are broken; the first: {}", data.name, data.left_out.size(),
                                files.size(), data.left_out.front()));
  measure(data, data.pixels);
  return data;
}

}  // namespace halftone
