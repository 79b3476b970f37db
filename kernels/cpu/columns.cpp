#include "kernels/cpu/columns.hpp"

#include <numeric>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/columns.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/load-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {
namespace {

constexpr hn::ScalableTag<double> f64;
constexpr hn::Rebind<float, decltype(f64)> f32;
constexpr std::int64_t lanes = hn::MaxLanes(f64);
using Doubles = hn::Vec<decltype(f64)>;

/// sums[k, j] += term k of column j of each row, for `vectors` side by side from column j on, each of n numbers: all
/// that it holds unless it is one alone. `term(i, j, n, terms)` gives the terms of the numbers at i, which lie in
/// columns from j on.
template <int kinds, int vectors, class Term>
HWY_INLINE void add_columns(std::int64_t first, std::int64_t rows, std::int64_t j, std::int64_t n, std::int64_t width,
                            double* sums, Term term) {
  Doubles sum[kinds][vectors];
  const auto place = [&](int k, int v) { return sums + k * width + j + v * lanes; };
#pragma GCC unroll 2
  for (int k = 0; k < kinds; ++k)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) sum[k][v] = load_first(f64, place(k, v), n);
  for (std::int64_t i = first + j; rows > 0; --rows, i += width)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      Doubles terms[kinds];
      term(i + v * lanes, j + v * lanes, n, terms);
#pragma GCC unroll 2
      for (int k = 0; k < kinds; ++k) sum[k][v] = hn::Add(sum[k][v], terms[k]);
    }
#pragma GCC unroll 2
  for (int k = 0; k < kinds; ++k)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v)
      if (n == lanes)
        hn::StoreU(sum[k][v], f64, place(k, v));
      else
        hn::BlendedStore(sum[k][v], hn::FirstN(f64, static_cast<std::size_t>(n)), f64, place(k, v));
}

/// sums [kinds, width] += the terms of `count` numbers, the last row perhaps shorter. Sums stay in registers for all
/// rows.
template <int kinds, class Term>
HWY_INLINE void add_terms(std::int64_t count, std::int64_t width, double* sums, Term term) {
  constexpr int vectors = 4;
  const auto add_rows = [&](std::int64_t first, std::int64_t rows, std::int64_t columns) HWY_ATTR {
    std::int64_t j = 0;
    for (; j + vectors * lanes <= columns; j += vectors * lanes)
      add_columns<kinds, vectors>(first, rows, j, lanes, width, sums, term);
    for (; j < columns; j += lanes)
      add_columns<kinds, 1>(first, rows, j, std::min(lanes, columns - j), width, sums, term);
  };
  const std::int64_t rest = count % width;
  add_rows(0, count / width, width);
  add_rows(count - rest, 1, rest);
}

void sum(const float* x, std::int64_t count, std::int64_t width, double* sums) {
  add_terms<1>(count, width, sums, [=](std::int64_t i, std::int64_t, std::int64_t n, Doubles(&terms)[1]) HWY_ATTR {
    terms[0] = hn::PromoteTo(f64, load_first(f32, x + i, n));
  });
}

void moments(const float* x, const float* shift, std::int64_t count, std::int64_t width, double* sums) {
  const auto widened = [](const float* from, std::int64_t n)
                           HWY_ATTR { return hn::PromoteTo(f64, load_first(f32, from, n)); };
  add_terms<2>(count, width, sums, [=](std::int64_t i, std::int64_t j, std::int64_t n, Doubles(&terms)[2]) HWY_ATTR {
    terms[0] = hn::Sub(widened(x + i, n), widened(shift + j, n));
    terms[1] = hn::Mul(terms[0], terms[0]);
  });
}

void gradient_sums(const float* d_y, const float* x, const float* mean, std::int64_t count, std::int64_t width,
                   double* sums) {
  add_terms<2>(count, width, sums, [=](std::int64_t i, std::int64_t j, std::int64_t n, Doubles(&terms)[2]) HWY_ATTR {
    const auto d = load_first(f32, d_y + i, n);
    terms[0] = hn::PromoteTo(f64, d);
    terms[1] = hn::PromoteTo(f64, hn::Mul(d, hn::Sub(load_first(f32, x + i, n), load_first(f32, mean + j, n))));
  });
}

void shift_moments(const float* x, const float* mean, const float* lost, std::int64_t count, std::int64_t width,
                   double* sums) {
  for (std::int64_t i = 0; i < count; i += width) {
    const std::int64_t n = std::min(width, count - i);
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) {
      const float centred = x[i + j] - mean[j] - lost[j];
      sums[j] += static_cast<double>(centred) * static_cast<double>(math::approximate_power_of_two(centred));
    }
  }
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
    : c(c), width(wide(rows, c)), elements(rows * c), chunk(std::max<std::int64_t>(1024 / width, 2) * width) {
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
