#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/interrupt.hpp"
#include "cli/options.hpp"
#include "cli/report.hpp"
#include "halftone/nn/models.hpp"
#include "halftone/train/checkpoint.hpp"
#include "halftone/train/load_model.hpp"
#include "halftone/train/recipe.hpp"

namespace halftone::cli {

/// Everything that `halftone train` can be told.
struct TrainSettings {
  Recipe recipe;
  DeviceOptions device;
  std::string loss_scale;                   ///< empty: the precision's own
  std::optional<std::int64_t> range_steps;  ///< else the precision's own
  std::vector<std::string> keep;            ///< ROLE=PRECISION or SCOPE=PRECISION
  DataOptions data;
  std::string init_from, trace, tensorboard, out, resume, json, capsule;
  std::vector<std::string> words = {};  ///< of the command line that say what is trained, for a capsule
  float stress = 1, clip_norm = 0;
  int accumulate = 1, workers = 1;
  std::int64_t patience = 0;  ///< epochs without a better test accuracy that end the run; 0: none do
  std::uint64_t seed = 1;
  bool keep_best = false, convert = false, notice = false, new_head = false;

  /// What is trained or tested on, and the net: read once for all copies of these settings.
  std::shared_ptr<const Dataset> load(Split split) const;
  const Net& net() const;

  void add_shared(CLI::App& app);  ///< the options that a study has too
  void add_system(CLI::App& app);  ///< those that say which number system

  struct Loaded {
    std::map<Split, std::shared_ptr<const Dataset>> data;
    std::shared_ptr<const Net> net;
  };
  std::shared_ptr<Loaded> loaded = std::make_shared<Loaded>();  ///< by `load` and `net`
};

/// All that a run's results follow from, as its options spell it. Throws what the run itself would before its first
/// step.
Identity::Facts facts_of(const TrainSettings& settings);

/// The images that a training sees.
Loader training_loader(const TrainSettings& settings);

/// The net's logits, with the numbers that it begins with; `report` is what --init-from left alone.
Value build_net(const TrainSettings& settings, Value images, const Dataset& data, LoadReport* report = nullptr);

/// What a training consists of.
struct Setting {
  Setting(const TrainSettings& settings, Loader loader, double batches);  ///< batches: in an epoch

  Precision precision;
  Loader loader;
  TrainerOptions options;
  Value loss;
};

/// A training without a word on stdout.
struct TrainResult {
  Json report;                    ///< what `--json` writes
  Identity::Facts facts;          ///< `facts_of`
  std::vector<StepReport> steps;  ///< all of them
  bool finished = false;          ///< false where it was interrupted
};
TrainResult train_quietly(const TrainSettings& settings, const Interrupt& interrupt);

/// Returns the exit status.
int train(const TrainSettings& settings);

}  // namespace halftone::cli
