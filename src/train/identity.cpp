#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstring>
#include <set>

#include "halftone/train/checkpoint.hpp"

namespace halftone {
namespace {

/// With the numbers of what moves its scale, whatever these are called.
std::string text_of(const Storage& storage) {
  std::string text = to_string(storage);
  if (storage.scaling != Scaling::range) return text;
  std::visit(
      [&](const auto& controller) {
        std::uint32_t words[sizeof controller / 4];
        std::memcpy(words, &controller, sizeof words);
        for (const std::uint32_t word : words) text += fmt::format(" {:x}", word);
      },
      storage.controller);
  return text;
}

std::string text_of(const RoleStorage& s) {
  return fmt::format("activations {}; activation gradients {}; weights {}; weight gradients {}; update {}{}; slots {}",
                     text_of(s.activations), text_of(s.activation_gradients), text_of(s.weights),
                     text_of(s.weight_gradients), text_of(s.update), s.compensated ? " compensated" : "",
                     text_of(s.optimizer_slots));
}

/// The storages by role, then those of each exception.
std::string text_of(const Precision& precision) {
  std::string text = text_of(precision.storage);
  for (const auto& e : precision.exceptions) text += fmt::format(" | {}: {}", e.scope, text_of(e.storage));
  if (precision.range_steps > 0) text += fmt::format(" | ranges of {} steps", precision.range_steps);
  if (precision.binarizes) text += precision.shift_norms ? " | binary, shift-based norms" : " | binary";
  return precision.fuses ? text : text + " | not fused";
}

std::string text_of(const UpdateRule& rule) {
  return std::visit(
      [](const auto& r) {
        std::string text = r.name;
        if constexpr (requires { r.decoupled; }) text += r.decoupled ? ", decoupled" : "";
        if constexpr (requires { r.shift; }) text += r.shift ? ", shift" : "";
        return text;
      },
      rule);
}

/// The trainer's rule, then those of groups that have their own.
std::string rules_of(const TrainerOptions& options) {
  std::string text = text_of(options.optimizer);
  for (const auto& group : options.groups)
    if (group.rule)
      text += fmt::format("; {}*{}{}: {}", group.scope, group.ending, group.rank == 1 ? " (vectors)" : "",
                          text_of(*group.rule));
  return text;
}

/// Their order means nothing.
std::string frozen_in(const TrainerOptions& options) {
  const std::set<std::string> scopes(options.frozen.begin(), options.frozen.end());
  return scopes.empty() ? "none" : fmt::format("{}", fmt::join(scopes, ","));
}

std::string average_of(const TrainerOptions& options) {
  if (options.average_decay == 0) return "none";
  const std::string every = options.lookahead > 0 ? fmt::format(" lookahead {}", options.lookahead) : "";
  return fmt::format("{}{}", options.average_decay, every);
}

std::string text_of(OnNan on_nan) {
  return on_nan == OnNan::skip ? "skip" : on_nan == OnNan::stop ? "stop" : "back off";
}

std::string text_of(const LossScale& scale) {
  const DynamicOptions& o = scale.options;
  std::string text = "none";
  if (scale.mode == LossScale::Mode::fixed) text = fmt::format("{}", o.initial);
  if (scale.mode == LossScale::Mode::dynamic)
    text = fmt::format("dynamic:{} growth {} backoff {} interval {} min {} max {} hysteresis {} floor {}", o.initial,
                       o.growth, o.backoff, o.interval, o.min, o.max, o.hysteresis,
                       o.on_floor == OnFloor::stop ? "stop" : "stay");
  return fmt::format("{} nan {} max-skips {}", text, text_of(o.on_nan), o.max_consecutive_skips);
}

}  // namespace

Identity identity_of(const TrainerOptions& options) {
  return {{{"precision", options.precision.name},
           {"storage", text_of(options.precision)},
           {"optimizer", rules_of(options)},
           {"freeze", frozen_in(options)},
           {"ema", average_of(options)},
           {"accumulate", std::to_string(options.accumulate)},
           {"loss-scale", text_of(options.precision.loss_scale)},
           {"stress", fmt::format("{}", options.stress)},
           {"seed", std::to_string(options.seed)}},
          {{"clip-norm", fmt::format("{}", options.clip_norm)}, {"algorithms", options.device.backend().algorithms()}}};
}

}  // namespace halftone
