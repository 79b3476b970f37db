#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

#include "halftone/numeric/loss_scale.hpp"
#include "halftone/numeric/math.hpp"
#include "halftone/numeric/philox.hpp"
#include "halftone/numeric/schedule.hpp"

namespace halftone {

/// All that changes from step to step besides tensors. It lives in device memory; kernels read and write it, the host
/// only copies it. The first part lasts; of it, a skipped step moves only `attempts`, `nonfinite_total` and `scale`.
/// The rest is this step's.
struct StepState {
  std::uint64_t seed = 1;
  std::int64_t steps = 0;            ///< committed so far; schedules, bias corrections and random numbers count by it
  std::int64_t attempts = 0;         ///< committed and skipped
  std::int64_t nonfinite_total = 0;  ///< numbers in weight gradients, over all attempts
  ScaleState scale{};
  std::int32_t micro_batch = 0;                                  ///< of this step that are done, 0 between steps
  double zero_gradient_shares = 0, unchanged_weight_shares = 0;  ///< sums over committed steps

  float stress = 1;         ///< multiplies the gradient at the loss and is divided out where gradients are read
  float learning_rate = 0;  ///< that this step uses
  float loss = 0;           ///< of this micro-batch
  float used_scale = 1;     ///< loss scale that this step's gradients carry
  float clip = 1;           ///< factor on the unscaled gradients
  float gradient_norm = 0;  ///< of the unscaled gradients, before clipping
  double sum_of_squares = 0;
  double loss_sum = 0;              ///< of this step's good micro-batches
  std::int64_t zero_gradients = 0;  ///< over its good micro-batches
  std::int64_t nonfinite = 0, unchanged_weights = 0;
  std::int64_t first_bad_element = -1;  ///< in parameter `first_bad_parameter`
  std::int32_t first_bad_parameter = -1;
  std::int32_t good_micro_batches = 0;
  std::int32_t last_micro_batch = 0;  ///< this one ends its step
  std::int32_t good = 1;              ///< this micro-batch's gradients are finite
  std::int32_t commit = 0;            ///< this step's results last
  std::int32_t outcome = 0;           ///< the worst of its micro-batches as a `StepOutcome`

  // Of this micro-batch's forward pass.
  static constexpr std::int32_t none = (std::numeric_limits<std::int32_t>::max)();
  std::int32_t bad_node = none;  ///< the first that gave an activation which is not finite; set by whoever writes one
  std::int32_t bad_row = none;   ///< of the first label that is no class
  std::int32_t bad_label = 0;
  std::int32_t hidden = 0;  ///< 1 where such an activation was stored in a code that has neither NaN nor infinity

  /// The step that random numbers are drawn in: each micro-batch has its own.
  HALFTONE_HD std::uint64_t random_step() const {
    return static_cast<std::uint64_t>(steps) | static_cast<std::uint64_t>(micro_batch) << 40;
  }

  HALFTONE_HD RandomKey key(std::uint32_t stream) const { return {seed, random_step(), stream}; }

