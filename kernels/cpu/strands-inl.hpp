// Included once per instruction set, inside HWY_NAMESPACE files only; hence no #pragma once.
#if defined(HALFTONE_STRANDS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef HALFTONE_STRANDS_INL
#undef HALFTONE_STRANDS_INL
#else
#define HALFTONE_STRANDS_INL
#endif

#include <hwy/highway.h>

#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {

/// The sum of term(i) for i < n, in 16 strands so that it fills vectors, in double: squares of large f32 numbers fit no
/// f32, and no mean is too large.
template <class Term>
HWY_INLINE double sum_of(std::int64_t n, Term term) {
  constexpr int strands = 16;
  double sums[strands] = {};
  std::int64_t i = 0;
  for (; i + strands <= n; i += strands)
    for (int j = 0; j < strands; ++j) sums[j] += term(i + j);
  for (int j = 0; i + j < n; ++j) sums[j] += term(i + j);
  for (int half = strands / 2; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) sums[j] += sums[j + half];
  return sums[0];
}

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
