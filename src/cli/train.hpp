#pragma once
#include <optional>
#include <string>
#include <vector>

#include "cli/options.hpp"
#include "halftone/train/recipe.hpp"

namespace halftone::cli {

/// Everything that `halftone train` can be told.
struct TrainSettings {
  Recipe recipe;
  DeviceOptions device;
  std::string loss_scale;                   ///< empty: the precision's own
  std::optional<std::int64_t> range_steps;  ///< else the precision's own
  std::vector<std::string> keep;            ///< ROLE=PRECISION or SCOPE=PRECISION
  std::string data_dir, trace, out, resume, json;
  float stress = 1, clip_norm = 0;
  int accumulate = 1, workers = 1;
  std::int64_t limit = 0;
  std::uint64_t seed = 1;
  bool keep_best = false, convert = false, notice = false;

  void add_to(CLI::App& app);
};

/// Returns the exit status.
int train(const TrainSettings& settings);

}  // namespace halftone::cli
