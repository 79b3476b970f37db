#include "halftone/ops/step.hpp"

#include <cmath>
#include <cstring>

#include "kernels/cpu/backend.hpp"
#include "kernels/cpu/parallel.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/step.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

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
  double sums[16] = {};  // squares of large f32 numbers fit no f32
  std::int32_t zeros = 0, bad = 0;
  const std::int64_t whole = count / 16 * 16;
  for (std::int64_t i = 0; i < whole; i += 16)
    for (int j = 0; j < 16; ++j)
      sums[j] += static_cast<double>(g[i + j] * factor) * static_cast<double>(g[i + j] * factor);
  for (std::int64_t i = whole; i < count; ++i)
    sums[i - whole] += static_cast<double>(g[i] * factor) * static_cast<double>(g[i] * factor);
  for (std::int64_t i = 0; i < count; ++i) {
    zeros += g[i] == 0;
    bad += (bit_cast<std::uint32_t>(g[i]) & 0x7f800000u) == 0x7f800000u;
  }
  double total = 0;
  for (double sum : sums) total += sum;
  found = {total, zeros, bad, -1};
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
  Segment segment;
  std::int64_t first, count;
  std::size_t weight() const {
    return segment.weight_offset + static_cast<std::size_t>(first) * size_of(segment.weight_dtype);
  }
  std::size_t gradient() const {
    return segment.gradient_offset + static_cast<std::size_t>(first) * size_of(segment.gradient_dtype);
  }
  std::int64_t element() const { return segment.offset + first; }
};

std::vector<Chunk> chunks_of(const std::vector<Segment>& segments) {
  std::vector<Chunk> chunks;
  for (const Segment& segment : segments)
    for (std::int64_t first = 0; first < segment.count; first += step_chunk)
      chunks.push_back({segment, first, std::min(step_chunk, segment.count - first)});
  return chunks;
}

/// The chunk's gradients as f32: in place where that is their format, else in `buffer`.
const float* read_gradient(const Chunk& chunk, const std::byte* gradients, Isa isa, float* buffer) {
  if (chunk.segment.gradient_dtype == DType::f32) return reinterpret_cast<const float*>(gradients + chunk.gradient());
  decoder(isa, chunk.segment.gradient_dtype)(gradients + chunk.gradient(), buffer, chunk.count);
  return buffer;
}

}  // namespace

Offer seed_gradient(const Request& request) {
  if (request.outputs[0].dtype != DType::f32) return Declined{"the seed is f32"};
  return Launch{[](const Arguments& a) {
    StepState& state = *a.state;
    state.used_scale = state.scale.scale;
    if (state.micro_batch == 0) state.good_micro_batches = 0, state.unchanged_weights = 0, state.loss_sum = 0;
    *a.out<float>(0) = state.seed_gradient();
  }};
}

Offer check_gradients(const Request& request) {
  const auto& op = request.attributes<CheckGradients>();
  const auto chunks = chunks_of(op.segments);
  const auto [threads, isa] = machine_of(request);
  const auto look = HALFTONE_PER_ISA(isa, inspect);
  return Launch{[=, isa = isa, threads = threads](const Arguments& a) {
                  auto* found = static_cast<Found*>(a.workspace);
                  const float factor = 1 / a.state->seed_gradient();
                  parallel_for(threads, static_cast<std::int64_t>(chunks.size()), [&](std::int64_t t) {
                    float buffer[step_chunk];
                    const Chunk& chunk = chunks[static_cast<std::size_t>(t)];
                    look(read_gradient(chunk, a.in<std::byte>(0), isa, buffer), chunk.count, factor, found[t]);
                  });
                  StepState& state = *a.state;
                  state.loss = *a.in<float>(1);
                  state.sum_of_squares = 0;
                  state.zero_gradients = state.nonfinite = 0;
                  state.first_bad_element = state.first_bad_parameter = -1;
                  for (std::size_t i = 0; i < chunks.size(); ++i) {
                    state.sum_of_squares += found[i].sum_of_squares;
                    state.zero_gradients += found[i].zeros;
                    state.nonfinite += found[i].bad;
                    if (found[i].bad > 0 && state.first_bad_parameter < 0) {
                      state.first_bad_parameter = chunks[i].segment.parameter;
                      state.first_bad_element = chunks[i].first + found[i].first_bad;
                    }
                  }
                  state.good = state.nonfinite == 0 && std::isfinite(state.loss);
                },
                chunks.size() * sizeof(Found)};
}

Offer accumulate_gradients(const Request& request) {
  const auto& op = request.attributes<AccumulateGradients>();
  const auto chunks = chunks_of(op.segments);
  const auto [threads, isa] = machine_of(request);
  const auto look = HALFTONE_PER_ISA(isa, inspect);
  const auto add_scaled = HALFTONE_PER_ISA(isa, scale_into);
  return Launch{[=, isa = isa, threads = threads](const Arguments& a) {
                  auto* found = static_cast<Found*>(a.workspace);
                  StepState& state = *a.state;
                  const float factor = 1 / state.seed_gradient();
                  parallel_for(threads, static_cast<std::int64_t>(chunks.size()), [&](std::int64_t t) {
                    float buffer[step_chunk];
                    const Chunk& chunk = chunks[static_cast<std::size_t>(t)];
                    float* sum = a.out<float>(0) + chunk.element();
                    if (state.good)
                      add_scaled(read_gradient(chunk, a.in<std::byte>(0), isa, buffer), chunk.count, factor,
                                 state.good_micro_batches == 0, sum);
                    look(sum, chunk.count, 1, found[t]);
                  });
                  state.sum_of_squares = 0;
                  const bool any = state.good || state.good_micro_batches > 0;
                  for (std::size_t i = 0; any && i < chunks.size(); ++i)
                    state.sum_of_squares += found[i].sum_of_squares;
                },
                chunks.size() * sizeof(Found)};
}

