#pragma once
#include <chrono>
#include <optional>

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

/// The same by the largest of the logits, summed over views of each image.
Score score(Trainer& trainer, const Loader& loader, Value logits, std::span<const View> views, bool average = false);

/// An epoch as the program reports it.
struct EpochResult {
  EpochReport training;
  std::optional<Score> test;  ///< none for an epoch that was not tested
};

/// What a training run says of itself on stdout: a live line on a terminal, and one line an epoch.
class Progress {
 public:
  Progress(std::int64_t epochs, std::int64_t batches, std::int64_t batch_size);
  void begin(std::int64_t batches_done);  ///< of an epoch; so many batches were seen before, in all
  void step(const StepReport& step);
  void end(const EpochResult& epoch);

 private:
  using Clock = std::chrono::steady_clock;
  void show(const StepReport& step, Clock::time_point now);
  std::int64_t epochs_, batches_, batch_size_, first_ = 0, seen_ = 0;
  double loss_ = 0;  // running mean
  std::optional<Score> test_;
  Clock::time_point began_, shown_;
  bool terminal_;
};

}  // namespace halftone::cli
