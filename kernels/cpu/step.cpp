#include <algorithm>
#include <cmath>
#include <cstring>

#include "halftone/graph/step_ops.hpp"
#include "kernels/common/chunks.hpp"
#include "kernels/cpu/backend.hpp"
#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/storage.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/step.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/strands-inl.hpp"

#ifndef HALFTONE_CPU_STEP_ONCE
#define HALFTONE_CPU_STEP_ONCE
namespace halftone::cpu {
/// The largest finite numbers of a weight's and of its slots' storage.
struct Limits {
  float weight, slot;
};

/// What a pass over one chunk of gradients found.
struct Found {
  double sum_of_squares = 0;
  std::int64_t zeros = 0, bad = 0, first_bad = -1;
};
}  // namespace halftone::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {

void inspect(const float* g, std::int64_t count, float factor, Found& found) {
  const double squares = sum_of(count, [=](std::int64_t i) HWY_ATTR {
    const auto true_gradient = static_cast<double>(g[i] * factor);
    return true_gradient * true_gradient;
  });
  std::int32_t zeros = 0, bad = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    zeros += g[i] == 0;
    bad += (bit_cast<std::uint32_t>(g[i]) & 0x7f800000u) == 0x7f800000u;
  }
  found = {squares, zeros, bad, -1};
  for (std::int64_t i = 0; bad > 0 && found.first_bad < 0; ++i)
    if (!std::isfinite(g[i])) found.first_bad = i;
}

void scale_into(const float* g, std::int64_t count, float factor, bool first, float* total) {
  for (std::int64_t i = 0; i < count; ++i) total[i] = g[i] * factor + (first ? 0.0f : total[i]);
}

/// What lasts stays finite: at most `limits` of the weight and of the slots.
template <class Rule>
std::int64_t apply_rule(Rule rule, typename Rule::Coefficients c, const float* g, float factor, std::int64_t count,
                        Limits limits, float* w, float* slot0, float* slot1) {
  std::int32_t unchanged = 0;
#pragma omp simd reduction(+ : unchanged)
  for (std::int64_t i = 0; i < count; ++i) {
    const float before = w[i], before0 = slot0[i], before1 = slot1[i];
    float next0 = before0, next1 = before1;
    const float next = rule.apply(c, before, g[i] * factor, next0, next1);
    w[i] = math::saturate(next, limits.weight, before);
    slot0[i] = math::saturate(next0, limits.slot, before0);
    slot1[i] = math::saturate(next1, limits.slot, before1);
    unchanged += w[i] == before;
  }
  return unchanged;
}

void blend(const float* w, std::int64_t count, float kept, float* average) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) average[i] = blended(average[i], w[i], kept);
}

