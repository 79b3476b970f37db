#include "cli/options.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <cmath>

#include "halftone/tensor/error.hpp"

namespace halftone::cli {
namespace fs = std::filesystem;

namespace {

std::optional<double> finite_number(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

std::string range(double least, double most, bool open) {
  std::string text = fmt::format("{} {}", open ? "above" : "at least", least);
  if (most < std::numeric_limits<float>::max()) text += fmt::format(" and at most {}", most);
  return text;
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

}  // namespace

void DeviceOptions::add_to(CLI::App& app) {
  app.add_option("--device", device, "auto, cpu or cuda")->capture_default_str();
  app.add_option("--threads", cpu.threads, "threads of the CPU; 0: all")->capture_default_str();
  app.add_option("--isa", cpu.isa, "instruction set: auto, baseline, avx2 or avx512")->capture_default_str();
}

Device DeviceOptions::open() const {
  if (cpu.isa == "amx") fail("--isa amx: this build of Halftone has no AMX kernels");
  return device_by_name(device, cpu);
}

CLI::Validator within(double least, double most, bool open) {
  return CLI::Validator(
      [=](const std::string& text) {
        const auto value = finite_number(text);
        const bool good = value && (open ? *value > least : *value >= least) && *value <= most;
        return good ? std::string() : fmt::format("'{}' is not a number {}", text, range(least, most, open));
      },
      "NUMBER");
}

LossScale parse_loss_scale(const std::string& text) {
  constexpr std::string_view prefix = "dynamic:";
  if (text == "none") return LossScale::none();
  if (text == "dynamic") return LossScale::dynamic();
  const bool dynamic = text.starts_with(prefix);
  const auto value = finite_number(dynamic ? text.substr(prefix.size()) : text);
  const DynamicOptions limits;
  if (!value || !(*value >= limits.min && *value <= limits.max))
    fail(fmt::format("--loss-scale {}: it is none, a number between {} and {}, dynamic or dynamic:INITIAL", text,
                     limits.min, limits.max));
  const auto scale = static_cast<float>(*value);
  return dynamic ? LossScale::dynamic({.initial = scale}) : LossScale::fixed(scale);
}

void check_output_file(const std::string& option, const fs::path& file) {
  std::error_code ignored;
  if (fs::is_directory(file, ignored)) fail(fmt::format("{} {}: that is a folder", option, file.string()));
  const bool exists = fs::exists(file, ignored);
  if (exists && !writable(file)) fail(fmt::format("{} {}: the file is not writable", option, file.string()));
  if (exists && !fs::is_regular_file(file, ignored)) return;
  check_folder(option, file, file.has_parent_path() ? file.parent_path() : fs::path("."));
}

void check_output_folder(const std::string& option, const fs::path& folder) {
  fs::path existing = fs::absolute(folder).lexically_normal();
  std::error_code ignored;
  while (!fs::exists(existing, ignored) && existing.has_relative_path()) existing = existing.parent_path();
  check_folder(option, folder, existing);
}

}  // namespace halftone::cli
