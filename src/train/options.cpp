#include "halftone/train/options.hpp"

#include <fmt/format.h>

#include <cmath>

namespace halftone {

namespace {

bool within(double x, double least, double below) { return x >= least && x < below; }

/// Whatever of these numbers a rule has.
void check(const UpdateRule& rule) {
  const auto share = [](const char* name, double x) {
    if (!within(x, 0, 1)) fail(fmt::format("{} {} is not in [0, 1)", name, x));
  };
  std::visit(
      [&](const auto& r) {
        if constexpr (requires { r.momentum; }) share("momentum", double{r.momentum});
        if constexpr (requires { r.beta1; }) share("beta", double{r.beta1});
        if constexpr (requires { r.beta2; }) share("beta", double{r.beta2});
        if constexpr (requires { r.epsilon; })
          if (!(r.epsilon > 0 && std::isfinite(r.epsilon)))
            fail(fmt::format("epsilon {} is not a positive, finite number", r.epsilon));
        if constexpr (requires { r.weight_decay; })
          if (!(r.weight_decay >= 0 && std::isfinite(r.weight_decay)))
            fail(fmt::format("weight_decay {} is not a finite number of at least 0", r.weight_decay));
      },
      rule);
}

void check(const RoleStorage& roles, const std::string& where) {
  for (const auto& [role, member] : role_names) {
    const Storage& storage = roles.*member;
    const auto refuse = [&, &role = role](const char* why) {
      fail(fmt::format("precision{}: {} stored as {}: {}", where, role, to_string(storage), why));
    };
    const bool negative = visit_format(storage.code, [](auto format) { return format.decode(format.encode(-1)) < 0; });
    if (!negative) refuse("it holds no negative numbers");
    if (const char* fault = storage.fault()) refuse(fault);
    if (storage.scaling == Scaling::tensor && member != &RoleStorage::activations &&
        member != &RoleStorage::activation_gradients && member != &RoleStorage::weight_gradients)
      refuse("an update stores it piece by piece, before its largest number is known");
    if (storage.scaling == Scaling::range && !storage.noticed) refuse("a range moves by what is noticed");
  }
}

}  // namespace

void check(const Precision& precision) {
  if (precision.range_steps < 0) fail(fmt::format("range_steps: {} steps", precision.range_steps));
  check(precision.storage, "");
  for (const auto& e : precision.exceptions) check(e.storage, fmt::format(" in \"{}\"", e.scope));
}

ParameterGroup without_decay(UpdateRule rule) {
  std::visit(
      [](auto& r) {
        if constexpr (requires { r.weight_decay; }) r.weight_decay = 0;
      },
      rule);
  return {.scope = {}, .ending = {}, .rule = rule, .rank = 1};
}

void check(const TrainerOptions& options) {
  if (options.accumulate < 1) fail(fmt::format("accumulate: {} micro-batches a step", options.accumulate));
  if (!(options.clip_norm >= 0 && std::isfinite(options.clip_norm)))
    fail(fmt::format("clip_norm: {} is not a norm", options.clip_norm));
  if (!(options.average_decay >= 0 && options.average_decay < 1))
    fail(fmt::format("average_decay: {} is not in [0, 1)", options.average_decay));
  if (options.lookahead < 0 || (options.lookahead > 0 && options.average_decay == 0))
    fail(fmt::format("lookahead: every {} steps, with an average_decay of {}", options.lookahead,
                     options.average_decay));
  const Precision& precision = options.precision;
  const auto compensates = [](const auto& exception) { return exception.storage.compensated; };
  if (options.lookahead > 0 &&
      (precision.storage.compensated || std::ranges::any_of(precision.exceptions, compensates)))
    fail(fmt::format("lookahead: what precision {} compensates would be lost", precision.name));
  if (int exponent; !std::isnormal(options.stress) || !std::isnormal(1 / options.stress) ||
                    std::frexp(options.stress, &exponent) != 0.5f)
    fail(fmt::format("stress {}: it must be a power of two, so that it divides out exactly", options.stress));
  if (const char* fault = options.schedule.fault()) fail(fmt::format("schedule: {}", fault));
  if (const char* fault = options.precision.loss_scale.fault())
    fail(fmt::format("loss scale {}: {}", options.precision.loss_scale.options.initial, fault));
  if (const float both = options.precision.loss_scale.options.initial * options.stress;
      !std::isnormal(both) || !std::isnormal(1 / both))
    fail(fmt::format("stress {}: together with a loss scale of {} it is no normal number", options.stress,
                     options.precision.loss_scale.options.initial));
  naming("optimizer", [&] { check(options.optimizer); });
  for (std::size_t g = 0; g < options.groups.size(); ++g)
    naming(fmt::format("parameter group {}", g + 1), [&] {
      const ParameterGroup& group = options.groups[g];
      if (!(group.learning_rate >= 0 && std::isfinite(group.learning_rate)))
        fail(fmt::format("learning_rate {} is not a finite factor of at least 0", group.learning_rate));
      if (group.until < 1) fail(fmt::format("until {}: they would never be trained", group.until));
      if (group.limit && !(*group.limit > 0)) fail(fmt::format("limit {} is not positive", *group.limit));
      if (group.rule) check(*group.rule);
    });
  check(options.precision);
}

}  // namespace halftone
