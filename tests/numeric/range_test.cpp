#include "halftone/numeric/range.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <tuple>
#include <vector>

#include "halftone/numeric/storage.hpp"

namespace halftone {
namespace {

/// Scales after each step, in which `seen` was noticed.
std::vector<float> scales(const RangeController& controller, float first, const std::vector<Noticed>& seen) {
  RangeState state{.scale = first, .next = first};
  std::vector<float> result;
  for (const Noticed& noticed : seen) {
    state.noticed = noticed;
    move_range(controller, state, true, true, false);
    result.push_back(state.scale = state.next);
  }
  return result;
}

Noticed counted(std::int64_t saturated, std::int64_t upper_half) {
  return {.count = 8192, .saturated = saturated, .upper_half = upper_half};
}

/// 2^-13 of 8192 numbers a step: one number is no larger share, two are. Over two steps: two and three.
TEST(OverflowRate, DoublesHalvesAndStaysAsCourbariauxSays) {
  const OverflowRate each{.threshold = 0x1p-13f, .interval = 1}, two{.threshold = 0x1p-13f, .interval = 2};
  EXPECT_EQ(scales(each, 1, {counted(2, 2), counted(1, 2), counted(0, 2), counted(1, 1), counted(0, 0)}),
            (std::vector<float>{2, 2, 2, 1, 0.5f}));
  EXPECT_EQ(scales(two, 1, {counted(3, 3), counted(0, 0), counted(2, 2), counted(0, 0), counted(1, 2), counted(1, 1)}),
            (std::vector<float>{1, 2, 2, 1, 1, 1}));
}

/// In units of the scale of the step.
Noticed reaching(float largest) { return {.count = 1, .largest = largest}; }

TEST(Delayed, FitsAtOnceGrowsAtOnceAndShrinksAfterItsInterval) {
  const Delayed eight{.largest = 8, .interval = 3};
  // True magnitudes 3, which 8 * 0.5 holds, 5, 33, then three of 1.
  EXPECT_EQ(
      scales(eight, 1,
             {reaching(3), reaching(10), reaching(33), reaching(1 / 8.0f), reaching(1 / 8.0f), reaching(1 / 8.0f)}),
      (std::vector<float>{0.5f, 1, 8, 8, 8, 0.125f}));
  EXPECT_EQ(scales({Delayed{.largest = 8, .interval = 1}}, 1, {reaching(64), reaching(1), reaching(8), reaching(0)}),
            (std::vector<float>{8, 1, 1, 1}));
}

TEST(Delayed, AnInfinitySaysNothingOfTheScale) {
  const Delayed eight{.largest = 8, .interval = 1024};
  EXPECT_EQ(scales(eight, 1, {reaching(8), reaching(std::numeric_limits<float>::infinity()), reaching(64)}),
            (std::vector<float>{1, 1, 8}));
}

TEST(RangeTotals, CountCommittedStepsInTrueMagnitudes) {
  RangeState state{.scale = 4, .next = 4};
  for (const bool commit : {true, false, true}) {
    state.noticed = {.count = 10, .zeros = 1, .flushed = 2, .saturated = 3, .largest = 2};
    move_range(OverflowRate{}, state, commit, false, false);
  }
  EXPECT_EQ(state.total.count, 20);
  EXPECT_EQ(state.total.zeros, 2);
  EXPECT_EQ(state.total.flushed, 4);
  EXPECT_EQ(state.total.saturated, 6);
  EXPECT_EQ(state.total.largest, 8);
  EXPECT_EQ(state.scale, state.next);
}

/// The scale of a tensor: the smallest power of two with which nothing saturates.
TEST(ScaledTensor, NothingSaturatesAndHalfTheScaleWould) {
  std::mt19937 random(3);
  for (const DType code : {DType::e4m3, DType::e5m2, DType::i8, DType::i16, DType::e2m1}) {
    const Storage storage = Storage::scaled(code);
    const float top = storage.grid().largest;
    for (int trial = 0; trial < 200; ++trial) {
      std::vector<float> x(37);
      for (float& number : x)
        number = std::ldexp(static_cast<float>(random() % 2001) / 1000 - 1, static_cast<int>(random() % 40) - 20);
      std::vector<std::byte> data(storage.bytes(37));
      EXPECT_EQ(data.size(), storage.code_bytes(37) + 1);
      write_numbers(storage, data.data(), 37, 0, 37, x.data());
      const float scale = scale_at(storage, data.data(), 37, 0, 1);
      float largest = 0;
      for (const float number : x) largest = std::max(largest, std::abs(number));
      EXPECT_LE(largest, top * scale);
      EXPECT_GT(largest, top * scale / 2);
      std::vector<float> once(37);
      for (int i = 0; i < 37; ++i) once[static_cast<std::size_t>(i)] = read_number(storage, data.data(), 37, i);
      std::vector<std::byte> again(data.size());
      write_numbers(storage, again.data(), 37, 0, 37, once.data());
      for (int i = 0; i < 37; ++i)
        EXPECT_EQ(read_number(storage, again.data(), 37, i), once[static_cast<std::size_t>(i)]);
    }
  }
}

/// 65520 is the first number that f16 rounds to infinity.
TEST(Storage, KnowsWhereFiniteNumbersEnd) {
  Storage scaled(DType::f16);
  scaled.scaling = Scaling::constant;
  scaled.exponent = -4;
  EXPECT_LT(Storage(DType::f16).finite_limit(), 65520);
  EXPECT_GE(Storage(DType::f16).finite_limit(), std::nextafter(65520.f, 0.f));
  EXPECT_EQ(scaled.finite_limit(), Storage(DType::f16).finite_limit() / 16);
  EXPECT_EQ(Storage(DType::e5m2).finite_limit(), std::numeric_limits<float>::max());
}

TEST(Storage, KnowsWhatHidesThatANumberIsNotFinite) {
  for (const DType code : {DType::f32, DType::f16, DType::bf16}) EXPECT_TRUE(Storage(code).keeps_nonfinite());
  for (const DType code : {DType::e4m3, DType::e5m2, DType::e2m1, DType::i8, DType::i16, DType::sign})
    EXPECT_FALSE(Storage(code).keeps_nonfinite()) << name_of(code);
  Storage infinite(DType::e5m2);
  infinite.overflow = Overflow::infinity;
  EXPECT_TRUE(infinite.keeps_nonfinite());
}

TEST(Storage, SaysWhyThereIsNone) {
  Storage wide(DType::i8), moving(DType::f16), saturated(DType::f32);
  wide.width = 9;
  moving.scaling = Scaling::range;
  saturated.overflow = Overflow::saturate;
  Storage constant = Storage::blocks(DType::e4m3, 16);
  constant.scaling = Scaling::constant;
  for (const Storage& storage :
       {wide, moving, saturated, constant, Storage::blocks(DType::e4m3, 24), Storage::blocks(DType::e4m3, 0)})
    EXPECT_NE(storage.fault(), nullptr);
  for (const Storage& storage : {Storage(DType::f32), Storage::fixed(6, 10), Storage::blocks(DType::e2m1, 32)})
    EXPECT_EQ(storage.fault(), nullptr);
}

/// NVFP4 by hand: half a unit for the tensor, whose largest number is 6 * 448 of them, then 448, 1.25 and the smallest
/// scale for the blocks.
TEST(NestedBlocks, HaveAScaleWithinThatOfTheTensor) {
  const Storage storage = Storage::nested_blocks(DType::e2m1, 16);
  EXPECT_EQ(storage.bytes(1 << 20), (1 << 20) * 9 / 16 + 1);  // 4.5 bits a number
  const float codes[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.5f, -1, -1.5f, -2, -3, -4, -6, 6};
  std::vector<float> numbers;
  for (const float scale : {224.0f, 0.625f, 0.0f})
    for (const float code : codes) numbers.push_back(code * scale);
  constexpr std::int64_t count = 48;
  std::vector<std::byte> data(storage.bytes(count));
  write_numbers(storage, data.data(), count, 0, count, numbers.data());
  const std::uint8_t expected[] = {0x7e, 0x3a, 0x08, 126};  // E4M3 448, 1.25, 2^-6; 2^-1
  for (std::size_t i = 0; i < std::size(expected); ++i)
    EXPECT_EQ(std::to_integer<int>(data[count / 2 + i]), expected[i]) << i;
  for (std::int64_t i = 0; i < count; ++i)
    EXPECT_EQ(read_number(storage, data.data(), count, i), numbers[static_cast<std::size_t>(i)]) << i;

  const Storage powers_alone = Storage::blocks(DType::e2m1, 16);
  std::vector<std::byte> others(powers_alone.bytes(count));
  write_numbers(powers_alone, others.data(), count, 0, count, numbers.data());
  EXPECT_NE(read_number(powers_alone, others.data(), count, 17), numbers[17]);

  numbers[20] = NAN;
  Storage given = storage;  // the tensor's scale is
  given.scaling = Scaling::range;
  write_numbers(given, data.data(), count, 0, count, numbers.data(), {}, 0.5f);
  EXPECT_EQ(read_number(given, data.data(), count, 15, 0.5f), 1344);
  EXPECT_TRUE(std::isnan(read_number(given, data.data(), count, 16, 0.5f)));
  write_numbers(storage, data.data(), count, 0, count, numbers.data());
  EXPECT_TRUE(std::isnan(read_number(storage, data.data(), count, 0)));
}

/// OCP's bits a number, and its scale: 2^(floor(log2 of the largest) - the code's largest exponent).
TEST(Blocks, TakeTheirBitsAndErrAsThese) {
  double before = 0;
  for (const auto& [code, bits, top] :
       {std::tuple(DType::e4m3, 8.25, 8), {DType::e3m2, 6.25, 4}, {DType::e2m1, 4.25, 2}}) {
    const Storage storage = Storage::blocks(code, 32);
    constexpr std::int64_t count = 3200;
    EXPECT_EQ(8.0 * static_cast<double>(storage.bytes(count)) / count, bits);
    EXPECT_EQ(top_exponent(code), top);
    std::vector<float> numbers;
    for (std::int64_t i = 0; i < count; ++i)
      numbers.push_back((uniform(1, 0, 0, static_cast<std::uint64_t>(i)) - 0.5f) * 0x1p-9f);
    std::vector<std::byte> data(storage.bytes(count));
    write_numbers(storage, data.data(), count, 0, count, numbers.data());
    double error = 0;
    for (std::int64_t i = 0; i < count; ++i)
      error += std::pow(read_number(storage, data.data(), count, i) - numbers[static_cast<std::size_t>(i)], 2);
    EXPECT_GT(error, 1.2 * before) << name_of(code);
    before = error;
    float largest = 0;
    for (std::size_t i = 0; i < 32; ++i) largest = std::max(largest, std::abs(numbers[i]));
    EXPECT_EQ(std::to_integer<int>(data[storage.code_bytes(count)]), 127 + std::ilogb(largest) - top);
  }
}

TEST(ScaledTensor, WhatIsNoNumberShows) {
  const Storage storage = Storage::scaled(DType::i8);
  EXPECT_TRUE(storage.keeps_nonfinite());
  std::vector<std::byte> data(16);
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    const float x[] = {1, bad};
    write_numbers(storage, data.data(), 2, 0, 2, x);
    EXPECT_TRUE(std::isnan(read_number(storage, data.data(), 2, 1)));
  }
  const float zeros[] = {0, 0};
  write_numbers(storage, data.data(), 2, 0, 2, zeros);
  EXPECT_EQ(read_number(storage, data.data(), 2, 1), 0);
}

}  // namespace
}  // namespace halftone