template <class Rule>
struct Apply {
  static constexpr auto function = apply_rule<Rule>;
};

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {
namespace {

std::vector<Access> accesses(Isa isa, std::span<const ValueSpec> values) {
  std::vector<Access> result;
  for (const ValueSpec& value : values) result.emplace_back(isa, value);
  return result;
}

/// A run of a tensor that is read, changed and stored again; f32 is changed where it is.
class Changing {
 public:
  Changing(const Access& access, const Arguments& a, std::size_t output, const Chunk& chunk, float* buffer)
      : output_(access, a, output), chunk_(chunk), values_(output_.place(chunk.first, buffer)) {
    if (!access.f32) Input(access, a.outputs[output]).copy(chunk.first, chunk.count, values_);
  }
  float* values() const { return values_; }
  void store() const { output_(chunk_.first, chunk_.count, values_); }
  /// What has been stored, as it will be read.
  void read_back(float* to) const { output_.read_back(chunk_.first, chunk_.count, to); }

 private:
  Output output_;
  Chunk chunk_;
  float* values_;
};

}  // namespace

Launch begin_micro_batch(const Request&) {
  return {[](const Arguments& a) { halftone::begin_micro_batch(*a.state); }};
}

Launch seed_gradient(const Request& request) {
  return {[seed = Access(machine_of(request).isa, request.outputs[0])](const Arguments& a) {
    const float scale = a.state->gradient_scale();
    Output(seed, a, 0)(0, 1, &scale);
  }};
}

Launch check_gradients(const Request& request) {
  const auto [threads, isa] = machine_of(request);
  const auto chunks = chunks_of(request.inputs.subspan(1));
  const auto inputs = accesses(isa, request.inputs);
  const auto inspect = HALFTONE_PER_ISA(isa, inspect);
  const auto run = [=, threads = threads,
                    parameters = request.attributes<CheckGradients>().parameters](const Arguments& a) {
    auto* found = static_cast<Found*>(a.workspace);
    const float factor = 1 / a.state->gradient_scale();
    parallel_for(threads, std::ssize(chunks), [&](std::int64_t t) {
      float buffer[Chunk::most];
      const Chunk& chunk = chunks[static_cast<std::size_t>(t)];
      const Input gradient(inputs[chunk.tensor + 1], a.inputs[chunk.tensor + 1]);
      inspect(gradient(chunk.first, chunk.count, buffer), chunk.count, factor, found[t]);
    });
    GradientFindings all;
    for (std::size_t i = 0; i < chunks.size(); ++i) {
      all.sum_of_squares += found[i].sum_of_squares;
      all.zeros += found[i].zeros;
      all.nonfinite += found[i].bad;
      if (found[i].bad > 0 && all.first_bad_parameter < 0) {
        all.first_bad_parameter = parameters[chunks[i].tensor];
        all.first_bad_element = chunks[i].first + found[i].first_bad;
      }
    }
    float loss = 0;
    judge_micro_batch(*a.state, *Input(inputs[0], a.inputs[0])(0, 1, &loss), all);
  };
  return {run, chunks.size() * sizeof(Found)};
}

Launch accumulate_gradients(const Request& request) {
  const auto [threads, isa] = machine_of(request);
  const auto chunks = chunks_of(request.inputs);
  const auto inputs = accesses(isa, request.inputs);
  const auto inspect = HALFTONE_PER_ISA(isa, inspect);
  const auto add_scaled = HALFTONE_PER_ISA(isa, scale_into);
  const auto run = [=, threads = threads](const Arguments& a) {
    auto* found = static_cast<Found*>(a.workspace);
    StepState& state = *a.state;
    const float factor = 1 / state.gradient_scale();
    parallel_for(threads, std::ssize(chunks), [&](std::int64_t t) {
      float buffer[Chunk::most];
      const Chunk& chunk = chunks[static_cast<std::size_t>(t)];
      float* sum = a.out<float>(chunk.tensor) + chunk.first;
      const Input gradient(inputs[chunk.tensor], a.inputs[chunk.tensor]);
      if (state.good)
        add_scaled(gradient(chunk.first, chunk.count, buffer), chunk.count, factor, state.good_micro_batches == 1, sum);
      inspect(sum, chunk.count, 1, found[t]);
    });
    double sum_of_squares = 0;
    for (std::size_t i = 0; state.good_micro_batches > 0 && i < chunks.size(); ++i)
      sum_of_squares += found[i].sum_of_squares;
    judge_sum(state, sum_of_squares);
  };
  return {run, chunks.size() * sizeof(Found)};
}

Launch advance(const Request& request) {
  return {[policy = request.attributes<Advance>().policy](const Arguments& a) { decide(*a.state, policy); }};
}

Launch move_ranges(const Request& request) {
  return {[op = request.attributes<MoveRanges>()](const Arguments& a) {
    const StepState& state = *a.state;
    if (!state.last_micro_batch) return;
    const bool commit = moves_ranges(state);
    auto* range = a.out<RangeState>(0);
    for (const auto& [controller, moves, lasts] : op.ranges) move_range(controller, *range++, commit, moves, lasts);
  }};
}

Launch settle_ranges(const Request& request) {
  const std::size_t count = request.outputs[0].tensor().bytes() / sizeof(RangeState);
  return {[count](const Arguments& a) {
    auto* ranges = a.out<RangeState>(0);
    for (std::size_t i = 0; i < count; ++i) ranges[i].scale = ranges[i].next;
  }};
}

namespace {

/// How one parameter's numbers are read and written in an update, and which outputs they are.
struct Updating {
  Shape shape;
  Limits limits;
  Access gradient, truth, slots[2], compensation, copy;
  std::size_t output;  ///< of the truth; the others follow
  int slot_count;
  bool compensated, has_copy;

  Updating(Isa isa, const Request& request, std::size_t input, std::size_t output, int slot_count,
           const Update::Updated& updated)
      : shape(request.inputs[input].shape),
        limits{std::min(request.attributes<Update>().limit, request.outputs[output].storage.largest_update()),
               (slot_count > 0 ? request.outputs[output + 1].storage : Storage()).largest_update()},
        gradient(isa, request.inputs[input]),
        truth(isa, request.outputs[output]),
        output(output),
        slot_count(slot_count),
        compensated(updated.compensated),
        has_copy(updated.has_copy) {
    for (int i = 0; i < slot_count; ++i)
      slots[i] = Access(isa, request.outputs[output + 1 + static_cast<std::size_t>(i)]);
    if (compensated) compensation = Access(isa, request.outputs[compensation_output()]);
    if (has_copy) copy = Access(isa, request.outputs[copy_output()]);
  }
  std::size_t compensation_output() const { return output + 1 + static_cast<std::size_t>(slot_count); }
  std::size_t copy_output() const { return compensation_output() + (compensated ? 1 : 0); }
  std::size_t end() const { return copy_output() + (has_copy ? 1 : 0); }

  /// Updates one chunk by `apply(gradient, count, limits, weights, slot 0, slot 1)`, which says how many weights stay
  /// as they are.
  template <class Apply>
  std::int64_t run(const Arguments& a, const Chunk& chunk, const Apply& apply) const {
    float buffers[6][Chunk::most];
    const float* g = Input(gradient, a.inputs[chunk.tensor])(chunk.first, chunk.count, buffers[0]);
    const Changing weights(truth, a, output, chunk, buffers[1]);
    std::optional<Changing> slot[2];
    float* of_slot[2] = {buffers[2], buffers[3]};
    for (int i = slot_count; i < 2; ++i) std::fill_n(of_slot[i], chunk.count, 0.0f);
    for (std::size_t i = 0; i < static_cast<std::size_t>(slot_count); ++i)
      of_slot[i] = slot[i].emplace(slots[i], a, output + 1 + i, chunk, buffers[2 + i]).values();
    const auto step = [&] { return apply(g, chunk.count, limits, weights.values(), of_slot[0], of_slot[1]); };
    std::int64_t unchanged;
    const float* stored = weights.values();
    if (truth.f32 && !compensated) {
      unchanged = step();
      weights.store();
    } else {
      unchanged = rounded(a, chunk, weights, buffers[4], buffers[5], step);
      stored = buffers[5];
    }
    for (const auto& changed : slot)
      if (changed) changed->store();
    if (has_copy) Output(copy, a, copy_output())(chunk.first, chunk.count, stored);
    return unchanged;
  }

  /// The same where storing rounds: `stored` is what will be read. With a compensation the rule sees the weight
  /// together with what rounding has taken from it, and what it takes now is kept (Kahan 1965).
  template <class Step>
  std::int64_t rounded(const Arguments& a, const Chunk& chunk, const Changing& weights, float* before, float* stored,
                       const Step& step) const {
    float lost[Chunk::most];
    float* w = weights.values();
    std::copy_n(w, chunk.count, before);
    std::optional<Changing> rest;
    if (compensated) {
      const float* k = rest.emplace(compensation, a, compensation_output(), chunk, lost).values();
      for (std::int64_t i = 0; i < chunk.count; ++i) w[i] += k[i];
    }
    step();
    weights.store();
    weights.read_back(stored);
    if (compensated) {
      for (std::int64_t i = 0; i < chunk.count; ++i) rest->values()[i] = w[i] - stored[i];
      rest->store();
    }
    std::int64_t unchanged = 0;
    for (std::int64_t i = 0; i < chunk.count; ++i) unchanged += stored[i] == before[i];
    return unchanged;
  }
};

}  // namespace

Launch update(const Request& request) {
  const auto& op = request.attributes<Update>();
  const auto [threads, isa] = machine_of(request);
  return std::visit(
      [&, isa = isa, threads = threads](const auto& rule) -> Launch {
        using Rule = std::decay_t<decltype(rule)>;
        std::vector<Updating> parameters;
        for (std::size_t i = 0, output = 0; i < op.parameters.size(); ++i, output = parameters.back().end())
          parameters.emplace_back(isa, request, i, output, rule.slot_count(), op.parameters[i]);
        const auto chunks = chunks_of(parameters);
        const auto apply = HALFTONE_PER_ISA(isa, Apply<Rule>::function);
        const std::size_t workspace = chunks.size() * sizeof(std::int64_t);
        const auto run = [=, parameters = std::move(parameters), policy = op.policy, factor_on_rate = op.learning_rate,
                          until = op.until](const Arguments& a) {
          StepState& state = *a.state;
          if (!state.commit) return;
          const auto coefficients = rule.at(rate_of(state, factor_on_rate, until), state.steps + 1);
          const float factor = update_factor(state, policy);
          auto* unchanged = static_cast<std::int64_t*>(a.workspace);
          parallel_for(threads, std::ssize(chunks), [&](std::int64_t t) {
            const Chunk& chunk = chunks[static_cast<std::size_t>(t)];
            unchanged[t] = parameters[chunk.tensor].run(
                a, chunk,
                [&](const float* g, std::int64_t count, const Limits& limits, float* w, float* slot0, float* slot1) {
                  return apply(rule, coefficients, g, factor, count, limits, w, slot0, slot1);
                });
          });
          for (std::size_t i = 0; i < chunks.size(); ++i) {
            state.unchanged_weights += unchanged[i];
            RangeState* const range = a.outputs[parameters[chunks[i].tensor].output].range;
            if (range) range->noticed.updated += chunks[i].count, range->noticed.unchanged += unchanged[i];
          }
        };
        return {run, workspace};
      },
      op.rule);
}

Launch keep_statistics(const Request& request) {
  std::vector<std::size_t> bytes;
  for (const ValueSpec& value : request.inputs) bytes.push_back(value.tensor().bytes());
  return {[=, back = request.attributes<KeepStatistics>().back](const Arguments& a) {
    const StepState& state = *a.state;
    if (!copies_statistics(state, back)) return;
    for (std::size_t i = 0; i < bytes.size(); ++i) std::memcpy(a.outputs[i].data, a.inputs[i].data, bytes[i]);
  }};
}

Launch average_weights(const Request& request) {
  const auto [threads, isa] = machine_of(request);
  const auto chunks = chunks_of(request.inputs);
  const auto inputs = accesses(isa, request.inputs);
  const auto blend = HALFTONE_PER_ISA(isa, blend);
  return {[=, threads = threads, decay = request.attributes<AverageWeights>().decay](const Arguments& a) {
    if (!a.state->commit) return;
    const float kept = kept_average(*a.state, decay);
    parallel_for(threads, std::ssize(chunks), [&](std::int64_t t) {
      float buffer[Chunk::most];
      const Chunk& chunk = chunks[static_cast<std::size_t>(t)];
      const Input truth(inputs[chunk.tensor], a.inputs[chunk.tensor]);
      blend(truth(chunk.first, chunk.count, buffer), chunk.count, kept, a.out<float>(chunk.tensor) + chunk.first);
    });
  }};
}

Launch lookahead(const Request& request) {
  const auto& op = request.attributes<Lookahead>();
  const auto [threads, isa] = machine_of(request);
  const auto chunks = chunks_of(request.inputs);
  const auto outputs = accesses(isa, request.outputs);
  const auto blend = HALFTONE_PER_ISA(isa, blend);
  std::vector<std::size_t> first = {0};  // output of each truth
  for (const bool copy : op.has_copy) first.push_back(first.back() + (copy ? 3 : 2));
  return {[=, threads = threads, op = op](const Arguments& a) {
    const float kept = kept_average(*a.state, op.decay, op.interval, op.total);
    if (!a.state->commit || kept == 1) return;
    parallel_for(threads, std::ssize(chunks), [&](std::int64_t t) {
      float buffer[Chunk::most];
      const Chunk& chunk = chunks[static_cast<std::size_t>(t)];
      const std::size_t output = first[chunk.tensor];
      float* average = a.out<float>(output) + chunk.first;
      const Changing truth(outputs[output + 1], a, output + 1, chunk, buffer);
      blend(truth.values(), chunk.count, kept, average);
      std::copy_n(average, chunk.count, truth.values());
      truth.store();
      if (!op.has_copy[chunk.tensor]) return;
      truth.read_back(buffer);
      Output(outputs[output + 2], a, output + 2)(chunk.first, chunk.count, buffer);
    });
  }};
}

Launch finish(const Request& request) {
  return {[policy = request.attributes<Finish>().policy](const Arguments& a) { finish_step(*a.state, policy); }};
}

}  // namespace halftone::cpu
#endif
