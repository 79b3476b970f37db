// Included once per instruction set, inside HWY_NAMESPACE files only; hence no #pragma once.
#if defined(HALFTONE_WINOGRAD_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef HALFTONE_WINOGRAD_INL
#undef HALFTONE_WINOGRAD_INL
#else
#define HALFTONE_WINOGRAD_INL
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/gather.hpp"
#include "kernels/cpu/microkernel-inl.hpp"
#include "kernels/cpu/storage.hpp"

// The transforms of F(4, 3) along one axis at the points 0, +-p, +-q and infinity: result = A' [(G filter) x (B'
// input)] (the construction: Blahut 2010, section 5). All constants of A and B are exact in f32.
HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {

using Vector = hn::Vec<Vectors>;

constexpr float winograd_p = 0.625f, winograd_q = 1.5f;

HWY_INLINE Vector constant(float x) { return hn::Set(Vectors(), x); }

/// B': out [6] from the input's in [6].
HWY_INLINE void transform_input(const Vector* in, Vector* out) {
  constexpr float p = winograd_p, q = winograd_q;
  const Vector pp = constant(p * p), qq = constant(q * q), both = constant(p * p * q * q),
               sum = constant(p * p + q * q);
  out[0] = hn::MulAdd(both, in[0], hn::NegMulAdd(sum, in[2], in[4]));
  out[5] = hn::MulAdd(both, in[1], hn::NegMulAdd(sum, in[3], in[5]));
  const Vector even = hn::NegMulAdd(qq, in[2], in[4]), odd = hn::NegMulAdd(qq, in[1], in[3]);
  out[1] = hn::MulAdd(constant(p), odd, even);
  out[2] = hn::NegMulAdd(constant(p), odd, even);
  const Vector even2 = hn::NegMulAdd(pp, in[2], in[4]), odd2 = hn::NegMulAdd(pp, in[1], in[3]);
  out[3] = hn::MulAdd(constant(q), odd2, even2);
  out[4] = hn::NegMulAdd(constant(q), odd2, even2);
}

/// G: out [6] from the filter's in [3].
HWY_INLINE void transform_filter(const Vector* in, Vector* out) {
  constexpr double p = winograd_p, q = winograd_q;
  constexpr double at_p = 1 / (2 * p * p * (p * p - q * q)), at_q = 1 / (2 * q * q * (q * q - p * p));
  const auto pair = [&](double scale, double x, Vector& plus, Vector& minus) HWY_ATTR {
    const Vector even = hn::MulAdd(constant(static_cast<float>(scale)), in[0],
                                   hn::Mul(constant(static_cast<float>(scale * x * x)), in[2]));
    const Vector odd = hn::Mul(constant(static_cast<float>(scale * x)), in[1]);
    plus = hn::Add(even, odd);
    minus = hn::Sub(even, odd);
  };
  out[0] = hn::Mul(constant(static_cast<float>(1 / (p * p * q * q))), in[0]);
  pair(at_p, p, out[1], out[2]);
  pair(at_q, q, out[3], out[4]);
  out[5] = in[2];
}

/// A': out [4] from the products' in [6].
HWY_INLINE void transform_output(const Vector* in, Vector* out) {
  constexpr float p = winograd_p, q = winograd_q;
  const Vector even = hn::Add(in[1], in[2]), odd = hn::Sub(in[1], in[2]);
  const Vector even2 = hn::Add(in[3], in[4]), odd2 = hn::Sub(in[3], in[4]);
  out[0] = hn::Add(hn::Add(in[0], even), even2);
  out[1] = hn::MulAdd(constant(q), odd2, hn::Mul(constant(p), odd));
  out[2] = hn::MulAdd(constant(q * q), even2, hn::Mul(constant(p * p), even));
  out[3] = hn::MulAdd(constant(q * q * q), odd2, hn::MulAdd(constant(p * p * p), odd, in[5]));
}

// The numbers of a code as vectors: the first `count`, then zeros.

/// From memory that may end behind them.
template <class D>
HWY_INLINE hn::Vec<D> load_first(D d, const hn::TFromD<D>* from, std::int64_t count) {
  if (count >= lanes) return hn::LoadU(d, from);
  if (HWY_TARGET == HWY_AVX3 || (HWY_TARGET == HWY_AVX2 && sizeof(hn::TFromD<D>) == 4))  // others read it all
    return hn::MaskedLoad(hn::FirstN(d, static_cast<std::size_t>(count)), d, from);
  HWY_ALIGN hn::TFromD<D> some[lanes] = {};
  std::copy_n(from, count, some);
  return hn::Load(d, some);
}

constexpr hn::Rebind<std::uint16_t, Vectors> halves;

struct AsF32 {
  using Code = float;
  static HWY_INLINE Vector load(const Code* from, std::int64_t count) { return load_first(Vectors(), from, count); }
};
struct AsF16 {
  using Code = std::uint16_t;
  static HWY_INLINE Vector load(const Code* from, std::int64_t count) {
    const hn::Rebind<hwy::float16_t, Vectors> d;
    return hn::PromoteTo(Vectors(), hn::BitCast(d, load_first(halves, from, count)));
  }
};
struct AsBf16 {
  using Code = std::uint16_t;
  static HWY_INLINE Vector load(const Code* from, std::int64_t count) {
    const hn::RebindToUnsigned<Vectors> words;
    return hn::BitCast(Vectors(), hn::ShiftLeft<16>(hn::PromoteTo(words, load_first(halves, from, count))));
  }
};

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
