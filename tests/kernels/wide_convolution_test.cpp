#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/cpu/convolution.hpp"

namespace halftone::cpu {
namespace {

using Codes = std::vector<std::int32_t>;

/// The sums of one direction, in integers of 128 bits.
std::vector<__int128> sums_of(const ConvProblem& p, Direction direction, const Codes& a, const Codes& b,
                              std::int64_t count) {
  std::vector<__int128> sums(static_cast<std::size_t>(count));
  const std::int64_t channels = p.c / p.groups, filters = p.k / p.groups;
  for (std::int64_t n = 0; n < p.n; ++n)
    for (std::int64_t i = 0; i < p.p; ++i)
      for (std::int64_t j = 0; j < p.q; ++j)
        for (std::int64_t k = 0; k < p.k; ++k)
          for (std::int64_t r = 0; r < p.r; ++r)
            for (std::int64_t s = 0; s < p.s; ++s)
              for (std::int64_t c = 0; c < channels; ++c) {
                const std::int64_t h = i * p.stride_h - p.pad_h + r * p.dilation_h;
                const std::int64_t w = j * p.stride_w - p.pad_w + s * p.dilation_w;
                if (h < 0 || h >= p.h || w < 0 || w >= p.w) continue;
                const auto x = static_cast<std::size_t>(((n * p.h + h) * p.w + w) * p.c + k / filters * channels + c);
                const auto weight = static_cast<std::size_t>(((k * p.r + r) * p.s + s) * channels + c);
                const auto y = static_cast<std::size_t>(((n * p.p + i) * p.q + j) * p.k + k);
                const auto product = [&](std::size_t l, std::size_t m) { return static_cast<__int128>(a[l]) * b[m]; };
                if (direction == Direction::forward) sums[y] += product(x, weight);
                if (direction == Direction::d_input) sums[x] += product(y, weight);
                if (direction == Direction::d_weight) sums[weight] += product(x, y);
              }
  return sums;
}

/// sum / 2^bits to the nearest, ties to even, within 32 bits.
std::int32_t rounded(__int128 sum, int bits) {
  const __int128 whole = sum >> bits, rest = sum - (whole << bits), half = static_cast<__int128>(1) << (bits - 1);
  const __int128 code = whole + (rest > half || (rest == half && (whole & 1)));
  return static_cast<std::int32_t>(std::min<__int128>(std::max<__int128>(code, INT32_MIN), INT32_MAX));
}

struct Case {
  ConvProblem problem;
  Direction direction;
  std::int64_t left, right, result;

  Convolution convolution(const Storage& storage) const {
    return {
        problem, direction, {{{{1, 1, 1, left}, storage}, {{1, 1, 1, right}, storage}}, {{1, 1, 1, result}, storage}}};
  }
  Codes run(const Launch& launch, Codes a, Codes b) const {
    Codes y(static_cast<std::size_t>(result), -1);
    std::vector<std::byte> workspace(launch.workspace);
    StepState state;
    const Memory inputs[] = {{a.data()}, {b.data()}}, output{y.data()};
    launch.run({inputs, {&output, 1}, workspace.data(), &state});
    return y;
  }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const ConvProblem& p : {ConvProblem{.n = 3, .c = 70, .k = 11},
                               ConvProblem{.n = 2,
                               .h = 7,
                               .w = 6,
                               .c = 4,
                               .k = 6,
                               .r = 3,
                               .s = 3,
                               .p = 4,
                               .q = 3,
                               .stride_h = 2,
                               .stride_w = 2,
                               .pad_h = 1,
                               .pad_w = 1,
                               .groups = 2},
                               ConvProblem{.n = 2,
                               .h = 9,
                               .w = 8,
                               .c = 3,
                               .k = 5,
                               .r = 3,
                               .s = 2,
                               .p = 5,
                               .q = 8,
                               .pad_h = 0,
                               .pad_w = 1,
                               .dilation_h = 2,
                               .dilation_w = 2}}) {
    const std::int64_t x = p.n * p.h * p.w * p.c, w = p.k * p.r * p.s * p.c / p.groups, y = p.n * p.p * p.q * p.k;
    all.insert(all.end(),
               {{p, Direction::forward, x, w, y}, {p, Direction::d_input, y, w, x}, {p, Direction::d_weight, x, y, w}});
  }
  return all;
}

/// Up to 128 products below 2^39 sum to less than 2^46: exact in f64, while f32 keeps 24 bits of them.
TEST(WideConvolution, SumsWhereNoF32Could) {
  const Storage storage = Storage::fixed(16, 16);
  std::mt19937 random(1);
  for (const Case& c : cases()) {
    Codes a(static_cast<std::size_t>(c.left)), b(static_cast<std::size_t>(c.right));
    for (auto& x : a) x = static_cast<std::int32_t>(random() % (1u << 24)) - (1 << 23);
    for (auto& x : b) x = static_cast<std::int32_t>(random() % (1u << 17)) - (1 << 16);
    Codes expected;
    for (const __int128 sum : sums_of(c.problem, c.direction, a, b, c.result)) expected.push_back(rounded(sum, 16));
    ASSERT_EQ(decline_wide(c.convolution(storage)), "");
    for (const Isa isa : all_isas) {
      if (!supported(isa)) continue;
      for (const int threads : {1, 3})
        EXPECT_EQ(c.run(wide(c.convolution(storage), isa, threads), a, b), expected) << name_of(isa);
    }
    const Codes in_f32 = c.run(implicit_gemm(c.convolution(storage), best_isa(), 1), a, b);
    std::size_t differ = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) differ += in_f32[i] != expected[i];
    EXPECT_GT(differ, expected.size() / 10);  // the control
  }
}

