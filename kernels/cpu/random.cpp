#include "halftone/numeric/philox.hpp"
#include "halftone/ops/custom.hpp"
#include "halftone/ops/pointwise.hpp"
#include "kernels/cpu/backend.hpp"
#include "kernels/cpu/elementwise.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/random.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

// Operations that draw a random number for each element, keyed by (seed, step, stream, element).
#ifndef HALFTONE_CPU_RANDOM_ONCE
#define HALFTONE_CPU_RANDOM_ONCE
namespace halftone::cpu {

/// The random numbers of one launch.
struct Draw {
  std::uint64_t seed, step;
  std::uint32_t stream;
};

using QuantizeLoop = void (*)(const Grid&, const Draw&, const Chunk<1>&);

}  // namespace halftone::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {

/// The bits of elements [first, first + chunk), `first` a multiple of four.
void draw(Draw key, std::int64_t first, std::uint32_t* HWY_RESTRICT bits) {
  constexpr std::int64_t blocks = chunk / 4;
  alignas(64) std::uint32_t words[4][blocks];
  const auto block = static_cast<std::uint32_t>(first / 4);
#pragma omp simd
  for (std::uint32_t i = 0; i < blocks; ++i) {
    const auto four = block_bits(key.seed, key.step, key.stream, block + i);
    for (std::size_t j = 0; j < 4; ++j) words[j][i] = four[j];
  }
  for (std::int64_t i = 0; i < blocks; ++i)
    for (std::int64_t j = 0; j < 4; ++j) bits[4 * i + j] = words[j][i];
}

void drop(float rate, const Draw& key, const Chunk<1>& part) {
  alignas(64) std::uint32_t bits[chunk];
  draw(key, part.first, bits);
  const float *x = part.x[0], factor = 1.0f / (1.0f - rate);
  float* y = part.y;
#pragma omp simd
  for (std::int64_t i = 0; i < part.count; ++i) {
    y[i] = math::select(to_uniform(bits[i]) >= rate, x[i] * factor, 0.0f);
  }
}

template <Grid::Kind kind, Rounding rounding>
void quantize_chunk(const Grid& grid, const Draw& key, const Chunk<1>& part) {
  alignas(64) std::uint32_t bits[chunk];
  if constexpr (rounding == Rounding::stochastic) draw(key, part.first, bits);
  Grid fixed = grid;  // what is known here leaves no branch in the loop
  fixed.kind = kind;
  fixed.rounding = rounding;
  const float* x = part.x[0];
  float* y = part.y;
#pragma omp simd
  for (std::int64_t i = 0; i < part.count; ++i) {
    y[i] = fixed(x[i], rounding == Rounding::stochastic ? to_uniform(bits[i]) : 0.0f);
  }
}

template <Grid::Kind kind>
QuantizeLoop quantize_loop_of(Rounding rounding) {
  switch (rounding) {
    case Rounding::stochastic:
      return quantize_chunk<kind, Rounding::stochastic>;
    case Rounding::toward_zero:
      return quantize_chunk<kind, Rounding::toward_zero>;
    case Rounding::nearest:
      break;
  }
  return quantize_chunk<kind, Rounding::nearest>;
}

QuantizeLoop quantize_loop(const Grid& grid) {
  switch (grid.kind) {
    case Grid::Kind::fixed:
      return quantize_loop_of<Grid::Kind::fixed>(grid.rounding);
    case Grid::Kind::binary:
      return quantize_loop_of<Grid::Kind::binary>(grid.rounding);
    case Grid::Kind::floating:
      break;
  }
  return quantize_loop_of<Grid::Kind::floating>(grid.rounding);
}

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {
namespace {

Draw key_of(const StepState& state, std::uint32_t stream) { return {state.seed, state.random_step(), stream}; }

}  // namespace

Offer dropout(const Request& request) {
  const auto& attributes = request.attributes<Dropout>();
  const auto loop = HALFTONE_PER_ISA(machine_of(request).isa, drop);
  return elementwise<1>(request, [loop, rate = attributes.rate, stream = attributes.stream](const Chunk<1>& part) {
    loop(rate, key_of(*part.state, stream), part);
  });
}

Offer quantize(const Request& request) {
  const auto& attributes = request.attributes<Quantize>();
  const auto loop = HALFTONE_PER_ISA(machine_of(request).isa, quantize_loop(attributes.grid));
  return elementwise<1>(request, [loop, grid = attributes.grid, stream = attributes.stream](const Chunk<1>& part) {
    loop(grid, key_of(*part.state, stream), part);
  });
}

}  // namespace halftone::cpu
#endif
