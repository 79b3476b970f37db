#include "src/train/state_fields.hpp"

#include <fmt/format.h>

#include <charconv>
#include <limits>

#include "halftone/tensor/error.hpp"

namespace halftone {
namespace {

constexpr std::int64_t most_steps = std::int64_t{1} << 40;  ///< random numbers are drawn for so many
constexpr std::int64_t most_counted = std::int64_t{1} << 60;
constexpr std::int32_t most_in_a_row = 1 << 30;
constexpr float smallest = std::numeric_limits<float>::min(), largest = std::numeric_limits<float>::max();

/// Calls f(name, field, least, most) for all that outlasts a batch.
template <class State, class F>
void for_each_field(State& s, F&& f) {
  f("seed", s.seed, std::uint64_t{0}, std::numeric_limits<std::uint64_t>::max());
  f("attempts", s.attempts, std::int64_t{0}, most_steps);
  f("steps", s.steps, std::int64_t{0}, s.attempts);
  f("nonfinite_total", s.nonfinite_total, std::int64_t{0}, most_counted);
  f("scale", s.scale.scale, smallest, largest);
  f("good_steps", s.scale.good_steps, 0, most_in_a_row);
  f("bad_steps", s.scale.bad_steps, 0, most_in_a_row);
  f("consecutive_skips", s.scale.consecutive_skips, 0, most_in_a_row);
  f("stop", s.scale.stop, 0, 1);
  f("zero_gradient_shares", s.zero_gradient_shares, 0.0, static_cast<double>(s.steps));
  f("unchanged_weight_shares", s.unchanged_weight_shares, 0.0, static_cast<double>(s.steps));
  f("micro_batch", s.micro_batch, 0, most_in_a_row);
  f("good_micro_batches", s.good_micro_batches, 0, s.micro_batch > 0 ? s.micro_batch : most_in_a_row);
  f("used_scale", s.used_scale, smallest, largest);
  f("loss_sum", s.loss_sum, -std::numeric_limits<double>::max(), std::numeric_limits<double>::max());
  f("zero_gradients", s.zero_gradients, std::int64_t{0}, most_counted);
  f("outcome", s.outcome, 0, static_cast<std::int32_t>(StepOutcome::overflow));
}

template <class State, class F>
void for_each_range_field(State& s, F&& f) {
  f("scale", s.scale, smallest, largest);
  for (const auto& named :
       {std::pair{"noticed", &s.noticed}, std::pair{"kept", &s.kept}, std::pair{"total", &s.total}}) {
    const char* name = named.first;
    auto* noticed = named.second;
    const auto field = [&](const char* which, auto& number) {
      f(fmt::format("{}.{}", name, which), number, std::int64_t{0}, most_counted);
    };
    field("count", noticed->count);
    field("zeros", noticed->zeros);
    field("flushed", noticed->flushed);
    field("saturated", noticed->saturated);
    field("upper_half", noticed->upper_half);
    field("updated", noticed->updated);
    field("unchanged", noticed->unchanged);
    f(fmt::format("{}.largest", name), noticed->largest, 0.0f, std::numeric_limits<float>::infinity());
  }
  f("steps", s.steps, std::int64_t{0}, most_steps);
}

/// Reads a field of a state; throws Error for one that is damaged.
struct Read {
  const std::map<std::string, std::string>& metadata;
  std::string prefix;

  template <class T>
  void operator()(const std::string& name, T& field, T least, T most) const {
    const auto found = metadata.find(prefix + name);
    if (found == metadata.end()) return;
    const std::string& text = found->second;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), field);
    if (error != std::errc() || end != text.data() + text.size() || !(field >= least && field <= most)) refuse(name);
  }

  [[noreturn]] void refuse(const std::string& name) const {
    fail(fmt::format("{}{}: no training leaves it so", prefix, name));
  }
};

/// Notes the fields of a state.
struct Put {
  std::map<std::string, std::string>& metadata;
  std::string prefix;

  template <class T>
  void operator()(const std::string& name, const T& field, const auto&, const auto&) const {
    metadata[prefix + name] = fmt::format("{}", field);
  }
};

constexpr const char* of_step = "state.";

std::string of_range(const std::string& value) { return fmt::format("range.{}.", value); }

}  // namespace

void put_fields(const StepState& state, std::map<std::string, std::string>& metadata) {
  for_each_field(state, Put{metadata, of_step});
}

void put_fields(const RangeState& state, const std::string& value, std::map<std::string, std::string>& metadata) {
  for_each_range_field(state, Put{metadata, of_range(value)});
}

void put_scale(const RangeState& state, const std::string& value, std::map<std::string, std::string>& metadata) {
  metadata[of_range(value) + "scale"] = fmt::format("{}", state.scale);
}

StepState step_state_of(const std::map<std::string, std::string>& metadata) {
  StepState state;
  const Read read{metadata, of_step}, of_training{metadata, ""};
  for (const char* name : {"seed", "attempts", "steps", "scale"})
    if (!metadata.contains(std::string(of_step) + name)) fail(fmt::format("{}{} is missing", of_step, name));
  for_each_field(state, read);
  std::uint64_t seed = state.seed;
  std::int32_t accumulate = most_in_a_row;
  of_training("seed", seed, std::uint64_t{0}, std::numeric_limits<std::uint64_t>::max());
  of_training("accumulate", accumulate, 1, most_in_a_row);
  if (state.seed != seed) read.refuse("seed");
  if (state.micro_batch >= accumulate) read.refuse("micro_batch");
  if (state.good_micro_batches > accumulate) read.refuse("good_micro_batches");
  return state;
}

RangeState range_state_of(const std::map<std::string, std::string>& metadata, const std::string& value,
                          float first_scale) {
  RangeState state;
  state.scale = first_scale;
  for_each_range_field(state, Read{metadata, of_range(value)});
  state.next = state.scale;
  return state;
}

bool has_scale(const std::map<std::string, std::string>& metadata, const std::string& value) {
  return metadata.contains(of_range(value) + "scale");
}

}  // namespace halftone
