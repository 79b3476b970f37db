#pragma once
#include <cmath>
#include <cstdint>
#include <span>

#include "halftone/numeric/math.hpp"

namespace halftone {

/// A step that no training reaches.
inline constexpr std::int64_t never = INT64_MAX;

/// The learning rate as a function of the step: plain data, so that a device evaluates it from its own step counter.
struct Schedule {
  enum class Kind { constant, step, cosine, one_cycle, linear, exponential };
  static constexpr int most_milestones = 8;

  Kind kind = Kind::constant;
  float peak = 0.05f;       ///< the learning rate that everything else is relative to
  float end = 0;            ///< linear, cosine, exponential, one_cycle: the last rate
  float start = 0;          ///< one_cycle: the first rate
  std::int64_t total = 1;   ///< steps in all
  std::int64_t warmup = 0;  ///< steps of linear rise from 0 that come first; one_cycle: of its rise from `start`
  std::int64_t milestones[most_milestones] = {};  ///< step: from each of these on another factor
  int milestone_count = 0;
  float factor = 0.1f;

  static constexpr Schedule constant(float peak, std::int64_t warmup = 0) { return {.peak = peak, .warmup = warmup}; }
  static constexpr Schedule cosine(float peak, std::int64_t total, std::int64_t warmup = 0) {
    return {.kind = Kind::cosine, .peak = peak, .total = total, .warmup = warmup};
  }
  static constexpr Schedule linear(float peak, std::int64_t total, std::int64_t warmup = 0, float end = 0) {
    return {.kind = Kind::linear, .peak = peak, .end = end, .total = total, .warmup = warmup};
  }
  static constexpr Schedule exponential(float peak, float end, std::int64_t total, std::int64_t warmup = 0) {
    return {.kind = Kind::exponential, .peak = peak, .end = end, .total = total, .warmup = warmup};
  }
  /// Linear up from peak / 25 over the first quarter, then linear down to 0 (Smith & Topin 2018).
  static constexpr Schedule one_cycle(float peak, std::int64_t total) {
    return one_cycle(peak, total, total / 4, 0.04f * peak, 0);
  }
  /// Linear up from `start` over `rise` steps, then linear down to `end`.
  static constexpr Schedule one_cycle(float peak, std::int64_t total, std::int64_t rise, float start, float end) {
    return {.kind = Kind::one_cycle, .peak = peak, .end = end, .start = start, .total = total, .warmup = rise};
  }
  /// Multiplied by `factor` at each of the milestones, at most `most_milestones` (else it has a fault).
  static constexpr Schedule step(float peak, std::span<const std::int64_t> milestones, float factor) {
    Schedule schedule{.kind = Kind::step, .peak = peak, .factor = factor};
    schedule.milestone_count = static_cast<int>(milestones.size());
    for (std::size_t i = 0; i < milestones.size() && i < most_milestones; ++i) schedule.milestones[i] = milestones[i];
    return schedule;
  }

  /// What makes it no schedule, in words; null where it is one.
  const char* fault() const {
    const auto finite = [](float x) { return std::isfinite(x) && x >= 0; };
    if (!finite(peak) || !finite(end) || !finite(start)) return "rates must be finite and not negative";
    if (kind == Kind::exponential && !(std::isnormal(end / peak) && std::isnormal(peak / end)))
      return "an exponential one must lead from one positive rate to another";
    if (milestone_count < 0 || milestone_count > most_milestones) return "it has more than 8 milestones";
    if (kind == Kind::step && !(std::isnormal(factor) && factor > 0)) return "the factor must be positive and finite";
    if (kind == Kind::step && !std::isfinite(peak * std::pow(factor, static_cast<float>(milestone_count))))
      return "its rate becomes infinite";
    if (total < 1 || warmup < 0) return "it must have steps";
    if (kind != Kind::constant && kind != Kind::step && warmup >= total) return "its warm-up leaves no step";
    return nullptr;
  }

  /// The rate of step `step`, which counts from 0.
  HALFTONE_HD float at(std::int64_t step) const {
    if (step < warmup && kind != Kind::one_cycle)
      return peak * static_cast<float>(step + 1) / static_cast<float>(warmup + 1);
    const std::int64_t length = total - warmup > 1 ? total - warmup : 1;
    float t = static_cast<float>(step - warmup) / static_cast<float>(length);
    t = t < 0 ? 0 : t > 1 ? 1 : t;
    switch (kind) {
      case Kind::constant:
        return peak;
      case Kind::step: {
        float rate = peak;
        for (int i = 0; i < milestone_count; ++i)
          if (step >= milestones[i]) rate *= factor;
        return rate;
      }
      case Kind::cosine:
        return end + (peak - end) * math::cos_quarter(t) * math::cos_quarter(t);  // (1 + cos pi t) / 2
      case Kind::linear:
        return peak + (end - peak) * t;
      case Kind::exponential:
        return peak * math::exp(t * math::log(end / peak));
      case Kind::one_cycle: {
        if (step < warmup) return start + (peak - start) * static_cast<float>(step) / static_cast<float>(warmup);
        return end + (peak - end) * (1 - t);
      }
    }
    return peak;
  }
};

}  // namespace halftone
