#pragma once
#include <cstdint>

#include "halftone/numeric/loss_scale.hpp"

namespace halftone {

/// All that changes from step to step besides tensors. It lives in device memory; kernels read and write it, the host
/// only copies it. The first part lasts; of it, a skipped step moves only `attempts` and `scale`. The rest is this
/// step's.
struct StepState {
  std::uint64_t seed = 1;
  std::int64_t steps = 0;     ///< committed so far; schedules, bias corrections and random numbers count by it
  std::int64_t attempts = 0;  ///< committed and skipped
  ScaleState scale{};
  double zero_gradient_shares = 0, unchanged_weight_shares = 0;  ///< sums over committed steps

  float stress = 1;         ///< multiplies the gradient at the loss and is divided out where gradients are read
  float learning_rate = 0;  ///< that this step uses
  float loss = 0;
  float used_scale = 1;     ///< loss scale that this step's gradients carry
  float clip = 1;           ///< factor on the unscaled gradients
  float gradient_norm = 0;  ///< of the unscaled gradients, before clipping
  double sum_of_squares = 0;
  double loss_sum = 0;  ///< of this step's good micro-batches; `loss` ends as their mean
  std::int64_t zero_gradients = 0, nonfinite = 0, unchanged_weights = 0;
  std::int64_t first_bad_element = -1;  ///< in parameter `first_bad_parameter`
  std::int32_t first_bad_parameter = -1;
  std::int32_t micro_batch = 0, good_micro_batches = 0;
  std::int32_t good = 1;    ///< this micro-batch's gradients are finite
  std::int32_t commit = 0;  ///< this step's results last
  std::int32_t unused = 0;  ///< leaves no padding: checkpoints hold these bytes

  /// The step that random numbers are drawn in: each micro-batch has its own.
  HALFTONE_HD std::uint64_t random_step() const {
    return static_cast<std::uint64_t>(steps) | static_cast<std::uint64_t>(micro_batch) << 40;
  }

  /// What one unit of the loss's own gradient became in the stored gradients.
  HALFTONE_HD float seed_gradient() const { return used_scale * stress; }
};

static_assert(sizeof(StepState) == 5 * 8 + sizeof(ScaleState) + 6 * 4 + 2 * 8 + 4 * 8 + 6 * 4);

}  // namespace halftone
