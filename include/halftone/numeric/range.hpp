#pragma once
#include <cstdint>

#include "halftone/numeric/math.hpp"
#include "halftone/numeric/type_list.hpp"

namespace halftone {

/// What was noticed of numbers before they were rounded, in units of the scale that they were written with; of updates,
/// afterwards.
struct Noticed {
  std::int64_t count = 0;
  std::int64_t zeros = 0;       ///< exact ones
  std::int64_t flushed = 0;     ///< others that became zero
  std::int64_t saturated = 0;   ///< at least the largest number in magnitude
  std::int64_t upper_half = 0;  ///< at least half of it
  std::int64_t updated = 0;     ///< written by an update
  std::int64_t unchanged = 0;   ///< by it, as they are stored
  float largest = 0;            ///< magnitude; NaN is left out
  std::int32_t unused = 0;

  HALFTONE_HD constexpr void add(const Noticed& other) {
    count += other.count;
    zeros += other.zeros;
    flushed += other.flushed;
    saturated += other.saturated;
    upper_half += other.upper_half;
    updated += other.updated;
    unchanged += other.unchanged;
    if (other.largest > largest) largest = other.largest;
  }
};

/// The scale of one tensor and what its controller goes by; it has no padding. Within the end of a step numbers are
/// read by `scale` and written by `next`; everywhere else these are the same.
struct RangeState {
  float scale = 1, next = 1;
  Noticed noticed{};       ///< since the controller last looked
  Noticed kept{};          ///< the controller's own, over several steps
  std::int64_t steps = 0;  ///< committed ones that `kept` stands for
  Noticed total{};         ///< over all committed steps, `largest` in units of 1
};

// A range controller is a functor: `move` is called once at the end of each committed step with what was `noticed` in
// it, and may change `next` and whatever is the controller's own.

/// The range doubles where a larger share than `threshold` reaches its end, and halves where no larger share would
/// reach the end of half of it; judged every `interval` steps (Courbariaux et al. 2015, section 5).
struct OverflowRate {
  float threshold = 1e-4f;
  std::int32_t interval = 100;

  static constexpr const char* name = "overflow_rate";
  constexpr bool operator==(const OverflowRate&) const = default;
  HALFTONE_HD constexpr void move(RangeState& state) const {
    state.kept.add(state.noticed);
    if (++state.steps < interval) return;
    const double allowed = threshold * static_cast<double>(state.kept.count);
    if (static_cast<double>(state.kept.saturated) > allowed) {
      state.next = state.scale * 2;
    } else if (static_cast<double>(state.kept.upper_half) <= allowed) {
      state.next = state.scale / 2;
    }
    state.kept = {};
    state.steps = 0;
  }
};

/// The smallest power of two with which no number seen of late is beyond a code's `largest`: grows at once, shrinks
/// after `interval` steps to what these have had (delayed scaling: Micikevicius et al. 2022; a scale of their own is no
/// power of two).
struct Delayed {
  float largest = 448;
  std::int32_t interval = 1024;

  static constexpr const char* name = "delayed";
  constexpr bool operator==(const Delayed&) const = default;
  HALFTONE_HD constexpr void move(RangeState& state) const {
    const float largest_seen = state.noticed.largest * state.scale;
    const float seen = largest_seen <= 0x1.fffffep127f ? largest_seen : 0;  // an infinity says nothing of a scale
    const bool first = state.kept.count == 0 && seen > 0;
    if (first) state.kept.count = 1;
    if (seen > state.kept.largest) state.kept.largest = seen;
    const bool judges = ++state.steps >= interval || first;
    if (state.kept.largest >= 0x1p-126f * largest) {
      const float fitting = math::power_of_two(math::ceil_log2(state.kept.largest / largest));
      if (judges || fitting > state.next) state.next = fitting;
    }
    if (state.steps < interval) return;
    state.kept.largest = 0;
    state.steps = 0;
  }
};

/// Every range controller.
using RangeControllers = TypeList<OverflowRate, Delayed>;
using RangeController = RangeControllers::Variant;

inline const char* name_of(const RangeController& controller) {
  return std::visit([](const auto& c) { return c.name; }, controller);
}

/// Within these a scale and its inverse are normal numbers.
inline constexpr float smallest_scale = 0x1p-126f, largest_scale = 0x1p126f;

/// The end of a step for one range: in a `commit` the controller of one that `moves` judges, where numbers were
/// written. What was noticed counts once; a step that is no commit leaves no trace, but a tensor that `lasts` was
/// written by an earlier one.
HALFTONE_HD constexpr void move_range(const RangeController& controller, RangeState& state, bool commit, bool moves,
                                      bool lasts) {
  if (commit && state.noticed.count > 0) {
    Noticed seen = state.noticed;
    seen.largest *= state.scale;
    state.total.add(seen);
    if (moves) visit(RangeControllers{}, controller, [&](const auto& c) { c.move(state); });
  }
  if (!(state.next >= smallest_scale && state.next <= largest_scale)) state.next = state.scale;
  if (commit || !lasts) state.noticed = {};
}

}  // namespace halftone
