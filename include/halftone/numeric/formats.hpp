#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>

#include "halftone/numeric/math.hpp"
#include "halftone/numeric/type_list.hpp"

namespace halftone {

/// The codes that numbers are stored in, of 1 to 32 bits; products and sums are f32 whatever the code.
enum class DType : std::uint8_t { f32, f16, bf16, e4m3, e5m2, e3m2, e2m1, sign, u8, i8, i16, i32 };

/// What a number too large for a format becomes: the largest finite number, or infinity (NaN where there is none).
enum class Overflow : std::uint8_t { saturate, infinity };

/// What a floating-point format has beside numbers: infinities and NaNs as in IEEE 754, its last code as the one NaN,
/// or nothing; NaN becomes the largest number then.
enum class Specials : std::uint8_t { ieee, nan, none };

/// A binary floating-point format of up to 16 bits with subnormals. Encoding rounds to nearest, ties to even; with
/// Overflow::saturate infinity becomes the largest number too.
template <int exponent_bits, int mantissa_bits, Specials specials, Overflow usual_overflow>
struct SmallFloat {
  using Code = std::conditional_t<(exponent_bits + mantissa_bits < 8), std::uint8_t, std::uint16_t>;
  using Small = SmallFloat;
  static constexpr bool has_infinity = specials == Specials::ieee;
  static constexpr int bits = 1 + exponent_bits + mantissa_bits;

  static constexpr int bias = (1 << (exponent_bits - 1)) - 1;
  static constexpr int dropped_bits = 23 - mantissa_bits;  ///< of a f32 mantissa
  static constexpr int first_exponent = 128 - bias;        ///< exponent field, in f32, of the smallest normal number
  static constexpr std::int32_t exponent_mask = ((1 << exponent_bits) - 1) << mantissa_bits;
  static constexpr std::int32_t last_code = (1 << (exponent_bits + mantissa_bits)) - 1;
  static constexpr std::int32_t largest_code =
      has_infinity ? exponent_mask - 1 : last_code - (specials == Specials::nan);
  static constexpr Overflow overflow = usual_overflow;

  static constexpr float epsilon = math::power_of_two(-mantissa_bits);
  static constexpr float smallest = math::power_of_two(1 - bias - mantissa_bits);
  static constexpr float largest =
      has_infinity ? (2 - epsilon) * math::power_of_two(bias)
                   : (2 - (specials == Specials::nan ? 2 : 1) * epsilon) * math::power_of_two(bias + 1);

  template <Overflow policy = usual_overflow>
  HALFTONE_HD static constexpr Code encode(float x) {
    const std::int32_t a = bit_cast<std::int32_t>(x) & 0x7fffffff;
    const std::uint32_t half = (1u << (dropped_bits - 1)) - 1 + ((a >> dropped_bits) & 1);
    const std::uint32_t kept = (static_cast<std::uint32_t>(a) + half) >> dropped_bits;
    std::int32_t code = static_cast<std::int32_t>(kept) - ((first_exponent - 1) << mantissa_bits);
    if constexpr (first_exponent > 1) {  // below the smallest normal number a sum with `anchor` rounds where we must
      constexpr float anchor = math::power_of_two(24 - bias - mantissa_bits);
      const std::int32_t subnormal =
          bit_cast<std::int32_t>(bit_cast<float>(a) + anchor) - bit_cast<std::int32_t>(anchor);
      code = math::select(a < (first_exponent << 23), subnormal, code);
    }
    return assemble(x, code, largest_code + (policy == Overflow::infinity && specials != Specials::none));
  }

