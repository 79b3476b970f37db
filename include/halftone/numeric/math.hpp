#pragma once
#include "halftone/numeric/host_device.hpp"

/// Functions of one f32 number without branches, tables or fused operations: they vectorise on the host, and give the
/// same bits on the device as long as neither compiler contracts a*b+c (-ffp-contract=off, -fmad=false).
namespace halftone::math {

/// `condition ? yes : no` of two 32-bit numbers, made so that compilers keep it free of branches.
template <class T>
HALFTONE_HD constexpr T select(bool condition, T yes, T no) {
  const std::uint32_t mask = 0u - static_cast<std::uint32_t>(condition);
  return bit_cast<T>((bit_cast<std::uint32_t>(yes) & mask) | (bit_cast<std::uint32_t>(no) & ~mask));
}

HALFTONE_HD constexpr float abs(float x) { return bit_cast<float>(bit_cast<std::uint32_t>(x) & 0x7fffffffu); }

HALFTONE_HD constexpr float copy_sign(float magnitude, float sign) {
  return bit_cast<float>((bit_cast<std::uint32_t>(magnitude) & 0x7fffffffu) |
                         (bit_cast<std::uint32_t>(sign) & 0x80000000u));
}

/// 2^n for any n whose power is a f32 number, subnormal ones included.
HALFTONE_HD constexpr float power_of_two(int n) {
  return bit_cast<float>(n < -126 ? 1u << (n + 149) : static_cast<std::uint32_t>(n + 127) << 23);
}

/// The exponent of the smallest power of two that is no less than x, a positive normal number.
HALFTONE_HD constexpr int ceil_log2(float x) {
  const std::uint32_t bits = bit_cast<std::uint32_t>(x);
  return static_cast<int>(bits >> 23) - 127 + ((bits & 0x7fffffu) != 0);
}

/// The power of two nearest to a positive, normal x by its logarithm.
HALFTONE_HD constexpr float nearest_power_of_two(float x) {
  constexpr std::uint32_t above_root_of_two = 0x3504f4;  // the first mantissa from which on it is the next one
  return bit_cast<float>((bit_cast<std::uint32_t>(x) + (0x800000u - above_root_of_two)) & 0x7f800000u);
}

/// AP2(x), sign(x) 2^round(log2 |x|) of any x (Courbariaux et al. 2016): the next power of two from sqrt(2) times one
/// on, which no f32 number is exactly, and 2^127 for all finite ones above. 0, infinities and NaN stay what they are.
HALFTONE_HD constexpr float approximate_power_of_two(float x) {
  constexpr float largest = 0x1p127f;
  const float magnitude = abs(x);
  const bool is_small = magnitude < 0x1p-126f, is_special = !(magnitude > 0 && magnitude <= 0x1.fffffep127f);
  const float power =
      nearest_power_of_two(magnitude * select(is_small, 0x1p24f, 1.0f)) * select(is_small, 0x1p-24f, 1.0f);
  return select(is_special, x, copy_sign(select(power > largest, largest, power), x));
}

/// base^exponent by squaring: the same bits on host and device, which `std::pow` does not promise.
HALFTONE_HD constexpr double power(double base, std::int64_t exponent) {
  double result = 1;
  for (; exponent > 0; exponent >>= 1, base *= base) result *= (exponent & 1) ? base : 1.0;
  return result;
}

/// To the nearest integer, ties to even.
HALFTONE_HD constexpr float round_even(float x) {
  const float magnitude = abs(x);
  return copy_sign(select(magnitude < 0x1p23f, (magnitude + 0x1p23f) - 0x1p23f, magnitude), x);
}

/// To the next integer towards zero.
HALFTONE_HD constexpr float truncate(float x) {
  const float magnitude = abs(x), nearest = abs(round_even(x));
  return copy_sign(nearest - select(nearest > magnitude, 1.0f, 0.0f), x);
}

namespace detail {

/// c[0] x^n + ... + c[n].
template <class... C>
HALFTONE_HD constexpr float polynomial(float x, float first, C... rest) {
  ((first = first * x + rest), ...);
  return first;
}

}  // namespace detail

/// e^x to 1 ulp, subnormal results included. x = n ln 2 + r, |r| <= ln 2 / 2; e^r by a minimax polynomial.
HALFTONE_HD constexpr float exp(float x) {
  constexpr float integer_shift = 0x1.8p23f, log2_e = 1.44269504f;
  constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;  // n * ln2_high is exact
  x = select(x > 89.0f, 89.0f, x);
  x = select(x < -104.0f, -104.0f, x);
  const float shifted = x * log2_e + integer_shift;
  const float n = shifted - integer_shift;
  const float r = (x - n * ln2_high) - n * ln2_low;
  const float tail = detail::polynomial(r, 0.001392620336f, 0.008363194882f, 0.0416665545f, 0.1666657689f, 0.5f);
  const float e_r = (r * r) * tail + r + 1.0f;
  const std::uint32_t exponent = bit_cast<std::uint32_t>(shifted) - bit_cast<std::uint32_t>(integer_shift) + 256u;
  const std::uint32_t half = exponent >> 1;  // two factors, since 2^n alone may leave the range that e^x is in
  const float low = bit_cast<float>((half - 1u) << 23), high = bit_cast<float>((exponent - half - 1u) << 23);
  return e_r * low * high;
}

/// ln x of a positive, normal x to 2 ulp: x = 2^n m with m near 1, ln m = 2 artanh((m - 1) / (m + 1)).
HALFTONE_HD constexpr float log(float x) {
  const std::int32_t bits = bit_cast<std::int32_t>(x), n = (bits - 0x3f3504f3) >> 23;  // m from sqrt(1/2) to sqrt(2)
  const float m = bit_cast<float>(bits - (n << 23)), z = (m - 1.0f) / (m + 1.0f), square = z * z;
  const float series = detail::polynomial(square, 0.2222222222f, 0.2857142857f, 0.4f, 0.6666666667f, 2.0f);
  return static_cast<float>(n) * 0.693147181f + z * series;
}

/// ln(1 + x) of x in [0, 1] to 4 ulp: ln of the rounded sum, corrected by how it was rounded (Kahan).
HALFTONE_HD constexpr float log1p(float x) {
  const float sum = 1.0f + x;
  return select(sum == 1.0f, x, log(sum) * (x / (sum - 1.0f)));
}

/// cos(pi x / 2) for x in [0, 1].
HALFTONE_HD constexpr float cos_quarter(float x) {
  const float angle = x * 1.57079633f;
  return detail::polynomial(angle * angle, 2.087675699e-9f, -2.755731922e-7f, 2.480158730e-5f, -1.388888889e-3f,
                            4.166666667e-2f, -0.5f, 1.0f);
}

/// x, or where it lies beyond +-limit that limit; what is NaN becomes `otherwise`.
HALFTONE_HD constexpr float saturate(float x, float limit, float otherwise) {
  return select(x == x, select(abs(x) <= limit, x, copy_sign(limit, x)), otherwise);
}

/// tanh x to 2 ulp.
HALFTONE_HD constexpr float tanh(float x) {
  const float magnitude = abs(x), square = x * x;
  const float tail =
      detail::polynomial(square, -0.006096299523f, 0.02099689404f, -0.05385084952f, 0.1333276934f, -0.3333332894f);
  const float near_zero = magnitude + magnitude * (square * tail);
  const float distant = 1.0f - 2.0f / (exp(2.0f * magnitude) + 1.0f);
  return copy_sign(select(magnitude < 0.625f, near_zero, distant), x);
}

/// The error function to 2 ulp: x p(x^2) up to 1, 1 - e^-q(x) beyond, which rounds to 1 from 4 on.
HALFTONE_HD constexpr float erf(float x) {
  const float magnitude = abs(x), square = x * x;
  const float near_zero =
      magnitude + magnitude * detail::polynomial(square, 7.875875063e-5f, -0.0008016864287f, 0.005189087423f,
                                                 -0.02685421201f, 0.1128359472f, -0.3761262667f, 0.1283791658f);
  const float bounded = select(magnitude > 4.0f, 4.0f, magnitude);
  const float q = detail::polynomial(bounded, -1.637151415e-6f, 4.605804269e-5f, -0.0005968056257f, 0.004759596293f,
                                     -0.02642113601f, 0.1100800829f, 0.6318260516f, 1.130233435f, -0.0003201380497f);
  return copy_sign(select(magnitude < 1.0f, near_zero, 1.0f - exp(-q)), x);
}

}  // namespace halftone::math