Offer advance(const Request& request) {
  const auto& op = request.attributes<Advance>();
  return Launch{[op = op](const Arguments& a) {
    StepState& state = *a.state;
    state.good_micro_batches += state.good;
    if (state.good) state.loss_sum += state.loss;
    const bool last = ++state.micro_batch == op.accumulate;
    state.commit = last && state.good_micro_batches > 0;
    const float divisor = op.accumulate > 1 ? static_cast<float>(std::max(state.good_micro_batches, 1)) : 1.0f;
    state.gradient_norm = static_cast<float>(std::sqrt(state.sum_of_squares)) / divisor;
    state.clip = op.clip_norm > 0 && state.gradient_norm > op.clip_norm ? op.clip_norm / state.gradient_norm : 1.0f;
    state.learning_rate = op.schedule.at(state.steps);
    if (!state.good)
      state.scale = next(op.loss_scale, state.scale,
                         std::isfinite(state.loss) ? StepOutcome::overflow : StepOutcome::nan_in_forward);
    else if (state.good_micro_batches == op.accumulate)
      state.scale = next(op.loss_scale, state.scale, StepOutcome::good);
    if (state.commit) state.loss = static_cast<float>(state.loss_sum / state.good_micro_batches);
  }};
}

Offer update(const Request& request) {
  const auto& op = request.attributes<Update>();
  const auto chunks = chunks_of(op.segments);
  const auto [threads, isa] = machine_of(request);
  const float rate = op.learning_rate;
  const bool masters = op.masters, accumulated = op.accumulate > 1;
  return std::visit(
      [&, isa = isa, threads = threads](const auto& rule) -> Offer {
        using Rule = std::decay_t<decltype(rule)>;
        const auto apply = HALFTONE_PER_ISA(isa, Apply<Rule>::function);
        const auto run = [=](const Arguments& a) {
          StepState& state = *a.state;
          if (!state.commit) return;
          const auto coefficients = rule.at(state.learning_rate * rate, state.steps + 1);
          const float factor =
              state.clip / (accumulated ? static_cast<float>(state.good_micro_batches) : state.seed_gradient());
          auto* unchanged = static_cast<std::int64_t*>(a.workspace);
          parallel_for(threads, static_cast<std::int64_t>(chunks.size()), [&](std::int64_t t) {
            float buffer[step_chunk], unused[step_chunk];
            const Chunk& chunk = chunks[static_cast<std::size_t>(t)];
            const float* g =
                accumulated ? a.in<float>(0) + chunk.element() : read_gradient(chunk, a.in<std::byte>(0), isa, buffer);
            auto* weights = a.out<std::byte>(1) + chunk.weight();
            float* w = masters ? a.out<float>(0) + chunk.element() : reinterpret_cast<float*>(weights);
            if (rule.slots() < 2) std::memset(unused, 0, sizeof unused);
            float* slot0 = rule.slots() > 0 ? a.out<float>(2) + chunk.element() : unused;
            float* slot1 = rule.slots() > 1 ? a.out<float>(3) + chunk.element() : unused;
            unchanged[t] = apply(rule, coefficients, g, factor, chunk.count, w, slot0, slot1);
            if (masters) encoder(isa, chunk.segment.weight_dtype)(w, weights, chunk.count);
          });
          for (std::size_t i = 0; i < chunks.size(); ++i) state.unchanged_weights += unchanged[i];
        };
        return Launch{run, chunks.size() * sizeof(std::int64_t)};
      },
      op.rule);
}

Offer average_weights(const Request& request) {
  const auto& op = request.attributes<AverageWeights>();
  const auto chunks = chunks_of(op.segments);
  const auto [threads, isa] = machine_of(request);
  const auto mix = HALFTONE_PER_ISA(isa, blend);
  return Launch{[=, threads = threads, decay = op.decay, masters = op.masters](const Arguments& a) {
    if (!a.state->commit) return;
    parallel_for(threads, static_cast<std::int64_t>(chunks.size()), [&](std::int64_t t) {
      const Chunk& chunk = chunks[static_cast<std::size_t>(t)];
      const auto* w = masters ? a.in<float>(0) + chunk.element()
                              : reinterpret_cast<const float*>(a.in<std::byte>(0) + chunk.weight());
      mix(w, chunk.count, decay, a.out<float>(0) + chunk.element());
    });
  }};
}

Offer finish(const Request& request) {
  const auto& op = request.attributes<Finish>();
  return Launch{[op = op](const Arguments& a) {
    StepState& state = *a.state;
    if (state.micro_batch < op.accumulate) return;
    state.micro_batch = 0;
    ++state.attempts;
    if (!state.commit) return;
    ++state.steps;
    state.zero_gradient_shares += static_cast<double>(state.zero_gradients) / static_cast<double>(op.weights);
    state.unchanged_weight_shares += static_cast<double>(state.unchanged_weights) / static_cast<double>(op.weights);
  }};
}

}  // namespace halftone::cpu
#endif
