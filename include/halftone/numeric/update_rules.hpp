#pragma once
#include <cmath>
#include <cstdint>
#include <optional>
#include <string_view>

#include "halftone/numeric/host_device.hpp"
#include "halftone/numeric/math.hpp"
#include "halftone/numeric/type_list.hpp"

namespace halftone {

// An update rule is a functor: `at` computes what a step's weights have in common, once, and `apply` returns one new
// weight from its gradient `g` and changes its first `slot_count()` state numbers, which start at zero. The formulas
// are those of torch.optim, free of branches so that they vectorise, with weight decay added to the gradient or,
// `decoupled`, applied to the weight.

/// mean + gain (x - mean), exactly x for a gain of 1.
HALFTONE_HD constexpr float mean_with(float mean, float x, float gain) {
  return math::select(gain < 0.5f, mean + gain * (x - mean), x - (x - mean) * (1.0f - gain));
}

struct Sgd {
  float momentum = 0, weight_decay = 0;
  bool nesterov = false, decoupled = false;

  struct Coefficients {
    float learning_rate, keep, decay;  ///< keep: factor on the weight; decay: part of it that joins the gradient
  };

  static constexpr const char* name = "sgd";
  HALFTONE_HD constexpr int slot_count() const { return momentum != 0 ? 1 : 0; }

  HALFTONE_HD constexpr Coefficients at(float learning_rate, std::int64_t /*step*/) const {
    return {learning_rate, decoupled ? static_cast<float>(1 - double{learning_rate} * weight_decay) : 1.0f,
            decoupled ? 0.0f : weight_decay};
  }

  HALFTONE_HD constexpr float apply(const Coefficients& c, float w, float g, float& slot0, float& /*slot1*/) const {
    g = math::select(c.decay != 0, g + c.decay * w, g);
    const float velocity = momentum * slot0 + g, ahead = g + momentum * velocity;
    slot0 = math::select(momentum != 0, velocity, slot0);
    g = math::select(momentum == 0, g, math::select(nesterov, ahead, velocity));
    return c.keep * w - c.learning_rate * g;
  }
};

/// Kingma and Ba 2015; `decoupled` makes it AdamW (Loshchilov and Hutter 2019).
struct Adam {
  double beta1 = 0.9, beta2 = 0.999;  // doubles, since 1 - beta2 would lose 10 bits
  float epsilon = 1e-8f, weight_decay = 0;
  bool decoupled = false;

  struct Coefficients {
    float step_size, keep, decay, gain1, beta2, gain2, correction2;  ///< gain: 1 - beta
  };

  static constexpr const char* name = "adam";
  HALFTONE_HD constexpr int slot_count() const { return 2; }

  HALFTONE_HD Coefficients at(float learning_rate, std::int64_t step) const {
    const double correction1 = 1 - math::power(beta1, step), correction2 = std::sqrt(1 - math::power(beta2, step));
    return {static_cast<float>(learning_rate / correction1),
            decoupled ? static_cast<float>(1 - double{learning_rate} * weight_decay) : 1.0f,
            decoupled ? 0.0f : weight_decay,
            static_cast<float>(1 - beta1),
            static_cast<float>(beta2),
            static_cast<float>(1 - beta2),
            static_cast<float>(correction2)};
  }

  HALFTONE_HD float apply(const Coefficients& c, float w, float g, float& slot0, float& slot1) const {
    g = math::select(c.decay != 0, g + c.decay * w, g);
    slot0 = mean_with(slot0, g, c.gain1);
    slot1 = c.beta2 * slot1 + c.gain2 * g * g;
    return c.keep * w - c.step_size * (slot0 / (std::sqrt(slot1) / c.correction2 + epsilon));
  }
};

/// Adam in the maximum norm (Kingma and Ba 2015, section 7.1; torch.optim.Adamax). With `shift` the step size and the
/// norm are the nearest powers of two (Courbariaux et al. 2016, shift-based AdaMax).
struct AdaMax {
  double beta1 = 0.9, beta2 = 0.999;
  float epsilon = 1e-8f, weight_decay = 0;
  bool shift = false;

  struct Coefficients {
    float step_size, gain1, beta2;
  };

  static constexpr const char* name = "adamax";
  HALFTONE_HD constexpr int slot_count() const { return 2; }

  HALFTONE_HD Coefficients at(float learning_rate, std::int64_t step) const {
    const auto step_size = static_cast<float>(learning_rate / (1 - math::power(beta1, step)));
    return {shift ? math::nearest_power_of_two(step_size) : step_size, static_cast<float>(1 - beta1),
            static_cast<float>(beta2)};
  }

  HALFTONE_HD float apply(const Coefficients& c, float w, float g, float& slot0, float& slot1) const {
    g = math::select(weight_decay != 0, g + weight_decay * w, g);
    slot0 = mean_with(slot0, g, c.gain1);
    const float kept = c.beta2 * slot1, seen = math::abs(g) + epsilon;
    slot1 = math::select(kept > seen, kept, seen);
    return w - c.step_size * (slot0 / math::select(shift, math::nearest_power_of_two(slot1), slot1));
  }
};

/// Adam with decoupled weight decay.
constexpr Adam adamw(float weight_decay = 0.01f) { return {.weight_decay = weight_decay, .decoupled = true}; }

/// Every update rule.
using UpdateRules = TypeList<Sgd, Adam, AdaMax>;
using UpdateRule = UpdateRules::Variant;

/// The rule of that name, "adamw" or "shift_adamax", each with its defaults.
inline std::optional<UpdateRule> parse_update_rule(std::string_view name) {
  if (name == "shift_adamax") return AdaMax{.shift = true};
  return name == "adamw" ? adamw() : find_type(UpdateRules{}, name);
}

}  // namespace halftone
