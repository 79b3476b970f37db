// Included once per instruction set, inside HWY_NAMESPACE files only; hence no #pragma once.
#if defined(HALFTONE_CODES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef HALFTONE_CODES_INL
#undef HALFTONE_CODES_INL
#else
#define HALFTONE_CODES_INL
#endif

#include <hwy/highway.h>

#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
constexpr hn::CappedTag<float, 16> wide;
constexpr hn::Rebind<hwy::float16_t, decltype(wide)> narrow;
constexpr hn::RebindToUnsigned<decltype(wide)> words;
constexpr hn::RebindToSigned<decltype(wide)> integers;
constexpr hn::Rebind<std::uint16_t, decltype(wide)> halves;
constexpr std::int64_t lanes = hn::MaxLanes(wide);
using Floats = hn::Vec<decltype(wide)>;
using Integers = hn::Vec<decltype(integers)>;
using Halves = hn::Vec<decltype(halves)>;

// Numbers to codes of 16 bits, as their format's `encode` makes them, but for magnitudes over 0 and up to `inexact`.
struct ToF16 {
  static constexpr float inexact = 0;
  static HWY_INLINE Halves codes(Floats x) { return hn::BitCast(halves, hn::DemoteTo(narrow, x)); }
};

struct ToBF16 {
  static constexpr float inexact = 0;
  static HWY_INLINE Halves codes(Floats x) {
    const auto bits = hn::BitCast(words, x), kept = hn::ShiftRight<16>(bits);
    const auto nearest =
        hn::ShiftRight<16>(hn::Add(bits, hn::Add(hn::Set(words, 0x7fff), hn::And(kept, hn::Set(words, 1)))));
    const auto code = hn::IfThenElse(hn::RebindMask(words, hn::IsNaN(x)), hn::Or(kept, hn::Set(words, 0x40)), nearest);
    return hn::DemoteTo(halves, hn::BitCast(integers, code));
  }
};
#endif

#if HWY_TARGET == HWY_AVX3
/// By Isa::avx512_bf16, as assembly, which needs neither the compiler's knowledge of the instruction nor its flags.
struct ToBF16InOne {
  static constexpr float inexact = 0x1p-126f - 0x1p-149f;
  static HWY_INLINE Halves codes(Floats x) {
    __m256i codes;
    asm("vcvtneps2bf16 %1, %0" : "=v"(codes) : "v"(x.raw));
    return Halves{codes};
  }
  static HWY_INLINE bool any_inexact(Floats x) { return _mm512_fpclass_ps_mask(x.raw, 0x20) != 0; }  // denormal
};
#endif

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
