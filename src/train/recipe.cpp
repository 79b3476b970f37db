#include "halftone/train/recipe.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <vector>

#include "halftone/tensor/error.hpp"
#include "halftone/tensor/text.hpp"

namespace halftone {
namespace {

[[noreturn]] void bad_schedule(const Recipe& recipe, const std::string& why) {
  fail(fmt::format("schedule {}: {}", recipe.schedule, why));
}

double number(const Recipe& recipe, std::string_view text) {
  const auto value = parse_number(text);
  if (!value) bad_schedule(recipe, fmt::format("'{}' is not a number", text));
  if (!fits_f32(*value))
    bad_schedule(recipe, fmt::format("'{}' is too {} for f32", text, std::abs(*value) > 1 ? "large" : "small"));
  return *value;
}

/// What stands before the first `mark`, which is taken off `text` with it.
std::string_view take_until(std::string_view& text, char mark) {
  const std::size_t at = text.find(mark);
  const std::string_view head = text.substr(0, at);
  text = at == std::string_view::npos ? std::string_view() : text.substr(at + 1);
  return head;
}

Schedule step_schedule(const Recipe& recipe, std::string_view arguments, float peak, double steps) {
  std::vector<std::int64_t> milestones;
  std::string_view epochs = take_until(arguments, ':');
  if (epochs.ends_with(',')) bad_schedule(recipe, "an epoch is missing");
  while (!epochs.empty()) {
    if (milestones.size() == Schedule::most_milestones)
      bad_schedule(recipe, fmt::format("there can be at most {} epochs", Schedule::most_milestones));
    const double epoch = number(recipe, take_until(epochs, ','));
    if (epoch < 0 || epoch > 1e9) bad_schedule(recipe, "an epoch is out of range");
    milestones.push_back(std::llround(epoch * steps));
  }
  if (milestones.empty() || arguments.empty()) bad_schedule(recipe, "it reads step:EPOCH,EPOCH..:FACTOR");
  const auto factor = static_cast<float>(number(recipe, arguments));
  if (!(factor > 0)) bad_schedule(recipe, "the factor must be positive");
  return Schedule::step(peak, milestones, factor);
}

/// RISE:START:END.
Schedule one_cycle(const Recipe& recipe, std::string_view arguments, float peak, std::int64_t total) {
  double shares[3];
  for (double& share : shares) {
    share = number(recipe, take_until(arguments, ':'));
    if (!(share >= 0 && share < 1)) bad_schedule(recipe, "RISE, START and END are shares in [0, 1)");
  }
  if (!arguments.empty()) bad_schedule(recipe, "it reads one_cycle:RISE:START:END");
  const auto rate = [&](double share) { return static_cast<float>(share * peak); };
  return Schedule::one_cycle(peak, total, static_cast<std::int64_t>(shares[0] * static_cast<double>(total)),
                             rate(shares[1]), rate(shares[2]));
}

/// A part of `Recipe::freeze` and the epochs after which it counts, 0 where it says none.
std::pair<std::string, double> frozen(std::string_view text) {
  const bool at_once = text.find(':') == std::string_view::npos;
  const std::string scope(take_until(text, ':'));
  if (scope.empty()) fail("freeze: it reads SCOPE or SCOPE:EPOCHS");
  const auto epochs = at_once ? 0 : parse_number(text);
  if (!epochs || !(*epochs >= 0 && *epochs < 1e9))
    fail(fmt::format("freeze {}: '{}' is no number of epochs", scope, text));
  return {scope, *epochs};
}

float exponential_end(const Recipe& recipe, std::string_view arguments) {
  const double end = number(recipe, arguments);
  if (!(end > 0)) bad_schedule(recipe, "the last rate must be positive");
  return static_cast<float>(end);
}

}  // namespace

std::span<const Recipe> recipes() {
  static const Recipe all[] = {
      {.name = "lenet5", .net = "lenet5", .data = "mnist", .schedule = "one_cycle", .learning_rate = 0.1f},
      {.name = "resnet20",
       .net = "resnet20",
       .data = "cifar10",
       .schedule = "one_cycle",
       .learning_rate = 0.1f,
       .nesterov = true,
       .epochs = 40,
       .crop = 4,
       .flip = true,
       .alternate = true},
      {.name = "resnet18",
       .net = "resnet18",
       .data = "cifar10",
       .schedule = "one_cycle",
       .learning_rate = 0.1f,
       .nesterov = true,
       .epochs = 30,
       .crop = 4,
       .cutout = 8,
       .flip = true},
      // Jordan 2024: rates and decay are those of the summed loss times and by 1024; 9.9 epochs there
      {.name = "airbench94",
       .net = "airbench94",
       .data = "cifar10",
       .schedule = "one_cycle:0.23:0.2:0.07",
       .learning_rate = 1.5f,
       .momentum = 0.85f,
       .weight_decay = 0.0153f / 11.5f,
       .vector_rate = 64,
       .nesterov = true,
       .epochs = 10,
       .batch = 1024,
       .crop = 2,
       .reflect = true,
       .flip = true,
       .alternate = true,
       .label_smoothing = 0.2f,
       .average_decay = 0.95f,
       .lookahead = 5,
       .whiten = "whitening",
       .freeze = {"whitening:3"},
       .test_every = 10,
       .views = true},
      {.name = "binary_mlp",
       .net = "mlp",
       .data = "mnist",
       .precision = "binary",
       .optimizer = "adam",
       .schedule = "exponential:3e-5",
       .learning_rate = 3e-3f,
       .epochs = 10,
       .batch = 100}};
  return all;
}

const Recipe& recipe_by_name(std::string_view name) {
  std::vector<std::string_view> names;
  for (const Recipe& recipe : recipes()) {
    if (name == recipe.name) return recipe;
    names.push_back(recipe.name);
  }
  fail(fmt::format("recipe {}: known recipes are {}", name, fmt::join(names, ", ")));
}

float learning_rate_of(const Recipe& recipe) {
  return recipe.learning_rate.value_or(recipe.optimizer == "sgd" ? 0.05f : 0.001f);
}

std::string optimizer_names() {
  std::string names;
  for (std::size_t i = 0; i < UpdateRules::size; ++i)
    names += visit_type(UpdateRules{}, i, [&](auto rule) { return fmt::format("{}{}", i > 0 ? ", " : "", rule.name); });
  return names + ", shift_adamax or adamw";
}

UpdateRule update_rule_of(const Recipe& recipe) {
  auto rule = parse_update_rule(recipe.optimizer);
  if (!rule) fail(fmt::format("optimizer {}: it is {}", recipe.optimizer, optimizer_names()));
  if (Sgd* sgd = std::get_if<Sgd>(&*rule)) *sgd = {.momentum = 0.9f, .weight_decay = 5e-4f};
  std::visit(
      [&](auto& r) {
        if constexpr (requires { r.nesterov; })
          r.nesterov = recipe.nesterov;
        else if (recipe.nesterov)
          fail(fmt::format("nesterov: {} has none", recipe.optimizer));
        if constexpr (requires { r.momentum; })
          r.momentum = recipe.momentum.value_or(r.momentum);
        else if (recipe.momentum)
          fail(fmt::format("momentum: {} has none", recipe.optimizer));
        if constexpr (requires { r.weight_decay; })
          r.weight_decay = recipe.weight_decay.value_or(r.weight_decay);
        else if (recipe.weight_decay)
          fail(fmt::format("weight-decay: {} has none", recipe.optimizer));
      },
      *rule);
  return *rule;
}

std::vector<ParameterGroup> groups_of(const Recipe& recipe, double steps) {
  std::vector<ParameterGroup> groups;
  for (const std::string& text : recipe.freeze)
    if (const auto [scope, epochs] = frozen(text); epochs > 0)
      groups.push_back({.scope = scope, .until = std::max<std::int64_t>(std::llround(epochs * steps), 1)});
  if (recipe.decay_vectors && recipe.vector_rate == 1) return groups;
  UpdateRule rule = update_rule_of(recipe);
  std::visit(
      [&](auto& r) {
        if constexpr (requires { r.weight_decay; }) r.weight_decay /= recipe.vector_rate;
      },
      rule);
  groups.push_back(recipe.decay_vectors ? ParameterGroup{.rule = rule, .rank = 1} : without_decay(rule));
  groups.back().learning_rate = recipe.vector_rate;
  return groups;
}

std::vector<std::string> frozen_of(const Recipe& recipe) {
  std::vector<std::string> scopes;
  for (const std::string& text : recipe.freeze)
    if (const auto [scope, epochs] = frozen(text); epochs == 0) scopes.push_back(scope);
  return scopes;
}

Schedule schedule_of(const Recipe& recipe, double steps) {
  const float peak = learning_rate_of(recipe);
  const std::int64_t total = std::llround(static_cast<double>(recipe.epochs) * steps);
  const std::int64_t warmup = std::llround(recipe.warmup * steps);
  if (warmup < 0 || (warmup > 0 && warmup >= total))
    fail(fmt::format("warmup {}: it must end within the {} epochs", recipe.warmup, recipe.epochs));
  std::string_view arguments = recipe.schedule;
  const std::string_view kind = take_until(arguments, ':');
  if (kind == "one_cycle" && recipe.schedule != "one_cycle") {
    if (warmup > 0) fail(fmt::format("warmup {}: schedule {} has its own", recipe.warmup, recipe.schedule));
    return one_cycle(recipe, arguments, peak, total);
  }
  if (kind == "exponential") return Schedule::exponential(peak, exponential_end(recipe, arguments), total, warmup);
  if (recipe.schedule == "constant") return Schedule::constant(peak, warmup);
  if (recipe.schedule == "cosine") return Schedule::cosine(peak, total, warmup);
  if (recipe.schedule == "linear") return Schedule::linear(peak, total, warmup);
  Schedule schedule;
  if (kind == "step")
    schedule = step_schedule(recipe, arguments, peak, steps);
  else if (recipe.schedule == "one_cycle")
    schedule = Schedule::one_cycle(peak, total);
  else
    bad_schedule(recipe,
                 "it is constant, step:EPOCH,EPOCH..:FACTOR, cosine, one_cycle, one_cycle:RISE:START:END, linear or "
                 "exponential:END");
  if (warmup > 0) schedule.warmup = warmup;
  return schedule;
}

}  // namespace halftone
