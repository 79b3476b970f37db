#include "kernels/cpu/peak.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <numeric>
#include <vector>

#include "kernels/cpu/parallel.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/peak.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int chains = 12;

/// Runs `steps` rounds of `chains` multiply-adds and returns how many operations that were; `value` keeps them alive.
double multiply_adds(std::int64_t steps, float* value) {
  const hn::ScalableTag<float> v;
  hn::Vec<decltype(v)> sum[chains];
  const auto factor = hn::Set(v, *value);
#pragma GCC unroll 16
  for (int i = 0; i < chains; ++i) sum[i] = hn::Set(v, static_cast<float>(i));
  for (std::int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 16
    for (int i = 0; i < chains; ++i) sum[i] = hn::MulAdd(sum[i], factor, factor);
  }
  auto all = sum[0];
  for (int i = 1; i < chains; ++i) all = hn::Add(all, sum[i]);
  *value = hn::GetLane(all);
  return 2.0 * chains * static_cast<double>(steps) * static_cast<double>(hn::Lanes(v));
}

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {

double multiply_add_peak(Isa isa, int threads) {
  const auto work = HALFTONE_PER_ISA(isa, multiply_adds);
  std::vector<double> operations(static_cast<std::size_t>(threads));
  double best = 0;
  for (int i = 0; i < 20; ++i) {
    const auto start = std::chrono::steady_clock::now();
    parallel_for(threads, threads, [&](std::int64_t thread) {
      volatile float half = 0.5f;
      float value = half;
      operations[static_cast<std::size_t>(thread)] = work(1000000, &value);
      half = value;
    });
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    best = std::max(best, std::accumulate(operations.begin(), operations.end(), 0.0) / taken.count());
  }
  return best;
}

}  // namespace halftone::cpu
#endif
