#include "kernels/cpu/codes.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/codes.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/codes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {
namespace {

// Numbers are converted in blocks of constant length, which become a few vector instructions. The last block overlaps
// the one before; a shorter run goes through a buffer.
constexpr std::int64_t block = 16;

/// Numbers from which on a call of memcpy pays, which takes no harm from how addresses lie to one another.
constexpr std::int64_t long_copy = 512;

template <class From, class To, class ConvertBlock>
void convert(const From* HWY_RESTRICT from, To* HWY_RESTRICT to, std::int64_t count, ConvertBlock convert_block) {
  if (count < block) {
    From in[block] = {};
    To out[block];
    std::copy_n(from, count, in);
    convert_block(in, out);
    std::copy_n(out, count, to);
    return;
  }
  for (std::int64_t i = 0; i + block < count; i += block) convert_block(from + i, to + i);
  convert_block(from + count - block, to + count - block);
}

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
template <class Format>
concept IsByteFloat = sizeof(typename Format::Code) == 1 && requires {
  typename Format::Small;
};
template <class Format>
concept IsShortInteger = std::is_integral_v<typename Format::Code> && Format::epsilon == 1 && Format::bits <= 16;

template <IsByteFloat Format>
HWY_INLINE Floats decode_codes(Integers code) {
  const auto set = [](std::int32_t x) HWY_ATTR { return hn::Set(integers, x); };
  constexpr std::int32_t first = Format::first_exponent << 23, smallest_normal = 1 << (23 - Format::dropped_bits);
  const auto magnitude = hn::And(code, set(Format::last_code));
  const auto aligned = hn::ShiftLeft<Format::dropped_bits>(magnitude);
  const auto subnormal = hn::Sub(hn::BitCast(wide, hn::Add(aligned, set(first))), hn::BitCast(wide, set(first)));
  auto number = hn::IfThenElse(hn::Lt(magnitude, set(smallest_normal)), hn::BitCast(integers, subnormal),
                               hn::Add(aligned, set(first - (1 << 23))));
  constexpr std::int32_t last = Format::has_infinity ? Format::exponent_mask - 1 : Format::largest_code;
  if constexpr (last < Format::last_code)
    number = hn::IfThenElse(hn::Gt(magnitude, set(last)), hn::Or(aligned, set(0x7f800000)), number);
  const auto sign = hn::ShiftLeft<32 - Format::bits>(hn::AndNot(set(Format::last_code), code));
  return hn::BitCast(wide, hn::Or(number, sign));
}

template <IsByteFloat Format>
HWY_INLINE Integers encode_codes(Floats x) {
  const auto set = [](std::int32_t number) HWY_ATTR { return hn::Set(integers, number); };
  constexpr int dropped = Format::dropped_bits, mantissa = 23 - dropped;
  constexpr std::int32_t mantissa_mask = (1 << mantissa) - 1, sign_mask = Format::last_code + 1;
  constexpr float anchor = math::power_of_two(24 - Format::bias - mantissa);
  const auto bits = hn::BitCast(integers, x), a = hn::And(bits, set(0x7fffffff)), high = hn::ShiftRight<dropped>(a);
  const auto half = hn::Add(set((1 << (dropped - 1)) - 1), hn::And(high, set(1)));
  const auto kept = hn::BitCast(integers, hn::ShiftRight<dropped>(hn::BitCast(words, hn::Add(a, half))));
  const auto normal = hn::Sub(kept, set((Format::first_exponent - 1) << mantissa));
  const auto subnormal = hn::Sub(hn::BitCast(integers, hn::Add(hn::BitCast(wide, a), hn::Set(wide, anchor))),
                                 set(bit_cast<std::int32_t>(anchor)));
  auto code = hn::IfThenElse(hn::Lt(a, set(Format::first_exponent << 23)), subnormal, normal);
  code = hn::Min(code, set(Format::largest_code));
  constexpr std::int32_t quiet =
      Format::has_infinity ? Format::exponent_mask | (1 << (mantissa - 1)) : Format::last_code;
  code = hn::IfThenElse(hn::Gt(a, set(0x7f800000)), hn::Or(set(quiet), hn::And(high, set(mantissa_mask))), code);
  return hn::Or(code, hn::And(hn::ShiftRight<32 - Format::bits>(bits), set(sign_mask)));
}

template <IsShortInteger Format>
HWY_INLINE Floats decode_codes(Integers code) {
  return hn::ConvertTo(wide, code);
}

template <IsShortInteger Format>
HWY_INLINE Integers encode_codes(Floats x) {
  constexpr float lowest = static_cast<float>(std::numeric_limits<typename Format::Code>::min());
  const auto number = hn::IfThenElseZero(hn::Eq(x, x), x);
  return hn::NearestInt(hn::Min(hn::Max(number, hn::Set(wide, lowest)), hn::Set(wide, Format::largest)));
}

template <class Format>
concept HasVectors = IsByteFloat<Format> || IsShortInteger<Format>;
#endif

template <class Format>
void decode_block(const typename Format::Code* HWY_RESTRICT from, float* HWY_RESTRICT to) {
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  if constexpr (HasVectors<Format>) {
    constexpr hn::Rebind<typename Format::Code, decltype(wide)> codes;
    for (std::int64_t i = 0; i < block; i += lanes)
      hn::StoreU(decode_codes<Format>(hn::PromoteTo(integers, hn::LoadU(codes, from + i))), wide, to + i);
    return;
  }
#endif
  for (std::int64_t i = 0; i < block; ++i) to[i] = Format::decode(from[i]);
}

template <class Format>
void encode_block(const float* HWY_RESTRICT from, typename Format::Code* HWY_RESTRICT to) {
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  if constexpr (HasVectors<Format>) {
    constexpr hn::Rebind<typename Format::Code, decltype(wide)> codes;
    for (std::int64_t i = 0; i < block; i += lanes)
      hn::StoreU(hn::DemoteTo(codes, encode_codes<Format>(hn::LoadU(wide, from + i))), codes, to + i);
    return;
  }
#endif
  for (std::int64_t i = 0; i < block; ++i) to[i] = Format::encode(from[i]);
}

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
template <>
void decode_block<BF16>(const std::uint16_t* HWY_RESTRICT from, float* HWY_RESTRICT to) {
  for (std::int64_t i = 0; i < block; i += lanes)
    hn::StoreU(hn::BitCast(wide, hn::ShiftLeft<16>(hn::PromoteTo(words, hn::LoadU(halves, from + i)))), wide, to + i);
}
#endif

template <class Format>
void decode(const void* from, float* to, std::int64_t count) {
  if (std::is_same_v<Format, F32> && count >= long_copy) return void(std::memcpy(to, from, count * sizeof(float)));
  convert(static_cast<const typename Format::Code*>(from), to, count,
          [](auto* in, auto* out) { decode_block<Format>(in, out); });
}

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
template <>
void decode<F16>(const void* from, float* to, std::int64_t count) {
  const auto* codes = static_cast<const std::uint16_t*>(from);
  constexpr hn::CappedTag<std::uint16_t, block> whole_block;
  const auto infinity = hn::Set(whole_block, 0x7c00);
  auto largest = infinity;
  convert(codes, to, count, [&](const std::uint16_t* in, float* out) HWY_ATTR {
    largest = hn::Max(largest, hn::And(hn::LoadU(whole_block, in), hn::Set(whole_block, 0x7fff)));
    for (std::int64_t i = 0; i < block; i += lanes)
      hn::StoreU(hn::PromoteTo(wide, hn::BitCast(narrow, hn::LoadU(halves, in + i))), wide, out + i);
  });
  if (hn::AllTrue(whole_block, hn::Eq(largest, infinity))) return;
  for (std::int64_t i = 0; i < count; ++i) to[i] = F16::decode(codes[i]);  // keeps signalling NaNs
}
#endif

template <class Format>
void encode(const float* from, void* to, std::int64_t count) {
  if (std::is_same_v<Format, F32> && count >= long_copy) return void(std::memcpy(to, from, count * sizeof(float)));
  convert(from, static_cast<typename Format::Code*>(to), count,
          [](auto* in, auto* out) { encode_block<Format>(in, out); });
}

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
template <>
void encode<BF16>(const float* from, void* to, std::int64_t count);

/// The same by `To`; gives the largest magnitude, NaN where there is one, if it is to `find` it.
template <class To, bool find>
float encode_by(const float* from, void* to, std::int64_t count) {
  auto largest = hn::Zero(integers);
  [[maybe_unused]] bool inexact = false;
  convert(from, static_cast<std::uint16_t*>(to), count, [&](const float* in, std::uint16_t* out) HWY_ATTR {
    for (std::int64_t i = 0; i < block; i += lanes) {
      const auto x = hn::LoadU(wide, in + i);
      if constexpr (find) largest = hn::Max(largest, hn::BitCast(integers, hn::Abs(x)));
      if constexpr (To::inexact > 0) inexact |= To::any_inexact(x);
      hn::StoreU(To::codes(x), halves, out + i);
    }
  });
  if constexpr (To::inexact > 0)
    if (inexact) encode<BF16>(from, to, count);
  return find ? bit_cast<float>(hn::GetLane(hn::MaxOfLanes(integers, largest))) : 0;
}

template <>
void encode<F16>(const float* from, void* to, std::int64_t count) {
  encode_by<ToF16, false>(from, to, count);
}
template <>
void encode<BF16>(const float* from, void* to, std::int64_t count) {
  encode_by<ToBF16, false>(from, to, count);
}
#endif
#if HWY_TARGET == HWY_AVX3
void encode_bf16_in_one(const float* from, void* to, std::int64_t count) {
  encode_by<ToBF16InOne, false>(from, to, count);
}
#endif

/// With infinity where the code alone would saturate.
template <class Format>
void encode_to_infinity(const float* from, void* to, std::int64_t count) {
  auto* codes = static_cast<typename Format::Code*>(to);
  for (std::int64_t i = 0; i < count; ++i) codes[i] = halftone::encode<Format>(from[i], Overflow::infinity);
}

Decode decoder(DType code) {
  return visit_format(code, [](auto format) -> Decode { return decode<decltype(format)>; });
}
EncodeFinding finding_encoder([[maybe_unused]] Isa isa, [[maybe_unused]] DType code) {
#if HWY_TARGET == HWY_AVX3
  if (code == DType::bf16 && isa >= Isa::avx512_bf16) return encode_by<ToBF16InOne, true>;
#endif
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  if (code == DType::f16) return encode_by<ToF16, true>;
  if (code == DType::bf16) return encode_by<ToBF16, true>;
#endif
  return nullptr;
}
Encode encoder([[maybe_unused]] Isa isa, DType code, Overflow overflow) {
#if HWY_TARGET == HWY_AVX3
  if (code == DType::bf16 && isa >= Isa::avx512_bf16) return encode_bf16_in_one;
#endif
  return visit_format(code, [&](auto format) -> Encode {
    return overflow == Overflow::infinity && format.overflow == Overflow::saturate
               ? encode_to_infinity<decltype(format)>
               : encode<decltype(format)>;  // numbers on the grid are beyond no finite code
  });
}

}  // namespace
}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {

Decode decoder(Isa isa, DType code) { return HALFTONE_PER_ISA(isa, decoder(code)); }
Encode encoder(Isa isa, DType code, Overflow overflow) { return HALFTONE_PER_ISA(isa, encoder(isa, code, overflow)); }
EncodeFinding finding_encoder(Isa isa, DType code) { return HALFTONE_PER_ISA(isa, finding_encoder(isa, code)); }
Encode encoder(Isa isa, DType code) { return encoder(isa, code, overflow_of(code)); }

}  // namespace halftone::cpu
#endif
