#pragma once
#include <optional>
#include <vector>

#include "halftone/inspect/doctor.hpp"

namespace halftone {

/// What a step did to every trainable parameter.
struct StepTaken {
  std::vector<std::vector<float>> gradients, updates;
};

/// The weights as an update reads them, with what a compensated one keeps for the next.
std::vector<std::vector<float>> truths(const Trainer& trainer);
/// Takes a step on `batch`.
StepTaken take_step(Trainer& trainer, const Batch& batch, StepReport& report);

/// A step of a training in f32, from where it began.
struct ExactStep {
  Batch batch;
  Parameters before;
  StepTaken taken;
};

/// One number system beside a training in f32: takes single steps from where that stood.
class Probe {
 public:
  Probe(Value loss, const TrainerOptions& options, const Precision& precision, const Loader& loader);

  /// Takes the same steps, which follow each other.
  void attend(std::span<const ExactStep> steps);

  Fidelity fidelity() const;

 private:
  void compare(const StepTaken& own_step, const StepTaken& f32);
  void finish();

  Value loss_;
  TrainerOptions options_;
  std::int64_t range_steps_;
  const Loader& loader_;
  /// Of one parameter over the steps that follow each other, own and of f32.
  struct Together {
    std::vector<float> own_sum, f32_sum;
    double product = 0, own_energy = 0, f32_energy = 0;
  };
  std::vector<Together> gradients_;
  int steps_ = 0;
  struct Sums {
    double weight = 0, arrives = 0, shared = 0, all = 0;
  } sums_;
  struct Along {
    double product = 0, energy = 0;
  };
  std::vector<Along> updates_;  // by parameter
  int tried_ = 0, nonfinite_ = 0;
};

}  // namespace halftone
