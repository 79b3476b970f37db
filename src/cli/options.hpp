#pragma once
#include <CLI/CLI.hpp>
#include <filesystem>
#include <limits>
#include <string>

#include "halftone/numeric/loss_scale.hpp"
#include "halftone/tensor/device.hpp"

namespace halftone::cli {

/// Options that say where to run.
struct DeviceOptions {
  std::string device = "auto";
  CpuOptions cpu = {};

  void add_to(CLI::App& app);
  Device open() const;
};

/// Accepts a finite number within [least, most], or within (least, most] where `open`.
CLI::Validator within(double least, double most = std::numeric_limits<double>::max(), bool open = false);

inline CLI::Validator positive() { return within(0, std::numeric_limits<float>::max(), true); }

/// `none`, a number, `dynamic` or `dynamic:INITIAL`.
LossScale parse_loss_scale(const std::string& text);

/// Throws Error naming the option where a file cannot be written there.
void check_output_file(const std::string& option, const std::filesystem::path& file);

/// The same for a folder that is made where it does not exist.
void check_output_folder(const std::string& option, const std::filesystem::path& folder);

}  // namespace halftone::cli
