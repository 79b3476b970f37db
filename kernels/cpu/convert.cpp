#include "kernels/cpu/convert.hpp"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/convert.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Numbers are converted in blocks of constant length, which become a few vector instructions. The last block overlaps
// the one before; a shorter run goes through a buffer.
constexpr std::int64_t block = 16;

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

template <class Format>
void decode_block(const typename Format::Storage* HWY_RESTRICT from, float* HWY_RESTRICT to) {
  for (std::int64_t i = 0; i < block; ++i) to[i] = Format::decode(from[i]);
}

template <class Format>
void encode_block(const float* HWY_RESTRICT from, typename Format::Storage* HWY_RESTRICT to) {
  for (std::int64_t i = 0; i < block; ++i) to[i] = Format::encode(from[i]);
}

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
constexpr hn::CappedTag<float, block> wide;
constexpr hn::Rebind<hwy::float16_t, decltype(wide)> narrow;
constexpr std::int64_t lanes = hn::MaxLanes(wide);

template <>
void decode_block<F16>(const std::uint16_t* HWY_RESTRICT from, float* HWY_RESTRICT to) {
  for (std::int64_t i = 0; i < block; i += lanes) {
    const auto x = hn::PromoteTo(wide, hn::LoadU(narrow, reinterpret_cast<const hwy::float16_t*>(from + i)));
    hn::StoreU(x, wide, to + i);
    if (hn::AllFalse(wide, hn::IsNaN(x))) continue;
    for (std::int64_t j = i; j < i + lanes; ++j) to[j] = F16::decode(from[j]);  // keeps signalling NaNs
  }
}

template <>
void encode_block<F16>(const float* HWY_RESTRICT from, std::uint16_t* HWY_RESTRICT to) {
  for (std::int64_t i = 0; i < block; i += lanes) {
    hn::StoreU(hn::DemoteTo(narrow, hn::LoadU(wide, from + i)), narrow, reinterpret_cast<hwy::float16_t*>(to + i));
  }
}

constexpr hn::RebindToUnsigned<decltype(wide)> words;
constexpr hn::RebindToSigned<decltype(wide)> integers;
constexpr hn::Rebind<std::uint16_t, decltype(wide)> halves;

template <>
void decode_block<BF16>(const std::uint16_t* HWY_RESTRICT from, float* HWY_RESTRICT to) {
  for (std::int64_t i = 0; i < block; i += lanes)
    hn::StoreU(hn::BitCast(wide, hn::ShiftLeft<16>(hn::PromoteTo(words, hn::LoadU(halves, from + i)))), wide, to + i);
}

template <>
void encode_block<BF16>(const float* HWY_RESTRICT from, std::uint16_t* HWY_RESTRICT to) {
  for (std::int64_t i = 0; i < block; i += lanes) {
    const auto x = hn::LoadU(wide, from + i);
    const auto bits = hn::BitCast(words, x), kept = hn::ShiftRight<16>(bits);
    const auto nearest =
        hn::ShiftRight<16>(hn::Add(bits, hn::Add(hn::Set(words, 0x7fff), hn::And(kept, hn::Set(words, 1)))));
    const auto code = hn::IfThenElse(hn::RebindMask(words, hn::IsNaN(x)), hn::Or(kept, hn::Set(words, 0x40)), nearest);
    hn::StoreU(hn::DemoteTo(halves, hn::BitCast(integers, code)), halves, to + i);
  }
}
#endif

template <class Format>
void decode(const void* from, float* to, std::int64_t count) {
  convert(static_cast<const typename Format::Storage*>(from), to, count,
          [](auto* in, auto* out) { decode_block<Format>(in, out); });
}

template <class Format>
void encode(const float* from, void* to, std::int64_t count) {
  convert(from, static_cast<typename Format::Storage*>(to), count,
          [](auto* in, auto* out) { encode_block<Format>(in, out); });
}

Decode decoder(DType dtype) {
  return visit_format(dtype, [](auto format) -> Decode { return decode<decltype(format)>; });
}
Encode encoder(DType dtype) {
  return visit_format(dtype, [](auto format) -> Encode { return encode<decltype(format)>; });
}

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {

Decode decoder(Isa isa, DType dtype) { return HALFTONE_PER_ISA(isa, decoder(dtype)); }
Encode encoder(Isa isa, DType dtype) { return HALFTONE_PER_ISA(isa, encoder(dtype)); }

}  // namespace halftone::cpu
#endif
