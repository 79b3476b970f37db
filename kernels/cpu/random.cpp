#include "halftone/ops/pointwise.hpp"
#include "halftone/ops/quantize.hpp"
#include "kernels/cpu/elementwise.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/random.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

// Operations that draw a random number for each element, keyed by (seed, step, stream, element).
HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {
namespace {

void drop(const float* x, const std::uint32_t* bits, float rate, std::int64_t count, float* y) {
  const float factor = 1.0f / (1.0f - rate);
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) y[i] = math::select(to_uniform(bits[i]) >= rate, x[i] * factor, 0.0f);
}

}  // namespace
}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {

Launch dropout(const Request& request) {
  const auto& op = request.attributes<Dropout>();
  const Isa isa = machine_of(request).isa;
  const auto loop = HALFTONE_PER_ISA(isa, drop);
  const Draw draw = drawer(isa);
  return elementwise<1>(request, [loop, draw, rate = op.rate, stream = op.stream](const Chunk<1>& part) {
    alignas(64) std::uint32_t bits[chunk];
    draw(part.state->key(stream), part.first, part.count, bits);
    loop(part.x[0], bits, rate, part.count, part.y);
  });
}

Launch quantize(const Request& request) {
  const auto& op = request.attributes<Quantize>();
  const Round round = rounder(machine_of(request).isa, op.grid);
  return elementwise<1>(request, [round, grid = op.grid, stream = op.stream](const Chunk<1>& part) {
    round(grid, part.state->key(stream), part.first, part.count, part.x[0], part.y);
  });
}

}  // namespace halftone::cpu
#endif
