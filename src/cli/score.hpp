#pragma once
#include <cstdint>

#include "halftone/train/trainer.hpp"

namespace halftone::cli {

/// How many images of a test set were told right.
struct Score {
  std::int64_t right = 0, images = 0;

  double accuracy() const { return static_cast<double>(right) / static_cast<double>(images); }
  double error() const { return static_cast<double>(images - right) / static_cast<double>(images); }
};

/// Counts by `accuracy`, a mean over a batch; with `average`, by the averaged weights.
Score score(Trainer& trainer, const Loader& loader, Value accuracy, bool average = false);

}  // namespace halftone::cli
