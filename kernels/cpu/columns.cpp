#include "kernels/cpu/columns.hpp"

#include <numeric>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/columns.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {
namespace {

/// sums[k * width + j] += term k (i, j) for i = j, j + width, ... below count. Memory is read in its order.
template <class... Terms>
HWY_INLINE void add_terms(std::int64_t count, std::int64_t width, double* sums, Terms... terms) {
  for (std::int64_t i = 0; i < count; i += width) {
    const std::int64_t n = std::min(width, count - i);
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) {
      double* to = sums + j;
      ((*to += terms(i + j, j), to += width), ...);
    }
  }
}

void sum(const float* x, std::int64_t count, std::int64_t width, double* sums) {
  add_terms(count, width, sums, [x](std::int64_t i, std::int64_t) HWY_ATTR { return static_cast<double>(x[i]); });
}

void moments(const float* x, const float* shift, std::int64_t count, std::int64_t width, double* sums) {
  const auto shifted = [=](std::int64_t i, std::int64_t j)
                           HWY_ATTR { return static_cast<double>(x[i]) - static_cast<double>(shift[j]); };
  add_terms(count, width, sums, shifted,
            [=](std::int64_t i, std::int64_t j) HWY_ATTR { return shifted(i, j) * shifted(i, j); });
}

void shift_moments(const float* x, const float* mean, const float* lost, std::int64_t count, std::int64_t width,
                   double* sums) {
  add_terms(count, width, sums, [=](std::int64_t i, std::int64_t j) HWY_ATTR {
    const float centred = x[i] - mean[j] - lost[j];
    return static_cast<double>(centred) * static_cast<double>(math::approximate_power_of_two(centred));
  });
}

void gradient_sums(const float* d_y, const float* x, const float* mean, std::int64_t count, std::int64_t width,
                   double* sums) {
  add_terms(
      count, width, sums, [=](std::int64_t i, std::int64_t) HWY_ATTR { return static_cast<double>(d_y[i]); },
      [=](std::int64_t i, std::int64_t j) HWY_ATTR { return static_cast<double>(d_y[i] * (x[i] - mean[j])); });
}

void d_input(const float* d_y, const float* x, const float* mean, const float* a, const float* b, const float* c,
             std::int64_t count, std::int64_t width, float* d_x) {
  for (std::int64_t i = 0; i < count; i += width) {
    const std::int64_t n = std::min(width, count - i);
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) d_x[i + j] = a[j] * d_y[i + j] + (b[j] * (x[i + j] - mean[j]) + c[j]);
  }
}

constexpr ColumnLoops loops = {sum, moments, shift_moments, gradient_sums, d_input};

struct Same {
  HALFTONE_HD float value(float x) const { return x; }
};

template <class F>
void normalize(const float* x, const float* mean, const float* factor, const float* offset, std::int64_t count,
               std::int64_t width, float* y, const Activation& activation) {
  F f{};
  if constexpr (!std::is_same_v<F, Same>) f = std::get<F>(activation);
  for (std::int64_t i = 0; i < count; i += width) {
    const std::int64_t n = std::min(width, count - i);
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) y[i + j] = f.value(factor[j] * (x[i + j] - mean[j]) + offset[j]);
  }
}

Normalize normalizer(const std::optional<Activation>& activation) {
  if (!activation) return normalize<Same>;
  return std::visit([](auto f) -> Normalize { return normalize<decltype(f)>; }, *activation);
}

}  // namespace
}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {
namespace {

std::int64_t wide(std::int64_t rows, std::int64_t c) {
  std::int64_t count = 16 / std::gcd<std::int64_t>(c, 16);  // rows that fill whole vectors
  while (count * c < 256) count *= 2;
  return count > rows || count * c > 1024 ? c : count * c;
}

}  // namespace

Columns::Columns(std::int64_t rows, std::int64_t c)
    : c(c), width(wide(rows, c)), elements(rows * c), chunk(std::max<std::int64_t>(1024 / width, 1) * width) {
  constexpr std::int64_t smallest_task = 1 << 15, most_tasks = 64;
  const std::int64_t share = std::max(smallest_task, (elements + most_tasks - 1) / most_tasks);
  task = (share + chunk - 1) / chunk * chunk;
}

void Columns::fold(const double* from, double* to) const {
  for (std::int64_t i = 0; i < width; i += c)
    for (std::int64_t j = 0; j < c; ++j) to[j] += from[i + j];
}

const ColumnLoops& column_loops(Isa isa) { return HALFTONE_PER_ISA(isa, loops); }
Normalize normalizer(Isa isa, const std::optional<Activation>& activation) {
  return HALFTONE_PER_ISA(isa, normalizer(activation));
}

}  // namespace halftone::cpu
#endif