  HALFTONE_HD static constexpr float decode(Code code) {
    const std::uint32_t sign = static_cast<std::uint32_t>(code >> (exponent_bits + mantissa_bits)) << 31;
    const std::int32_t magnitude = code & last_code;
    const std::int32_t aligned = magnitude << dropped_bits;
    std::int32_t wide = aligned + ((first_exponent - 1) << 23);
    if constexpr (first_exponent > 1) {
      constexpr std::int32_t first = first_exponent << 23;
      const float subnormal = bit_cast<float>(aligned + first) - bit_cast<float>(first);
      wide = math::select(magnitude < (1 << mantissa_bits), bit_cast<std::int32_t>(subnormal), wide);
      constexpr std::int32_t last = has_infinity ? exponent_mask - 1 : largest_code;
      wide = math::select(magnitude > last, aligned | 0x7f800000, wide);
    }
    return bit_cast<float>(static_cast<std::uint32_t>(wide) | sign);
  }

  /// The storage of a rounded magnitude `code`, at most `limit`, with the sign of `x`; NaN where `x` is.
  HALFTONE_HD static constexpr Code assemble(float x, std::int32_t code, std::int32_t limit) {
    const std::int32_t signed_x = bit_cast<std::int32_t>(x), a = signed_x & 0x7fffffff;
    constexpr std::int32_t quiet = has_infinity ? exponent_mask | (1 << (mantissa_bits - 1)) : last_code;
    const std::int32_t nan = quiet | ((a >> dropped_bits) & ((1 << mantissa_bits) - 1));
    code = math::select(a > 0x7f800000, nan, math::select(code < limit, code, limit));
    return static_cast<Code>(code | ((signed_x >> 31) & (1 << (exponent_bits + mantissa_bits))));
  }
};

struct F32 {
  using Code = float;
  static constexpr int bits = 32;
  static constexpr Overflow overflow = Overflow::infinity;
  static constexpr DType dtype = DType::f32;
  static constexpr const char* name = "f32";
  static constexpr float epsilon = 0x1p-23f, largest = (std::numeric_limits<float>::max)(), smallest = 0x1p-149f;
  HALFTONE_HD static constexpr Code encode(float x) { return x; }
  HALFTONE_HD static constexpr float decode(Code x) { return x; }
};

struct F16 : SmallFloat<5, 10, Specials::ieee, Overflow::infinity> {
  static constexpr DType dtype = DType::f16;
  static constexpr const char* name = "f16";
};

struct BF16 : SmallFloat<8, 7, Specials::ieee, Overflow::infinity> {
  static constexpr DType dtype = DType::bf16;
  static constexpr const char* name = "bf16";
};

/// FP8 for activations and weights ("FP8 formats for deep learning", Micikevicius et al. 2022): no infinity, up to 448.
struct E4M3 : SmallFloat<4, 3, Specials::nan, Overflow::saturate> {
  static constexpr DType dtype = DType::e4m3;
  static constexpr const char* name = "e4m3";
};

/// FP8 for gradients: up to 57344.
struct E5M2 : SmallFloat<5, 2, Specials::ieee, Overflow::saturate> {
  static constexpr DType dtype = DType::e5m2;
  static constexpr const char* name = "e5m2";
};

/// FP6: up to 28, in steps of 1/16 at least, for blocks with a scale of their own (OCP Microscaling specification 1.0).
struct E3M2 : SmallFloat<3, 2, Specials::none, Overflow::saturate> {
  static constexpr DType dtype = DType::e3m2;
  static constexpr const char* name = "e3m2";
};

/// FP4: 0, 0.5, 1, 1.5, 2, 3, 4 and 6, for blocks with a scale of their own (OCP Microscaling specification 1.0).
struct E2M1 : SmallFloat<2, 1, Specials::none, Overflow::saturate> {
  static constexpr DType dtype = DType::e2m1;
  static constexpr const char* name = "e2m1";
};

/// One bit: +1 (also for zero) or -1.
struct Sign {
  using Code = std::uint8_t;
  static constexpr int bits = 1;
  static constexpr DType dtype = DType::sign;
  static constexpr const char* name = "sign";
  static constexpr Overflow overflow = Overflow::saturate;
  static constexpr float epsilon = 2, largest = 1, smallest = 1;
  HALFTONE_HD static constexpr Code encode(float x) { return x >= 0; }
  HALFTONE_HD static constexpr float decode(Code x) { return x != 0 ? 1.0f : -1.0f; }
};

/// An integer format: encoding rounds to nearest, ties to even, and clamps; NaN becomes 0.
template <class Integer>
struct IntegerFormat {
  using Code = Integer;
  static constexpr int bits = 8 * sizeof(Integer);
  static constexpr Overflow overflow = Overflow::saturate;
  static constexpr float epsilon = 1, smallest = 1;
  static constexpr float largest = static_cast<float>((std::numeric_limits<Integer>::max)());
  HALFTONE_HD static constexpr Code encode(float x) {
    constexpr float lowest = static_cast<float>((std::numeric_limits<Integer>::min)());
    constexpr std::int32_t last = (std::numeric_limits<Integer>::max)();
    const float rounded = math::round_even(x);
    const float inside = math::select(rounded > lowest, math::select(rounded < largest, rounded, 0.0f), lowest);
    const auto converted = static_cast<std::int32_t>(math::select(x == x, inside, 0.0f));
    return static_cast<Code>(math::select(rounded >= largest, last, converted));
  }
  HALFTONE_HD static constexpr float decode(Code x) { return static_cast<float>(x); }
};

struct U8 : IntegerFormat<std::uint8_t> {
  static constexpr DType dtype = DType::u8;
  static constexpr const char* name = "u8";
};

struct I8 : IntegerFormat<std::int8_t> {
  static constexpr DType dtype = DType::i8;
  static constexpr const char* name = "i8";
};

struct I16 : IntegerFormat<std::int16_t> {
  static constexpr DType dtype = DType::i16;
  static constexpr const char* name = "i16";
};

struct I32 : IntegerFormat<std::int32_t> {
  static constexpr DType dtype = DType::i32;
  static constexpr const char* name = "i32";
};

/// The code of x with either meaning of what is too large.
template <class Format>
HALFTONE_HD constexpr typename Format::Code encode(float x, Overflow overflow) {
  if constexpr (requires { typename Format::Small; }) {
    if (overflow != Format::overflow)
      return overflow == Overflow::infinity ? Format::template encode<Overflow::infinity>(x)
                                            : Format::template encode<Overflow::saturate>(x);
  }
  return Format::encode(x);
}

/// Every storage format, in the order of `DType`.
using Formats = TypeList<F32, F16, BF16, E4M3, E5M2, E3M2, E2M1, Sign, U8, I8, I16, I32>;

/// Calls `visitor(F16{})` and so on: the one place where a run-time format becomes a type.
template <class Visitor>
constexpr decltype(auto) visit_format(DType dtype, Visitor&& visitor) {
  return visit_type(Formats{}, static_cast<std::size_t>(dtype), std::forward<Visitor>(visitor));
}

constexpr int bits_of(DType dtype) {
  return visit_format(dtype, [](auto format) { return decltype(format)::bits; });
}
/// Bytes that one code takes by itself, unpacked.
constexpr std::size_t size_of(DType dtype) {
  return visit_format(dtype, [](auto format) { return sizeof(typename decltype(format)::Code); });
}
constexpr const char* name_of(DType dtype) {
  return visit_format(dtype, [](auto format) { return decltype(format)::name; });
}
constexpr Overflow overflow_of(DType dtype) {
  return visit_format(dtype, [](auto format) { return decltype(format)::overflow; });
}
/// The spacing of the format's numbers at 1.
constexpr float epsilon_of(DType dtype) {
  return visit_format(dtype, [](auto format) { return decltype(format)::epsilon; });
}

constexpr std::optional<DType> parse_dtype(std::string_view name) {
  for (std::size_t i = 0; i < Formats::size; ++i) {
    if (name == name_of(static_cast<DType>(i))) return static_cast<DType>(i);
  }
  return std::nullopt;
}

}  // namespace halftone
