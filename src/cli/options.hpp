#pragma once
#include <CLI/CLI.hpp>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "halftone/data/dataset.hpp"
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

/// Options that say where data lie and how they are read, of which `--limit` and others are up to the command.
void add_data_options(CLI::App& app, DataOptions& options);

/// Accepts a number within [least, most] that f32 can hold.
CLI::Validator within(double least, double most);

/// The same for a whole number.
CLI::Validator whole(double least, double most);

inline CLI::Validator positive() {
  return within(std::numeric_limits<float>::min(), std::numeric_limits<float>::max());
}

/// `none`, a number, `dynamic` or `dynamic:INITIAL`.
LossScale parse_loss_scale(const std::string& text);

/// An option and where it points; an empty place is none.
struct Output {
  std::string option;
  std::filesystem::path place;
};

/// Throws Error naming the option where one of `files` cannot be written, or where that would write over another, over
/// a checkpoint in one of `checkpoints` or over one of `inputs`. A folder that `--out` makes counts as there.
void check_outputs(const std::vector<Output>& files, const std::vector<Output>& checkpoints = {},
                   const std::vector<Output>& inputs = {});

/// The files that --net and --data name, if they do.
std::vector<Output> files_read(const std::string& net, const std::string& data);

/// Throws Error naming the option where a folder that does not exist cannot be made there.
void check_output_folder(const std::string& option, const std::filesystem::path& folder);

}  // namespace halftone::cli
