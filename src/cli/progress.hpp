#pragma once
#include <chrono>
#include <optional>

#include "cli/score.hpp"

namespace halftone::cli {

/// An epoch as the program reports it.
struct EpochResult {
  EpochReport training;
  std::optional<Score> test;  ///< none for an epoch that was interrupted
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
