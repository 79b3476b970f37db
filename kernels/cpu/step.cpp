#include "halftone/ops/step.hpp"

#include <cmath>
#include <cstring>

#include "kernels/cpu/backend.hpp"
#include "kernels/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/step.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/strands-inl.hpp"

#ifndef HALFTONE_CPU_STEP_ONCE
#define HALFTONE_CPU_STEP_ONCE
namespace halftone::cpu {
inline constexpr std::int64_t step_chunk = 2048;

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

template <class Rule>
std::int64_t apply_rule(const Rule& rule, const typename Rule::Coefficients& c, const float* g, float factor,
                        std::int64_t count, float* w, float* slot0, float* slot1) {
  std::int32_t unchanged = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const float before = w[i];
    w[i] = rule.apply(c, before, g[i] * factor, slot0[i], slot1[i]);
    unchanged += w[i] == before;
  }
  return unchanged;
}

void blend(const float* w, std::int64_t count, float decay, float* average) {
  for (std::int64_t i = 0; i < count; ++i) average[i] = decay * average[i] + (1 - decay) * w[i];
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

/// A run of at most step_chunk elements of one segment.
struct Chunk {
  const float* gradient(const Arguments& a, float* buffer) const {
    return read(a.in<std::byte>(0) + segment.gradient_offset, first, count, buffer);
  }
  std::int64_t element() const { return segment.offset + first; }

  Segment segment;
  std::int64_t first, count;
  Reader read;   ///< gradients
  Writer write;  ///< weights
};

std::vector<Chunk> chunks_of(const std::vector<Segment>& segments, const Machine& machine) {
  std::vector<Chunk> chunks;
  for (const Segment& segment : segments) {
    const Reader read(machine, {{}, segment.gradient_dtype});
    const Writer write(machine, {{}, segment.weight_dtype});
    for (std::int64_t first = 0; first < segment.count; first += step_chunk)
      chunks.push_back({segment, first, std::min(step_chunk, segment.count - first), read, write});
  }
  return chunks;
}

}  // namespace

Offer seed_gradient(const Request& request) {
  if (request.outputs[0].dtype != DType::f32) return Declined{"the seed is f32"};
  return Launch{[](const Arguments& a) {
    begin_micro_batch(*a.state);
    *a.out<float>(0) = a.state->gradient_scale();
  }};
}

Offer check_gradients(const Request& request) {
  const auto& op = request.attributes<CheckGradients>();
  const auto machine = machine_of(request);
  const auto chunks = chunks_of(op.segments, machine);
  const auto [threads, isa] = machine;
  const auto look = HALFTONE_PER_ISA(isa, inspect);
  const Reader read_loss(machine, request.inputs[1]);
  return Launch{[=, threads = threads](const Arguments& a) {
                  auto* found = static_cast<Found*>(a.workspace);
                  const float factor = 1 / a.state->gradient_scale();
                  parallel_for(threads, static_cast<std::int64_t>(chunks.size()), [&](std::int64_t t) {
                    float buffer[step_chunk];
                    const Chunk& chunk = chunks[static_cast<std::size_t>(t)];
                    look(chunk.gradient(a, buffer), chunk.count, factor, found[t]);
                  });
                  GradientFindings all;
                  for (std::size_t i = 0; i < chunks.size(); ++i) {
                    all.sum_of_squares += found[i].sum_of_squares;
                    all.zeros += found[i].zeros;
                    all.nonfinite += found[i].bad;
                    if (found[i].bad > 0 && all.first_bad_parameter < 0) {
                      all.first_bad_parameter = chunks[i].segment.parameter;
                      all.first_bad_element = chunks[i].first + found[i].first_bad;
                    }
                  }
                  float loss = 0;
                  judge_micro_batch(*a.state, *read_loss(a.inputs[1], 0, 1, &loss), all);
                },
                chunks.size() * sizeof(Found)};
}

