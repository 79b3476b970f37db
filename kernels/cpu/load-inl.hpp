// Included once per instruction set, inside HWY_NAMESPACE files only; hence no #pragma once.
#if defined(HALFTONE_LOAD_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef HALFTONE_LOAD_INL
#undef HALFTONE_LOAD_INL
#else
#define HALFTONE_LOAD_INL
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// The first `count` numbers, then zeros, from memory that may end behind them, or where another thread may be writing.
template <class D>
HWY_INLINE hn::Vec<D> load_first(D d, const hn::TFromD<D>* from, std::int64_t count) {
  constexpr std::int64_t lanes = hn::MaxLanes(D());
  if (count >= lanes) return hn::LoadU(d, from);
  if (HWY_TARGET == HWY_AVX3 || (HWY_TARGET == HWY_AVX2 && sizeof(hn::TFromD<D>) == 4))  // others read it all
    return hn::MaskedLoad(hn::FirstN(d, static_cast<std::size_t>(count)), d, from);
#if HWY_TARGET == HWY_AVX2
  if constexpr (sizeof(hn::TFromD<D>) == 2) {
    std::uint64_t low = 0, high = 0;  // four numbers each
    if (count >= 4) {
      std::memcpy(&low, from, sizeof low);
      std::memcpy(&high, from + count - 4, sizeof high);
      high = count > 4 ? high >> 16 * (8 - count) : 0;
    } else {
      for (std::int64_t i = count; i-- > 0;) low = low << 16 | from[i];
    }
    return hn::Vec<D>{_mm_set_epi64x(static_cast<std::int64_t>(high), static_cast<std::int64_t>(low))};
  }
#endif
  HWY_ALIGN hn::TFromD<D> some[lanes] = {};
  std::copy_n(from, count, some);
  return hn::Load(d, some);
}

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
