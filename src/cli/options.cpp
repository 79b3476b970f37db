#include "cli/options.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "halftone/io/atomic_file.hpp"
#include "halftone/tensor/error.hpp"
#include "halftone/tensor/text.hpp"

namespace halftone::cli {
namespace fs = std::filesystem;

namespace {

/// A decimal number that f32 can hold. With a 0 in front CLI11 would take it for an octal one.
std::optional<double> number(const std::string& text) {
  const bool octal = text.size() > 1 && text[0] == '0' && text[1] != '.';
  const auto value = parse_number(text);
  return value && fits_f32(*value) && !octal ? value : std::nullopt;
}

std::string range(double least, double most) {
  return fmt::format("at least {} and at most {}", static_cast<float>(least), static_cast<float>(most));
}

Shape parse_image(const std::string& text) {
  Shape image{1, 0, 0, 3};
  std::int64_t* const extents[] = {&image.h, &image.w, &image.c};
  const auto given = parts(text, 'x');
  bool good = given.size() == 2 || given.size() == 3;
  for (std::size_t i = 0; good && i < given.size(); ++i) {
    const auto value = number(std::string(given[i]));
    good = value && *value >= 1 && *value <= 65536 && std::floor(*value) == *value;
    if (good) *extents[i] = static_cast<std::int64_t>(*value);
  }
  if (!good || (image.c != 1 && image.c != 3))
    fail(fmt::format("--image {}: it is HEIGHTxWIDTH, or HEIGHTxWIDTHx1 for gray", text));
  return image;
}

bool writable(const fs::path& path) { return ::access(path.c_str(), W_OK) == 0; }

void check_folder(const std::string& option, const fs::path& target, const fs::path& folder) {
  std::error_code ignored;
  if (!fs::exists(folder, ignored))
    fail(fmt::format("{} {}: the folder {} does not exist", option, target.string(), folder.string()));
  if (!fs::is_directory(folder, ignored))
    fail(fmt::format("{} {}: {} is not a folder", option, target.string(), folder.string()));
  if (!writable(folder)) fail(fmt::format("{} {}: the folder is not writable", option, target.string()));
}

bool lies_in(const fs::path& inner, const fs::path& outer) {
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

/// A folder on the way to a checkpoint counts as there.
void check_file(const std::string& option, const fs::path& file, const std::vector<fs::path>& checkpoints) {
  std::error_code ignored;
  if (fs::is_directory(file, ignored) || !file.has_filename())
    fail(fmt::format("{} {}: that is a folder", option, file.string()));
  const bool exists = fs::exists(file, ignored);
  if (exists && !writable(file)) fail(fmt::format("{} {}: the file is not writable", option, file.string()));
  if (exists && !fs::is_regular_file(file, ignored)) return;
  const fs::path folder = place_of(file).parent_path();
  const auto makes_it = [&](const fs::path& checkpoint) { return lies_in(checkpoint, folder); };
  if (fs::exists(folder, ignored) || std::none_of(checkpoints.begin(), checkpoints.end(), makes_it))
    check_folder(option, file, folder);
}

}  // namespace

void DeviceOptions::add_to(CLI::App& app) {
  app.add_option("--device", device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--threads", cpu.threads, "threads of the CPU; 0: all")->check(whole(0, 1024))->capture_default_str();
  app.add_option("--isa", cpu.isa, "instruction set: auto, " + listed(isa_names(), " or "))->capture_default_str();
  app.add_option("--algorithms", cpu.algorithms, "of a CPU's convolutions: fastest, or direct alone")
      ->check(CLI::IsMember({"fastest", "direct"}))
      ->capture_default_str();
}

Device DeviceOptions::open() const { return device_by_name(device, cpu); }

void add_data_options(CLI::App& app, DataOptions& o) {
  app.add_option("--data-dir", o.dir, "the only folder searched for a known data set");
  app.add_option("--validation", o.validation, "share of each class of the training set that is the test set")
      ->check(within(0, 0.999999));
  app.add_option_function<std::string>(
         "--image", [&o](const std::string& text) { o.image = parse_image(text); },
         "what a folder's images are brought to: HEIGHTxWIDTH, or HEIGHTxWIDTHx1 in gray")
      ->type_name("HxW");
  app.add_option_function<std::string>(
         "--layout",
         [&o](const std::string& text) { o.layout = text == "nhwc" ? PixelLayout::nhwc : PixelLayout::nchw; },
         "of an npz file's images: nhwc or nchw")
      ->check(CLI::IsMember({"nhwc", "nchw"}));
  app.add_flag("--skip-broken", o.skip_broken, "leaves out a folder's broken images instead of refusing them");
}

namespace {

CLI::Validator numbers(double least, double most, const char* kind, const char* type) {
  const bool whole = std::string_view(type) == "INTEGER";
  return CLI::Validator(
      [=](const std::string& text) {
        const auto value = number(text);
        const bool fits = !whole || text.find_first_not_of("0123456789") == std::string::npos;
        const bool good = value && fits && *value >= least && *value <= most;
        return good ? std::string() : fmt::format("'{}' is not a {} {}", text, kind, range(least, most));
      },
      type);
}

}  // namespace

CLI::Validator within(double least, double most) { return numbers(least, most, "number", "NUMBER"); }

CLI::Validator whole(double least, double most) { return numbers(least, most, "whole number", "INTEGER"); }

LossScale parse_loss_scale(const std::string& text) {
  constexpr std::string_view prefix = "dynamic:";
  if (text == "none") return LossScale::none();
  if (text == "dynamic") return LossScale::dynamic();
  const bool dynamic = text.starts_with(prefix);
  const auto value = number(dynamic ? text.substr(prefix.size()) : text);
  const DynamicOptions limits;
  if (!value || !(*value >= limits.min && *value <= limits.max))
    fail(fmt::format("--loss-scale {}: it is none, a number between {} and {}, dynamic or dynamic:INITIAL", text,
                     limits.min, limits.max));
  const auto scale = static_cast<float>(*value);
  return dynamic ? LossScale::dynamic({.initial = scale}) : LossScale::fixed(scale);
}

std::vector<Output> files_read(const std::string& net, const std::string& data) {
  constexpr std::string_view npz = "npz:";
  std::vector<Output> files;
  if (net.ends_with(".onnx")) files.push_back({"--net", net});
  if (data.starts_with(npz)) files.push_back({"--data", data.substr(npz.size())});
  return files;
}

void check_outputs(const std::vector<Output>& files, const std::vector<Output>& checkpoints,
                   const std::vector<Output>& inputs) {
  std::vector<Output> taken;
  for (const auto& [option, file] : inputs) taken.push_back({option, place_of(file)});
  std::vector<fs::path> folders;
  for (const auto& [option, folder] : checkpoints) {
    if (folder.empty()) continue;
    const fs::path place = place_of(folder);
    std::error_code ignored;
    const bool is_file = fs::is_regular_file(place, ignored);  // a model of its own, or one of a checkpoint's two
    const fs::path root = is_file || !place.has_filename() ? place.parent_path() : place;
    if (!is_file) folders.push_back(root);
    taken.push_back({option, is_file ? place : root});
    for (const char* name : {"model.safetensors", "state.safetensors"})
      taken.push_back({option, place_of(root / name)});
  }
  for (const auto& [option, file] : files) {
    if (file.empty()) continue;
    for (const Output& other : taken)
      if (place_of(file) == other.place)
        fail(fmt::format("{} {}: that is taken by {}", option, file.string(), other.option));
    check_file(option, file, folders);
    taken.push_back({option, place_of(file)});
  }
}

void check_output_folder(const std::string& option, const fs::path& folder) {
  fs::path existing = place_of(folder);
  std::error_code ignored;
  while (!fs::exists(existing, ignored) && existing.has_relative_path()) existing = existing.parent_path();
  check_folder(option, folder, existing);
}

}  // namespace halftone::cli
