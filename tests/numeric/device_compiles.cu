// Instantiates everything in numeric/, and a step's decisions, in a kernel. Compiling it is the test.
#include "halftone/graph/step_state.hpp"
#include "halftone/numeric/loss_scale.hpp"
#include "halftone/numeric/philox.hpp"
#include "halftone/numeric/pointwise.hpp"
#include "halftone/numeric/rounding.hpp"
#include "halftone/numeric/schedule.hpp"
#include "halftone/numeric/storage.hpp"
#include "halftone/numeric/update_rules.hpp"

namespace halftone {

template <class Format>
__device__ float through(Format, float x, std::uint32_t random) {
  const Grid grid = Storage(Format::dtype, Rounding::stochastic).grid();
  return Format::decode(Format::encode(x)) + Format::decode(Format::encode(grid(x, to_uniform(random))));
}

template <class Function>
__device__ float activate(Function f, float x) {
  return f.value(x) * f.slope(x);
}

template <class Rule>
__device__ float update(Rule rule, std::int64_t step, float w, float g, float& slot0, float& slot1) {
  return rule.apply(rule.at(0.1f, step), w, g, slot0, slot1);
}

template <class... Controller>
__device__ void move(TypeList<Controller...>, RangeState& range) {
  (Controller{}.move(range), ...);
}

template <class... Format, class... Function, class... Rule>
__device__ float everything(TypeList<Format...>, TypeList<Function...>, TypeList<Rule...>, float x, float& slot0,
                            float& slot1) {
  const std::uint32_t random = bits(1, 2, 3, 4);
  const float sum = (through(Format{}, x, random) + ...) + (activate(Function{}, x) + ...) +
                    (update(Rule{}, 3, x, x, slot0, slot1) + ...);
  return sum + Grid::floating(5, 10)(x, uniform(1, 2, 3, 4)) + Grid::fixed(8, 8)(x, 0) + Grid::power_of_two()(x, 0) +
         Grid::binary()(x, 0);
}

__global__ void all_of_numeric(float* x, float* slots, LossScale loss_scale, Schedule schedule, ScaleState* state) {
  *state = next(loss_scale, *state, StepOutcome::overflow, true);
  *x = everything(Formats{}, Activations{}, UpdateRules{}, *x, slots[0], slots[1]) + schedule.at(7);
}

__global__ void stored(Storage from, Storage to, const std::byte* x, std::byte* y, float* numbers, std::int64_t count,
                       RangeState* range) {
  for (std::int64_t i = 0; i < count; ++i) numbers[i] = read_number(from, x, count, i, range->scale);
  write_numbers(to, y, count, 0, count, numbers, RandomKey{1, 2, 3}, range->next, &range->noticed);
  move(RangeControllers{}, *range);
}

__global__ void decisions_of_a_step(StepState* state, StepPolicy policy, GradientFindings found, float* factor) {
  begin_micro_batch(*state);
  judge_micro_batch(*state, *factor, found);
  decide(*state, policy);
  *factor = update_factor(*state, policy);
  finish_step(*state, policy);
}

}  // namespace halftone