  /// What one unit of the loss's own gradient becomes in the stored gradients.
  HALFTONE_HD float gradient_scale() const { return used_scale * stress; }
};

static_assert(sizeof(StepState) == 4 * 8 + sizeof(ScaleState) + 4 + 2 * 8 + 6 * 4 + 2 * 8 + 4 * 8 + 10 * 4,
              "no padding");

/// What the end of a step decides by.
struct StepPolicy {
  LossScale loss_scale = {};
  Schedule schedule = {};
  float clip_norm = 0;          ///< 0: no clipping
  std::int32_t accumulate = 1;  ///< micro-batches a step
  std::int64_t weights = 1;     ///< trainable ones
};

/// What was seen in the stored gradients of a micro-batch.
struct GradientFindings {
  double sum_of_squares = 0;  ///< of the true gradients
  std::int64_t zeros = 0, nonfinite = 0, first_bad_element = -1;
  std::int32_t first_bad_parameter = -1;
};

HALFTONE_HD constexpr std::int32_t worse(std::int32_t a, StepOutcome b) {
  return a > static_cast<std::int32_t>(b) ? a : static_cast<std::int32_t>(b);
}

// A step's decisions in their order, for host and device.

/// Before anything else of a micro-batch.
HALFTONE_HD void begin_micro_batch(StepState& state) {
  state.bad_node = state.bad_row = StepState::none;
  state.hidden = state.last_micro_batch = 0;
  if (state.micro_batch != 0) return;
  state.used_scale = state.scale.scale;
  state.good_micro_batches = 0;
  state.outcome = 0;
  state.loss_sum = 0;
  state.zero_gradients = 0;
  state.unchanged_weights = 0;
}

/// The norm of gradients with this sum of squares, as f32; infinite where that holds it not.
HALFTONE_HD float norm_of(double sum_of_squares) { return static_cast<float>(std::sqrt(sum_of_squares)); }

/// After the gradients were looked at: may this micro-batch count? Where they are bad though the loss is finite, it was
/// the forward pass's fault if that gave an activation which is not. Codes without NaN hide it from loss and gradients.
/// Once the loss scale's policy has demanded to stop, steps that were already under way change nothing any more.
HALFTONE_HD void judge_micro_batch(StepState& state, float loss, const GradientFindings& found) {
  const bool stopped = state.scale.stop != 0;
  state.loss = loss;
  state.sum_of_squares = found.sum_of_squares;
  state.nonfinite = found.nonfinite;
  state.first_bad_element = found.first_bad_element;
  state.first_bad_parameter = found.first_bad_parameter;
  if (!stopped) state.nonfinite_total += found.nonfinite;
  state.good = found.nonfinite == 0 && std::isfinite(loss) && std::isfinite(norm_of(found.sum_of_squares)) &&
               state.hidden == 0 && !stopped;
  state.commit = 0;
  if (state.good) {
    ++state.good_micro_batches;
    state.loss_sum += loss;
    state.zero_gradients += found.zeros;
  } else if (!stopped) {
    const bool in_forward = !std::isfinite(loss) || state.bad_node != StepState::none;
    state.outcome = worse(state.outcome, in_forward ? StepOutcome::nan_in_forward : StepOutcome::overflow);
  }
}

/// After a good micro-batch was added to those before: a sum that is too large undoes the step, and this micro-batch.
HALFTONE_HD void judge_sum(StepState& state, double sum_of_squares) {
  state.sum_of_squares = sum_of_squares;
  if (!std::isfinite(norm_of(sum_of_squares))) state.good = 0;
}

/// Before anything that lasts is written: commit or not, the scale's transition, clipping, the learning rate.
HALFTONE_HD void decide(StepState& state, const StepPolicy& policy) {
  if (state.scale.stop != 0) return;
  state.last_micro_batch = ++state.micro_batch == policy.accumulate;
  const float divisor =
      policy.accumulate > 1 && state.good_micro_batches > 0 ? static_cast<float>(state.good_micro_batches) : 1.0f;
  const float norm = norm_of(state.sum_of_squares) / divisor;
  state.gradient_norm = norm;
  state.clip = policy.clip_norm > 0 && norm > policy.clip_norm ? policy.clip_norm / norm : 1.0f;
  state.learning_rate = policy.schedule.at(state.steps);
  if (!state.last_micro_batch) return;
  if (state.good_micro_batches > 0 && !std::isfinite(norm)) state.outcome = worse(state.outcome, StepOutcome::overflow);
  state.commit = state.good_micro_batches > 0 && std::isfinite(norm);
  state.scale = next(policy.loss_scale, state.scale, static_cast<StepOutcome>(state.outcome), !state.commit);
}

/// Whether scales may move: no micro-batch was lost.
HALFTONE_HD bool moves_ranges(const StepState& state) { return state.commit && state.outcome == 0; }

/// Whether running statistics are copied now: at the beginning of a step, or `back` at the end of one that is skipped.
HALFTONE_HD bool copies_statistics(const StepState& state, bool back) {
  return back ? state.last_micro_batch && !state.commit : state.micro_batch <= 1;
}

/// The share of itself that a running average keeps: at first less than `decay`.
HALFTONE_HD float kept_average(const StepState& state, float decay) {
  const auto steps = static_cast<float>(state.steps);
  const float warm_up = (1 + steps) / (10 + steps);
  return warm_up < decay ? warm_up : decay;
}

/// The same for lookahead (Zhang et al. 2019): 1, all of itself, but in every `interval`-th step, where it is
/// decay^interval times the third power of the share of `total` steps that are done with this one.
HALFTONE_HD float kept_average(const StepState& state, float decay, std::int32_t interval, std::int64_t total) {
  const std::int64_t step = state.steps + 1;
  if (step % interval != 0) return 1;
  const double share = step < total ? static_cast<double>(step) / static_cast<double>(total) : 1;
  return static_cast<float>(math::power(double{decay}, interval) * share * share * share);
}

/// A running average that keeps the share `kept` of itself and takes on the rest of x; x itself where it is x already.
HALFTONE_HD float blended(float average, float x, float kept) {
  return math::select(average == x, x, kept * average + (1 - kept) * x);
}

/// The learning rate of parameters that have `factor` on it and are frozen from step `until` on.
HALFTONE_HD float rate_of(const StepState& state, float factor, std::int64_t until) {
  return state.steps < until ? state.learning_rate * factor : 0;
}

/// The factor that makes of a stored gradient, or of the sum over micro-batches, what the update rule takes.
HALFTONE_HD float update_factor(const StepState& state, const StepPolicy& policy) {
  return state.clip / (policy.accumulate > 1 ? static_cast<float>(state.good_micro_batches) : state.gradient_scale());
}

/// After everything else: counts the step.
HALFTONE_HD void finish_step(StepState& state, const StepPolicy& policy) {
  if (!state.last_micro_batch) return;
  state.micro_batch = 0;
  ++state.attempts;
  if (!state.commit) return;
  ++state.steps;
  const auto weights = static_cast<double>(policy.weights);
  state.zero_gradient_shares += static_cast<double>(state.zero_gradients) / (weights * state.good_micro_batches);
  state.unchanged_weight_shares += static_cast<double>(state.unchanged_weights) / weights;
}

}  // namespace halftone
