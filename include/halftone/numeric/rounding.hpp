#pragma once
#include <cstdint>

#include "halftone/numeric/math.hpp"

namespace halftone {

/// Stochastic: to one of the two neighbours, nearer ones more often, so that the mean is the number itself.
enum class Rounding : std::uint8_t { nearest, stochastic, toward_zero };

namespace detail {

/// A magnitude on a floating grid: `significand` * 2^(exponent - 127 - mantissa bits).
struct Rounded {
  std::int32_t significand, exponent;
};

/// Rounds the f32 magnitude with bits `a` to `23 - dropped_bits` mantissa bits; exponent fields below `first_exponent`
/// share the spacing of `first_exponent`.
HALFTONE_HD constexpr Rounded round_magnitude(std::uint32_t a, std::int32_t dropped_bits, std::int32_t first_exponent,
                                              Rounding rounding, std::uint32_t random) {
  const std::int32_t field = static_cast<std::int32_t>(a >> 23), own = math::select(field > 1, field, 1);
  const std::int32_t exponent = math::select(own > first_exponent, own, first_exponent);
  const std::int32_t wanted = dropped_bits + exponent - own;
  const std::int32_t shift = math::select(wanted < 31, wanted, 31), excess = wanted - shift;
  std::uint32_t significand = (a & 0x7fffffu) | math::select(field > 0, 0x800000u, 0u);
  significand = math::select(excess < 24, significand >> (excess & 31), 0u);
  std::uint32_t addend = 0;
  if (rounding == Rounding::nearest) {
    addend = math::select(shift > 0, ((1u << shift) >> 1) - 1u + ((significand >> shift) & 1u), 0u);
  }
  if (rounding == Rounding::stochastic) addend = (random >> 1) >> (31 - shift);
  return {static_cast<std::int32_t>((significand + addend) >> shift), exponent};
}

/// Rounds to an integer; `u` in [0, 1) decides where rounding is stochastic. Integers stay whatever `u` is.
HALFTONE_HD constexpr float round_to_integer(float x, Rounding rounding, float u) {
  if (rounding == Rounding::nearest) return math::round_even(x);
  const float whole = math::truncate(x);
  if (rounding == Rounding::toward_zero) return whole;
  const float magnitude = math::abs(whole), rest = math::abs(x) - magnitude;
  return math::copy_sign(magnitude + math::select(u < rest, 1.0f, 0.0f), x);
}

}  // namespace detail

/// Rounds f32 numbers to a number system chosen at run time. NaN stays NaN.
struct Grid {
  enum class Kind : std::uint8_t { floating, fixed, binary };

  Kind kind = Kind::floating;
  Rounding rounding = Rounding::nearest;
  bool saturate = false;  ///< too large numbers become the largest of the grid, otherwise infinity
  std::int32_t dropped_bits = 0, first_exponent = 1;  ///< floating: as in `SmallFloat`
  float spacing = 1, lowest = 0, largest = 0;         ///< spacing: fixed alone

  /// As in IEEE 754, with subnormals and with the last exponent kept for infinity and NaN: (5, 10) is f16, (8, 7) bf16,
  /// (8, 23) f32. `exponent_bits` 2 to 8, `mantissa_bits` 0 to 23.
  static constexpr Grid floating(int exponent_bits, int mantissa_bits, Rounding rounding = Rounding::nearest) {
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const float largest = (2 - math::power_of_two(-mantissa_bits)) * math::power_of_two(bias);
    return {Kind::floating, rounding, false, 23 - mantissa_bits, 128 - bias, 1, -largest, largest};
  }

  /// Two's complement fixed point with the sign among the integer bits (Gupta et al. 2015): from -2^(integer_bits - 1)
  /// up to 2^(integer_bits - 1) - 2^-fraction_bits, or the last f32 number on the grid where that one has over 24 bits.
  static constexpr Grid fixed(int integer_bits, int fraction_bits, Rounding rounding = Rounding::nearest) {
    const float end = math::power_of_two(integer_bits - 1);
    const int last = -fraction_bits > integer_bits - 25 ? -fraction_bits : integer_bits - 25;
    return {
        Kind::fixed, rounding, true, 0, 1, math::power_of_two(-fraction_bits), -end, end - math::power_of_two(last)};
  }

  /// Zero and plus or minus 2^n, n from -126 to 127; nearest is meant on the straight, not the logarithmic scale.
  static constexpr Grid power_of_two(Rounding rounding = Rounding::nearest) {
    Grid grid = floating(8, 0, rounding);
    grid.saturate = true;
    return grid;
  }

  /// +1 and -1 (Courbariaux et al. 2016): the sign, +1 at zero; stochastic: +1 with probability (x + 1) / 2.
  static constexpr Grid binary(Rounding rounding = Rounding::nearest) {
    return {Kind::binary, rounding, true, 0, 1, 2, -1, 1};
  }

  constexpr bool operator==(const Grid&) const = default;

  /// `u` in [0, 1) decides where rounding is stochastic.
  HALFTONE_HD constexpr float operator()(float x, float u) const {
    const float rounded = kind == Kind::floating ? round_floating(x, u)
                          : kind == Kind::fixed  ? round_fixed(x, u)
                                                 : sign(x, u);
    return math::select(x == x, rounded, x);
  }

 private:
  HALFTONE_HD constexpr float round_floating(float x, float u) const {
    const std::uint32_t a = bit_cast<std::uint32_t>(x) & 0x7fffffffu;
    const auto random = static_cast<std::uint32_t>(static_cast<std::int32_t>(u * 0x1p24f)) << 8;
    const auto [significand, exponent] = detail::round_magnitude(a, dropped_bits, first_exponent, rounding, random);
    const std::int32_t scale = exponent - 150 + dropped_bits;  // two factors: spacings may be subnormal
    const float value =
        static_cast<float>(significand) * math::power_of_two(scale / 2) * math::power_of_two(scale - scale / 2);
    return limit(math::copy_sign(math::select(a < 0x7f800000u, value, x), x), x);
  }

  HALFTONE_HD constexpr float round_fixed(float x, float u) const {
    return limit(detail::round_to_integer(x * (1.0f / spacing), rounding, u) * spacing, x);
  }

  HALFTONE_HD constexpr float limit(float rounded, float x) const {
    const bool clamp = saturate || (rounding == Rounding::toward_zero && math::abs(x) <= 0x1.fffffep127f);
    const float infinity = bit_cast<float>(0x7f800000u);
    const float high = clamp ? largest : infinity, low = clamp ? lowest : -infinity;
    return math::select(rounded > largest, high, math::select(rounded < lowest, low, rounded));
  }

  HALFTONE_HD constexpr float sign(float x, float u) const {
    const float threshold = rounding == Rounding::stochastic ? 2.0f * u - 1.0f : 0.0f;
    const bool up = rounding == Rounding::stochastic ? x > threshold : x >= threshold;
    return up ? 1.0f : -1.0f;
  }
};

}  // namespace halftone