/// Operands on grids of their own, 24 bits wide, with bias and relu, rounded by chance, and counted.
TEST(WideConvolution, FinishesInTheResultsOwnGrid) {
  const Case forward = cases()[3];
  const Storage left = Storage::fixed(8, 16), right = Storage::fixed(20, 10), bias = Storage::fixed(16, 12);
  Storage result = Storage::fixed(9, 8 + 12, Rounding::stochastic);
  result.noticed = true;
  Convolution convolution = forward.convolution(result);
  convolution.operands.inputs[0].storage = left;
  convolution.operands.inputs[1].storage = right;
  convolution.operands.inputs.push_back({{1, 1, 1, forward.problem.k}, bias});
  convolution.activation = Relu{};
  ASSERT_EQ(decline_wide(convolution), "");
  std::mt19937 random(2);
  Codes a(static_cast<std::size_t>(forward.left)), b(static_cast<std::size_t>(forward.right)),
      offsets(static_cast<std::size_t>(forward.problem.k)), y(static_cast<std::size_t>(forward.result), -1);
  for (Codes* codes : {&a, &b, &offsets})
    for (auto& x : *codes) x = static_cast<std::int32_t>(random() % (1u << 17)) - (1 << 16);
  const auto sums = sums_of(forward.problem, forward.direction, a, b, forward.result);
  StepState state;
  RangeState range;
  Memory output{y.data()};
  output.range = &range;
  output.stream = 9;
  const Memory inputs[] = {{a.data()}, {b.data()}, {offsets.data()}};
  for (const Isa isa : all_isas) {
    if (!supported(isa)) continue;
    range = {};
    const Launch launch = wide(convolution, isa, 3);
    std::vector<std::byte> workspace(launch.workspace);
    launch.run({inputs, {&output, 1}, workspace.data(), &state});
    const RandomKey key = state.key(output.stream);
    Noticed expected;
    for (std::size_t i = 0; i < y.size(); ++i) {
      const auto k = i % static_cast<std::size_t>(forward.problem.k);
      // In units of 2^-26; a code is 2^-20.
      const __int128 sum = std::max<__int128>(0, sums[i] + static_cast<__int128>(offsets[k]) * (1 << 14));
      const __int128 whole = sum >> 6;
      const bool up = key.uniform(static_cast<std::int64_t>(i)) < static_cast<float>(sum - (whole << 6)) / 64;
      const auto code = std::min<__int128>(whole + up, (1 << 28) - 1);
      ASSERT_EQ(y[i], static_cast<std::int32_t>(code)) << i << " on " << name_of(isa);
      ++expected.count;
      expected.zeros += sum == 0;
      expected.saturated += sum >= (static_cast<__int128>((1 << 28) - 1) << 6);
    }
    EXPECT_EQ(range.noticed.count, expected.count);
    EXPECT_EQ(range.noticed.zeros, expected.zeros);
    EXPECT_NEAR(static_cast<double>(range.noticed.saturated), static_cast<double>(expected.saturated), 1);
    EXPECT_GT(expected.zeros, 0) << "the relu is at work";
  }
}

TEST(WideConvolution, TakesNothingElse) {
  const Case c = cases()[0];
  EXPECT_NE(decline_wide(c.convolution(DType::f32)), "");
  EXPECT_NE(decline_wide(c.convolution(Storage::fixed(6, 10))), "");
  Convolution smooth = c.convolution(Storage::fixed(16, 16));
  smooth.activation = Relu{};
  EXPECT_EQ(decline_wide(smooth), "");
  smooth.activation = Gelu{};
  EXPECT_NE(decline_wide(smooth), "");
  EXPECT_TRUE(is_wide(smooth.operands)) << "nor does the engine take it, so nothing is fused";
}

}  // namespace
}  // namespace halftone::cpu