Offer accumulate_gradients(const Request& request) {
  const auto& op = request.attributes<AccumulateGradients>();
  const auto machine = machine_of(request);
  const auto chunks = chunks_of(op.segments, machine);
  const auto [threads, isa] = machine;
  const auto look = HALFTONE_PER_ISA(isa, inspect);
  const auto add_scaled = HALFTONE_PER_ISA(isa, scale_into);
  return Launch{[=, threads = threads](const Arguments& a) {
                  auto* found = static_cast<Found*>(a.workspace);
                  StepState& state = *a.state;
                  const float factor = 1 / state.gradient_scale();
                  parallel_for(threads, static_cast<std::int64_t>(chunks.size()), [&](std::int64_t t) {
                    float buffer[step_chunk];
                    const Chunk& chunk = chunks[static_cast<std::size_t>(t)];
                    float* sum = a.out<float>(0) + chunk.element();
                    if (state.good)
                      add_scaled(chunk.gradient(a, buffer), chunk.count, factor, state.good_micro_batches == 1, sum);
                    look(sum, chunk.count, 1, found[t]);
                  });
                  state.sum_of_squares = 0;
                  for (std::size_t i = 0; state.good_micro_batches > 0 && i < chunks.size(); ++i)
                    state.sum_of_squares += found[i].sum_of_squares;
                },
                chunks.size() * sizeof(Found)};
}

Offer advance(const Request& request) {
  return Launch{[policy = request.attributes<Advance>().policy](const Arguments& a) { decide(*a.state, policy); }};
}

Offer update(const Request& request) {
  const auto& op = request.attributes<Update>();
  const auto machine = machine_of(request);
  const auto chunks = chunks_of(op.segments, machine);
  const auto [threads, isa] = machine;
  const float rate = op.learning_rate;
  const bool masters = op.masters, accumulated = op.policy.accumulate > 1;
  return std::visit(
      [&, isa = isa, threads = threads](const auto& rule) -> Offer {
        using Rule = std::decay_t<decltype(rule)>;
        const auto apply = HALFTONE_PER_ISA(isa, Apply<Rule>::function);
        const auto run = [=, policy = op.policy](const Arguments& a) {
          StepState& state = *a.state;
          if (!state.commit) return;
          const auto coefficients = rule.at(state.learning_rate * rate, state.steps + 1);
          const float factor = update_factor(state, policy);
          auto* unchanged = static_cast<std::int64_t*>(a.workspace);
          parallel_for(threads, static_cast<std::int64_t>(chunks.size()), [&](std::int64_t t) {
            float buffer[step_chunk], unused[step_chunk];
            const Chunk& chunk = chunks[static_cast<std::size_t>(t)];
            const float* g = accumulated ? a.in<float>(0) + chunk.element() : chunk.gradient(a, buffer);
            std::byte* weights = a.out<std::byte>(1) + chunk.segment.weight_offset;
            float* w = masters ? a.out<float>(0) + chunk.element() : reinterpret_cast<float*>(weights) + chunk.first;
            if (rule.slots() < 2) std::memset(unused, 0, sizeof unused);
            float* slot0 = rule.slots() > 0 ? a.out<float>(2) + chunk.element() : unused;
            float* slot1 = rule.slots() > 1 ? a.out<float>(3) + chunk.element() : unused;
            unchanged[t] = apply(rule, coefficients, g, factor, chunk.count, w, slot0, slot1);
            if (masters) chunk.write(weights, chunk.first, chunk.count, w);
          });
          for (std::size_t i = 0; i < chunks.size(); ++i) state.unchanged_weights += unchanged[i];
        };
        return Launch{run, chunks.size() * sizeof(std::int64_t)};
      },
      op.rule);
}

Offer average_weights(const Request& request) {
  const auto& op = request.attributes<AverageWeights>();
  const auto machine = machine_of(request);
  const auto chunks = chunks_of(op.segments, machine);
  const auto [threads, isa] = machine;
  const auto mix = HALFTONE_PER_ISA(isa, blend);
  return Launch{[=, threads = threads, decay = op.decay, masters = op.masters](const Arguments& a) {
    if (!a.state->commit) return;
    parallel_for(threads, static_cast<std::int64_t>(chunks.size()), [&](std::int64_t t) {
      const Chunk& chunk = chunks[static_cast<std::size_t>(t)];
      const auto* w =
          masters ? a.in<float>(0) + chunk.element()
                  : reinterpret_cast<const float*>(a.in<std::byte>(0) + chunk.segment.weight_offset) + chunk.first;
      mix(w, chunk.count, decay, a.out<float>(0) + chunk.element());
    });
  }};
}

Offer finish(const Request& request) {
  return Launch{[policy = request.attributes<Finish>().policy](const Arguments& a) { finish_step(*a.state, policy); }};
}

}  // namespace halftone::cpu
#endif
