#include "halftone/numeric/formats.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "tests/numeric/type_lists.hpp"

namespace halftone {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

float from_bits(std::uint32_t bits) { return bit_cast<float>(bits); }
float above(float x) { return std::nextafter(x, infinity); }
float below(float x) { return std::nextafter(x, -infinity); }

template <class Format>
struct SmallFormat : testing::Test {};
TYPED_TEST_SUITE(SmallFormat, test::SmallFormats);

TYPED_TEST(SmallFormat, EveryCodeSurvives) {
  using Code = typename TypeParam::Code;
  for (std::uint32_t i = 0; i < 1u << TypeParam::bits; ++i) {
    const auto code = static_cast<Code>(i);
    const float x = TypeParam::decode(code);
    const Code again = TypeParam::template encode<Overflow::infinity>(x);
    if (std::isnan(x)) {
      EXPECT_TRUE(std::isnan(TypeParam::decode(again))) << i;
    } else {
      EXPECT_EQ(again, code) << i;
    }
  }
}

TYPED_TEST(SmallFormat, CodesAreTheFormatsNumbers) {
  constexpr int mantissa_bits = 23 - TypeParam::dropped_bits;
  for (int code = 0; code <= TypeParam::largest_code; ++code) {
    const int field = code >> mantissa_bits, mantissa = code & ((1 << mantissa_bits) - 1);
    const int significand = field > 0 ? mantissa + (1 << mantissa_bits) : mantissa;
    const double expected = std::ldexp(significand, std::max(field, 1) - TypeParam::bias - mantissa_bits);
    ASSERT_EQ(TypeParam::decode(static_cast<typename TypeParam::Code>(code)), expected) << code;
  }
  EXPECT_EQ(TypeParam::decode(TypeParam::largest_code), TypeParam::largest);
  EXPECT_EQ(TypeParam::decode(1), TypeParam::smallest);
  EXPECT_EQ(TypeParam::decode(TypeParam::encode(1) + 1), 1 + TypeParam::epsilon);
}

TYPED_TEST(SmallFormat, MidpointsTieToEvenAndTheirNeighboursDoNot) {
  for (int code = 0; code < TypeParam::largest_code; ++code) {
    const float low = TypeParam::decode(static_cast<typename TypeParam::Code>(code));
    const float high = TypeParam::decode(static_cast<typename TypeParam::Code>(code + 1));
    const float middle = static_cast<float>((double{low} + high) / 2);
    for (const float sign : {1.0f, -1.0f}) {
      ASSERT_EQ(TypeParam::decode(TypeParam::encode(sign * middle)), sign * (code % 2 == 0 ? low : high)) << code;
      ASSERT_EQ(TypeParam::decode(TypeParam::encode(sign * below(middle))), sign * low) << code;
      ASSERT_EQ(TypeParam::decode(TypeParam::encode(sign * above(middle))), sign * high) << code;
    }
  }
}

TYPED_TEST(SmallFormat, OverflowFollowsThePolicy) {
  const float largest = TypeParam::largest;
  const float next_would_be = largest + (largest - TypeParam::decode(TypeParam::largest_code - 1));
  const float middle = static_cast<float>((double{largest} + next_would_be) / 2);
  for (const float x : {std::isinf(next_would_be) ? from_bits(0x7f7fffff) : above(middle), infinity}) {
    EXPECT_EQ(TypeParam::decode(TypeParam::template encode<Overflow::saturate>(x)), largest);
    EXPECT_EQ(TypeParam::decode(TypeParam::template encode<Overflow::saturate>(-x)), -largest);
    const float up = TypeParam::decode(TypeParam::template encode<Overflow::infinity>(x));
    const float down = TypeParam::decode(TypeParam::template encode<Overflow::infinity>(-x));
    if (test::has_specials<TypeParam>) {
      EXPECT_FALSE(std::isfinite(up) || std::isfinite(down));
    } else {
      EXPECT_EQ(up, largest);
      EXPECT_EQ(down, -largest);
    }
  }
}

TYPED_TEST(SmallFormat, NanStaysNanWhereThereIsOneAndZeroKeepsItsSign) {
  for (const std::uint32_t bits : {0x7f800001u, 0x7fc00000u, 0x7fffffffu, 0xff800001u, 0xffc00000u, 0xffffffffu}) {
    const float y = TypeParam::decode(TypeParam::encode(from_bits(bits)));
    EXPECT_TRUE(test::has_specials<TypeParam> ? std::isnan(y) : std::abs(y) == TypeParam::largest) << std::hex << bits;
  }
  EXPECT_TRUE(std::signbit(TypeParam::decode(TypeParam::encode(-0.0f))));
  EXPECT_FALSE(std::signbit(TypeParam::decode(TypeParam::encode(0.0f))));
}

TEST(F16, Thresholds) {
  EXPECT_EQ(F16::decode(F16::encode(65519.996f)), 65504.0f);
  EXPECT_EQ(F16::decode(F16::encode(65520.0f)), infinity);
  EXPECT_EQ(F16::decode(F16::encode(0x1p-25f)), 0.0f);
  EXPECT_EQ(F16::decode(F16::encode(above(0x1p-25f))), 0x1p-24f);
}

TEST(BF16, Thresholds) {
  EXPECT_EQ(BF16::decode(BF16::encode(from_bits(0x7f7fffff))), infinity);
  EXPECT_EQ(BF16::decode(BF16::encode(from_bits(0x7f7f7fff))), BF16::largest);
  EXPECT_TRUE(std::isnan(BF16::decode(BF16::encode(from_bits(0x7f800001)))));
}

TEST(Fp8, Thresholds) {
  EXPECT_EQ(E4M3::decode(E4M3::encode(1e9f)), 448.0f);
  EXPECT_EQ(E4M3::decode(E4M3::encode<Overflow::infinity>(464.0f)), 448.0f);
  EXPECT_TRUE(std::isnan(E4M3::decode(E4M3::encode<Overflow::infinity>(above(464.0f)))));
  EXPECT_EQ(E5M2::decode(E5M2::encode(-infinity)), -57344.0f);
  EXPECT_EQ(E5M2::decode(E5M2::encode<Overflow::infinity>(61440.0f)), infinity);
}

/// All of OCP's FP6 E3M2: 0 to 3/16 in sixteenths, then four to a power of two.
TEST(Fp6, HasThirtyTwoMagnitudes) {
  for (std::uint8_t code = 0; code < 32; ++code) {
    const int exponent = code >> 2, mantissa = code & 3;
    const float number = exponent == 0 ? static_cast<float>(mantissa) / 16
                                       : std::ldexp(1 + static_cast<float>(mantissa) / 4, exponent - 3);
    EXPECT_EQ(E3M2::decode(code), number);
    EXPECT_EQ(E3M2::encode(-number), code | 32);
  }
  EXPECT_EQ(E3M2::largest, 28);
  EXPECT_EQ(E3M2::decode(E3M2::encode(0x1p-5f)), 0) << "a tie, to even";
  EXPECT_EQ(E3M2::decode(E3M2::encode(26.0f)), 24) << "a tie, to even";
  EXPECT_EQ(E3M2::decode(E3M2::encode(infinity)), 28);
}

TEST(Fp4, HasEightMagnitudes) {
  const float numbers[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  for (std::uint8_t code = 0; code < 8; ++code) {
    EXPECT_EQ(E2M1::decode(code), numbers[code]);
    EXPECT_EQ(E2M1::encode(-numbers[code]), code | 8);
  }
  EXPECT_EQ(E2M1::decode(E2M1::encode(2.5f)), 2);
  EXPECT_EQ(E2M1::decode(E2M1::encode(5.0f)), 4);
  EXPECT_EQ(E2M1::decode(E2M1::encode(infinity)), 6);
}

#if defined(__x86_64__)
bool converts_f16() { return __builtin_cpu_supports("avx2"); }  // which implies F16C
__attribute__((target("f16c"))) std::uint16_t hardware_encode(float x) { return _cvtss_sh(x, 0); }
__attribute__((target("f16c"))) float hardware_decode(std::uint16_t x) { return _cvtsh_ss(x); }
#elif defined(__aarch64__)
bool converts_f16() { return true; }
std::uint16_t hardware_encode(float x) { return bit_cast<std::uint16_t>(static_cast<__fp16>(x)); }
float hardware_decode(std::uint16_t x) { return bit_cast<__fp16>(x); }
#endif

#if defined(__x86_64__) || defined(__aarch64__)
TEST(F16, AgreesWithTheProcessor) {
  if (!converts_f16()) GTEST_SKIP() << "this processor does not convert f16";
  std::mt19937 random(1);
  for (int i = 0; i < 4'000'000; ++i) {
    // Half of them with an exponent around the range of f16.
    const std::uint32_t bits = i % 2 == 0 ? random() : (random() & 0x8fffffffu) | 0x30000000u;
    ASSERT_EQ(F16::encode(from_bits(bits)), hardware_encode(from_bits(bits))) << std::hex << bits;
  }
  for (std::uint32_t code = 0; code < 0x10000; ++code) {
    const float ours = F16::decode(static_cast<std::uint16_t>(code));
    if (std::isnan(ours)) continue;
    ASSERT_EQ(bit_cast<std::uint32_t>(ours),
              bit_cast<std::uint32_t>(hardware_decode(static_cast<std::uint16_t>(code))));
  }
}
#endif

TEST(Integers, RoundAndClamp) {
  EXPECT_EQ(U8::encode(2.5f), 2);
  EXPECT_EQ(U8::encode(3.5f), 4);
  EXPECT_EQ(U8::encode(-1.0f), 0);
  EXPECT_EQ(U8::encode(255.5f), 255);
  EXPECT_EQ(U8::encode(infinity), 255);
  EXPECT_EQ(U8::encode(-infinity), 0);
  EXPECT_EQ(U8::encode(std::nanf("")), 0);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(U8::encode(U8::decode(static_cast<std::uint8_t>(i))), i);
  for (int i = -128; i < 128; ++i) EXPECT_EQ(I8::encode(I8::decode(static_cast<std::int8_t>(i))), i);
  for (int i = -32768; i < 32768; ++i) EXPECT_EQ(I16::encode(I16::decode(static_cast<std::int16_t>(i))), i);
  EXPECT_EQ(I8::encode(-2.5f), -2);
  EXPECT_EQ(I8::encode(127.5f), 127);
  EXPECT_EQ(I8::encode(-infinity), -128);
  EXPECT_EQ(I16::encode(1e9f), 32767);
  EXPECT_EQ(I16::encode(-32768.5f), -32768);
  EXPECT_EQ(I16::encode(std::nanf("")), 0);
  EXPECT_EQ(I32::encode(0x1p31f), std::numeric_limits<std::int32_t>::max());
  EXPECT_EQ(I32::encode(below(0x1p31f)), 2147483520);
  EXPECT_EQ(I32::encode(-0x1p31f), std::numeric_limits<std::int32_t>::min());
  EXPECT_EQ(I32::encode(-infinity), std::numeric_limits<std::int32_t>::min());
  EXPECT_EQ(I32::encode(std::nanf("")), 0);
  EXPECT_EQ(I32::encode(-2.5f), -2);
  EXPECT_EQ(I32::encode(16777215.0f), 16777215);
}

TEST(Signs, AreOneOrTheOther) {
  for (const float x : {0.0f, -0.0f, 1e-30f, infinity}) EXPECT_EQ(Sign::decode(Sign::encode(x)), 1) << x;
  for (const float x : {-1e-30f, -7.0f, -infinity}) EXPECT_EQ(Sign::decode(Sign::encode(x)), -1) << x;
}

TEST(Formats, AreListedInTheOrderOfDType) {
  for (std::size_t i = 0; i < Formats::size; ++i) {
    const auto dtype = static_cast<DType>(i);
    visit_format(dtype, [&](auto format) {
      using Format = decltype(format);
      EXPECT_EQ(Format::dtype, dtype);
      EXPECT_EQ(name_of(dtype), std::string(Format::name));
      EXPECT_EQ(size_of(dtype), sizeof(typename Format::Code));
      EXPECT_EQ(bits_of(dtype), Format::bits);
      EXPECT_LE(Format::bits, static_cast<int>(8 * sizeof(typename Format::Code)));
      EXPECT_EQ(overflow_of(dtype), Format::overflow);
      EXPECT_EQ(epsilon_of(dtype), Format::epsilon);
      EXPECT_EQ(parse_dtype(Format::name), dtype);
    });
  }
  EXPECT_EQ(parse_dtype("f17"), std::nullopt);
  static_assert(size_of(DType::bf16) == 2 && size_of(DType::e4m3) == 1 && F16::encode(1.0f) == 0x3c00);
}

}  // namespace
}  // namespace halftone
