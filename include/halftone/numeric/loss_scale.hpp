#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

#include "halftone/numeric/host_device.hpp"

namespace halftone {

enum class OnFloor : std::uint8_t { stay, stop };
/// What the scale does about a number that the forward pass made, which no scale cures: nothing, nothing more any step,
/// or what it does about an overflow, as PyTorch's.
enum class OnNan : std::uint8_t { skip, stop, back_off };

/// How a dynamic loss scale moves. Within [min, max] the defaults give the scales of PyTorch's GradScaler.
struct DynamicOptions {
  float initial = 65536, growth = 2, backoff = 0.5f;
  std::int32_t interval = 2000;         ///< good steps in a row before the scale grows
  float min = 0x1p-24f, max = 0x1p63f;  ///< growth beyond `max` does not happen; backing off ends at `min`
  std::int32_t hysteresis = 1;          ///< bad steps in a row from which on the scale backs off
  OnFloor on_floor = OnFloor::stay;     ///< where backing off would lead below `min`
  OnNan on_nan = OnNan::skip;           ///< where the forward pass itself made a NaN or an infinity
  std::int32_t max_consecutive_skips = (std::numeric_limits<std::int32_t>::max)();  ///< one more demands a stop
};

/// What multiplies the loss so that small gradients survive a narrow format.
struct LossScale {
  enum class Mode : std::uint8_t { none, fixed, dynamic };

  Mode mode = Mode::none;
  DynamicOptions options = {.initial = 1};  ///< `none` and `fixed` heed `initial` and the policies on NaN and skips

  static constexpr LossScale none() { return {}; }
  static constexpr LossScale fixed(float scale) { return {Mode::fixed, {.initial = scale}}; }
  static constexpr LossScale dynamic(const DynamicOptions& options = {}) { return {Mode::dynamic, options}; }

  /// What makes it no loss scale, in words; null where it is one.
  const char* fault() const {
    const auto normal = [](float x) { return std::isnormal(x) && x > 0; };
    if (!normal(options.initial)) return "it must be a positive, normal number";
    if (mode != Mode::dynamic) return nullptr;
    if (!normal(options.min) || !(options.max >= options.min)) return "min and max must be positive, normal numbers";
    if (!(options.growth >= 1) || !(options.backoff > 0 && options.backoff < 1))
      return "it must grow by a factor of at least 1 and back off by one between 0 and 1";
    if (options.interval < 1 || options.hysteresis < 1) return "interval and hysteresis must be at least 1";
    return nullptr;
  }
};

/// What the gradients of a step were. With several micro-batches a step it is the worst of them.
enum class StepOutcome : std::uint8_t {
  good,
  nan_in_forward,  ///< the loss, or a forward value where gradients are bad, is not finite
  overflow         ///< infinity or NaN in the scaled gradients of finite forward values
};

/// What lasts from step to step.
struct ScaleState {
  float scale = 1;
  std::int32_t good_steps = 0;  ///< since the scale last moved or a step was bad
  std::int32_t bad_steps = 0;   ///< in a row, skipped or not
  std::int32_t consecutive_skips = 0;
  std::int32_t stop = 0;  ///< 1 from when policy demands to stop training
};

constexpr ScaleState initial_state(const LossScale& loss_scale) { return {.scale = loss_scale.options.initial}; }

namespace detail {

HALFTONE_HD constexpr void grow(const DynamicOptions& o, ScaleState& state) {
  if (++state.good_steps < o.interval) return;
  state.good_steps = 0;
  const float larger = state.scale * o.growth;
  if (larger <= o.max && larger <= (std::numeric_limits<float>::max)()) state.scale = larger;
}

HALFTONE_HD constexpr void back_off(const DynamicOptions& o, ScaleState& state) {
  state.good_steps = 0;
  if (state.bad_steps < o.hysteresis) return;
  const float smaller = state.scale * o.backoff;
  if (smaller >= o.min) {
    state.scale = smaller;
  } else {
    if (state.scale > o.min) state.scale = o.min;
    if (o.on_floor == OnFloor::stop) state.stop = 1;
  }
}

}  // namespace detail

/// The state after a step that ended in `outcome`: the one transition, for host and device. A bad step is skipped, but
/// for one that goes on with its good micro-batches. A step that was bad in the forward pass leaves no trace but in the
/// count of skips in a row.
HALFTONE_HD constexpr ScaleState next(const LossScale& loss_scale, ScaleState state, StepOutcome outcome,
                                      bool skipped) {
  const DynamicOptions& o = loss_scale.options;
  const bool dynamic = loss_scale.mode == LossScale::Mode::dynamic;
  state.consecutive_skips = skipped ? state.consecutive_skips + 1 : 0;
  if (outcome == StepOutcome::good) {
    state.bad_steps = 0;
    if (dynamic) detail::grow(o, state);
    return state;
  }
  if (outcome == StepOutcome::overflow || o.on_nan == OnNan::back_off) {
    ++state.bad_steps;
    if (dynamic) detail::back_off(o, state);
  } else if (o.on_nan == OnNan::stop) {
    state.stop = 1;
  }
  if (state.consecutive_skips > o.max_consecutive_skips) state.stop = 1;
  return state;
}

}  // namespace halftone
