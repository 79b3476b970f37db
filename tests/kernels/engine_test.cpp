#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "tests/kernels/convolution_work.hpp"

namespace halftone::cpu {
namespace {

std::vector<ConvProblem> problems() {
  std::vector<ConvProblem> all = {
      {},
      {.n = 2, .h = 28, .w = 28, .c = 1, .k = 6, .r = 5, .s = 5, .pad_h = 2, .pad_w = 2},
      {.n = 3, .h = 14, .w = 14, .c = 6, .k = 16, .r = 5, .s = 5},
      {.n = 2, .h = 9, .w = 7, .c = 3, .k = 17, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1},
      {.n = 1, .h = 15, .w = 17, .c = 3, .k = 9, .r = 7, .s = 7, .stride_h = 2, .stride_w = 2, .pad_h = 3, .pad_w = 3},
      {.n = 13, .h = 4, .w = 4, .c = 40, .k = 33, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1},
      {.n = 2, .h = 6, .w = 5, .c = 64, .k = 48, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1},
      {.n = 2, .h = 7, .w = 9, .c = 5, .k = 4, .r = 1, .s = 1, .stride_h = 2, .stride_w = 2},
      {.n = 2, .h = 9, .w = 11, .c = 18, .k = 7, .r = 3, .s = 3, .stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1},
      {.n = 1,
       .h = 21,
       .w = 34,
       .c = 3,
       .k = 100,
       .r = 3,
       .s = 3,
       .stride_h = 2,
       .stride_w = 2,
       .pad_h = 1,
       .pad_w = 1},
      {.n = 1, .h = 11, .w = 13, .c = 4, .k = 5, .r = 4, .s = 3, .stride_h = 3, .stride_w = 3, .pad_h = 2, .pad_w = 1},
      {.n = 1, .h = 12, .w = 8, .c = 2, .k = 3, .r = 2, .s = 2, .stride_h = 3, .stride_w = 2},
      {.n = 2,
       .h = 10,
       .w = 9,
       .c = 6,
       .k = 8,
       .r = 3,
       .s = 3,
       .pad_h = 2,
       .pad_w = 2,
       .dilation_h = 2,
       .dilation_w = 2},
      {.n = 1,
       .h = 13,
       .w = 12,
       .c = 3,
       .k = 5,
       .r = 3,
       .s = 2,
       .stride_h = 2,
       .stride_w = 3,
       .pad_h = 1,
       .pad_w = 2,
       .dilation_h = 3,
       .dilation_w = 2},
      {.n = 2, .h = 5, .w = 8, .c = 3, .k = 4, .r = 1, .s = 3, .pad_w = 1},
      {.n = 1, .h = 4, .w = 5, .c = 2, .k = 3, .r = 3, .s = 3, .pad_h = 5, .pad_w = 4},
      {.n = 1, .h = 3, .w = 3, .c = 2, .k = 20, .r = 3, .s = 3, .stride_h = 2, .stride_w = 1, .pad_h = 4, .pad_w = 6},
      {.n = 2, .h = 6, .w = 6, .c = 6, .k = 10, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1, .groups = 2},
      {.n = 1,
       .h = 7,
       .w = 6,
       .c = 8,
       .k = 8,
       .r = 3,
       .s = 3,
       .stride_h = 2,
       .stride_w = 2,
       .pad_h = 1,
       .pad_w = 1,
       .groups = 8},
      {.n = 1, .h = 6, .w = 5, .c = 3, .k = 6, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1, .groups = 3},
      {.n = 1, .h = 2, .w = 301, .c = 2, .k = 9, .r = 2, .s = 3, .pad_w = 1},
      {.n = 1, .h = 2, .w = 250, .c = 9, .k = 2, .r = 2, .s = 2, .pad_h = 1},
      {.n = 1, .h = 20, .w = 21, .c = 1, .k = 2, .r = 19, .s = 19},
      {.n = 1, .h = 1, .w = 310, .c = 2, .k = 3, .r = 1, .s = 301, .pad_w = 2},
      {.n = 2, .h = 9, .w = 10, .c = 40, .k = 33, .r = 3, .s = 3},
      {.n = 2, .h = 8, .w = 14, .c = 16, .k = 32, .stride_h = 2, .stride_w = 2},
      {.n = 3, .h = 1, .w = 1, .c = 20, .k = 18, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1},
      {.n = 1, .h = 2, .w = 7, .c = 1024, .k = 16},
      {.n = 2, .h = 3, .w = 3, .c = 512, .k = 16, .stride_h = 2, .stride_w = 2},
      {.n = 3, .h = 1, .w = 1, .c = 3, .k = 9, .r = 3, .s = 3, .stride_h = 2, .stride_w = 2, .pad_h = 2, .pad_w = 2},
      {.n = 1, .h = 20, .w = 66, .c = 3, .k = 100, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1},
      {.n = 2, .h = 9, .w = 3, .c = 3, .k = 300, .r = 3, .s = 2, .stride_h = 2},
      {.n = 1, .h = 11, .w = 6, .c = 5, .k = 4, .r = 3, .s = 3, .stride_h = 2, .dilation_h = 2},
      {.n = 1, .h = 41, .w = 9, .c = 5, .k = 4, .r = 3, .s = 3, .stride_h = 2, .pad_h = 3, .dilation_h = 3},
      {.n = 2, .h = 17, .w = 20, .c = 3, .k = 64, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1},
      {.n = 2, .h = 21, .w = 37, .c = 3, .k = 32, .r = 3, .s = 3, .stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1},
      {.n = 2, .h = 9, .w = 23, .c = 4, .k = 96, .r = 3, .s = 3, .pad_h = 2, .dilation_h = 2, .groups = 2},
      {.n = 1, .h = 9, .w = 40, .c = 1, .k = 48, .r = 5, .s = 5, .pad_w = 4, .dilation_w = 2},
      {.n = 2, .h = 12, .w = 22, .c = 3, .k = 32, .r = 3, .s = 3},
      {.n = 1, .h = 2, .w = 320, .c = 1, .k = 32, .r = 1, .s = 301},
      {.n = 1, .h = 2, .w = 250, .c = 3, .k = 32, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1},
      {.n = 3, .h = 50, .w = 29, .c = 1, .k = 6, .r = 5, .s = 5, .pad_h = 2, .pad_w = 2},
      {.n = 2, .h = 7, .w = 17, .c = 3, .k = 8, .r = 3, .s = 3, .pad_h = 2, .pad_w = 2, .dilation_w = 2},
      {.n = 2, .h = 8, .w = 35, .c = 2, .k = 7, .r = 3, .s = 3},
      {.n = 2, .h = 3, .w = 1400, .c = 1, .k = 3, .r = 2, .s = 3, .pad_h = 1},
  };
  for (std::int64_t k : {1, 2, 4, 5})
    all.push_back({.n = 2, .h = 9, .w = 20, .c = 1, .k = k, .r = 5, .s = 5, .pad_h = 1});
  for (std::int64_t n : {1, 95, 96, 97, 121}) all.push_back(dense(n, 5, 3));
  for (std::int64_t size : {11, 12, 13, 15, 16, 17, 31, 32, 33}) all.push_back(dense(7, size, size));
  for (std::int64_t depth : {287, 288, 289}) all.push_back(dense(3, depth, 2));
  all.push_back(dense(2, 2, 289));
  for (ConvProblem& problem : all) problem = sized(problem);
  return all;
}

TEST(ConvolutionEngine, SmallIntegersEqualTheReference) {
  int in_columns = 0;
  std::mt19937 random(1);
  const auto number = [&] { return static_cast<float>(static_cast<int>(random() % 5)) - 2.0f; };
  for (const ConvProblem& problem : problems()) {
    for (Direction direction : directions) {
      for (DType dtype : {DType::f32, DType::f16, DType::bf16}) {
        const Work work = make_work(problem, direction, dtype, number);
        const auto expected = stored(dtype, work.exact());
        for (Isa isa : usable_isas()) {
          ASSERT_EQ(work.engine(isa, 1), expected) << describe(work, isa);
          const auto columns = work.in_columns(isa, 1, dtype);
          ASSERT_EQ(columns.value_or(expected), expected) << describe(work, isa);
          in_columns += columns.has_value();
        }
        if (!decline_pairs(work.convolution(dtype)).empty()) continue;
        for (PairUnit unit : usable_units()) ASSERT_EQ(work.in_pairs(unit, 2), expected) << describe(work, unit);
      }
    }
  }
  EXPECT_GT(in_columns, 50);
}

/// The error of a sum of R rounded products is below (6 sqrt(R) + 1) u sum |ab| but with probability 2 exp(-18) (Higham
/// and Mary 2019, u = 2^-24), then it is rounded to the format.
TEST(ConvolutionEngine, RandomNumbersStayWithinTheBound) {
  std::mt19937 random(2);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (const ConvProblem& problem :
       {sized({.n = 4, .h = 9, .w = 8, .c = 70, .k = 40, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1}),
        sized({.n = 3, .h = 17, .w = 12, .c = 1, .k = 6, .r = 5, .s = 5, .pad_h = 2, .pad_w = 2}),
        dense(130, 600, 20)}) {
    for (Direction direction : directions) {
      for (DType dtype : {DType::f32, DType::f16, DType::bf16}) {
        Work work = make_work(problem, direction, dtype, [&] { return uniform(random); });
        const auto exact = work.exact();
        Work magnitudes = work;
        for (auto* values : {&magnitudes.left, &magnitudes.right, &magnitudes.bias})
          for (float& x : *values) x = std::abs(x);
        const auto scale = magnitudes.exact();
        const float roots = 6 * std::sqrt(static_cast<float>(sizes(problem, direction).terms + 1)) + 1;
        const auto check = [&](const std::vector<std::byte>& result, auto how) {
          const auto got = read(dtype, work.result_count(), result);
          for (std::size_t i = 0; i < got.size(); ++i) {
            const float rounding = dtype == DType::f32 ? 0 : 0.51f * epsilon_of(dtype) * std::abs(exact[i]) + 0x1p-25f;
            ASSERT_LE(std::abs(got[i] - exact[i]), roots * 0x1p-24f * scale[i] + rounding)
                << describe(work, how) << " at " << i;
          }
        };
        for (Isa isa : usable_isas()) {
          check(work.engine(isa, 2), isa);
          if (const auto result = work.in_columns(isa, 2, dtype)) check(*result, isa);
        }
        if (dtype != DType::bf16) continue;
        for (PairUnit unit : usable_units()) check(work.in_pairs(unit, 2), unit);
      }
    }
  }
}

TEST(ConvolutionEngine, BitsDoNotDependOnThreads) {
  std::mt19937 random(3);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (const ConvProblem& problem :
       {sized({.n = 5,
       .h = 10,
       .w = 9,
       .c = 24,
       .k = 20,
       .r = 3,
       .s = 3,
       .stride_h = 2,
       .stride_w = 2,
       .pad_h = 1,
       .pad_w = 1}),
        sized({.n = 9, .h = 28, .w = 28, .c = 1, .k = 6, .r = 5, .s = 5, .pad_h = 2, .pad_w = 2}),
        sized({.n = 40, .h = 16, .w = 16, .c = 16, .k = 16, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1}),
        sized({.n = 2, .h = 40, .w = 66, .c = 3, .k = 100, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1}),
        sized({.n = 2, .h = 40, .w = 66, .c = 3, .k = 64, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1}),
        dense(300, 77, 50)}) {
    for (Direction direction : directions) {
      const Work work = make_work(problem, direction, DType::f32, [&] { return uniform(random); });
      for (Isa isa : usable_isas()) {
        const auto one = work.engine(isa, 1);
        for (int threads : {2, 3}) {
          ASSERT_EQ(work.engine(isa, threads), one) << describe(work, isa);
          ASSERT_EQ(work.in_columns(isa, threads, DType::f32), work.in_columns(isa, 1, DType::f32))
              << describe(work, isa);
        }
      }
    }
  }
}

void expect_reference(const Work& work) {
  const auto expected = work.exact();
  const auto check = [&](const std::vector<std::byte>& result, Isa isa) {
    const auto got = read(DType::f32, work.result_count(), result);
    for (std::size_t i = 0; i < got.size(); ++i)
      ASSERT_TRUE(got[i] == expected[i] || (std::isnan(got[i]) && std::isnan(expected[i])))
          << describe(work, isa) << " at " << i << ": " << got[i] << " for " << expected[i];
  };
  for (Isa isa : usable_isas()) {
    check(work.engine(isa, 2), isa);
    if (const auto result = work.in_columns(isa, 2, DType::f32)) check(*result, isa);
  }
}

TEST(ConvolutionEngine, InfinityAndNanSpreadAsInTheReference) {
  std::mt19937 random(4);
  constexpr float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const float marker = bit_cast<float>(0x7fedc0deu);  // as the kernels mark padding
  for (const ConvProblem& problem :
       {sized({.n = 2, .h = 7, .w = 6, .c = 20, .k = 9, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1}),
        sized({.n = 2, .h = 6, .w = 7, .c = 2, .k = 3, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1}),
        sized({.n = 2, .h = 6, .w = 7, .c = 3, .k = 64, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1}),
        sized({.n = 2, .h = 6, .w = 18, .c = 3, .k = 32, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1}),
        sized({.n = 2, .h = 6, .w = 3, .c = 1, .k = 10, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1}),
        sized({.n = 2, .h = 9, .w = 24, .c = 1, .k = 6, .r = 5, .s = 5}),
        sized({.n = 1,
        .h = 9,
        .w = 8,
        .c = 3,
        .k = 4,
        .r = 3,
        .s = 3,
        .stride_h = 2,
        .stride_w = 2,
        .pad_h = 2,
        .pad_w = 2})}) {
    for (Direction direction : directions) {
      for (float special : {infinity, -infinity, nan, marker}) {
        for (int side : {0, 1, 2}) {
          Work work = make_work(problem, direction, DType::f32, [&] { return static_cast<float>(1 + random() % 3); });
          if (side != 1) work.left[0] = work.left[work.left.size() / 2] = special;
          if (side != 0) work.right[0] = work.right[work.right.size() / 2] = special;
          expect_reference(work);
        }
      }
    }
  }
}

/// 600 features are summed in parts, of which the first leaves the range together with the bias.
TEST(ConvolutionEngine, BiasIsAddedToTheWholeSum) {
  Work work = make_work(dense(3, 600, 9), Direction::forward, DType::f32, [] { return 0.0f; });
  for (std::size_t i = 0; i < work.left.size(); i += 100) work.left[i] = 1;
  for (std::size_t i = 0; i < work.right.size(); i += 600) work.right[i] = 1e38f, work.right[i + 500] = -2e38f;
  work.bias.assign(work.bias.size(), 3e38f);
  EXPECT_EQ(work.exact()[0], 3e38f - 1e38f);
  expect_reference(work);
}

/// 52 blocks of two rows, 32 of them to a chain: an infinite gradient beside padding late in the first and in the
/// second chain.
TEST(ConvolutionEngine, InfinitySpreadsFromAnyChainOfAWeightGradient) {
  std::mt19937 random(5);
  for (const std::int64_t k : {6, 10, 32}) {
    const std::int64_t images = k == 6 ? 52 : 1;  // with so few filters a block is as much as an image of two rows
    const ConvProblem problem =
        sized({.n = images, .h = 104 / images, .w = 104, .c = 1, .k = k, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1});
    for (const std::int64_t row : {20, 62, 103}) {
      Work work = make_work(problem, Direction::d_weight, DType::f32, [&] { return static_cast<float>(random() % 3); });
      work.right[static_cast<std::size_t>(row * 104 * k)] = std::numeric_limits<float>::infinity();
      expect_reference(work);
    }
  }
}

/// Equal terms: the error of one chain of n sums grows with n. Here at most 192 pixels are summed at a time, then such
/// sums, 32 at a time, and at most 32 splits of them; or lines of 16 pixels or more, 12 x 32 at a time; or 1024 pixels
/// in the lanes of a vector, 4 or more: (256 + 384 + 32) 2^-24 of the sum bounds each.
TEST(ConvolutionEngine, LongSumsAreMadeOfShortOnes) {
  for (const ConvProblem& problem :
       {dense(4096, 3, 5), dense(65536, 3, 5), dense(20000, 300, 20),
        sized({.n = 64, .h = 32, .w = 32, .c = 3, .k = 16, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1}),
        sized({.n = 160, .h = 40, .w = 20, .c = 3, .k = 32, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1}),
        sized({.n = 160, .h = 32, .w = 32, .c = 3, .k = 4, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1})})
    for (Isa isa : usable_isas()) {
      const Work work = make_work(problem, Direction::d_weight, DType::f32, [] { return 0.1f; });
      const auto got = read(DType::f32, work.result_count(), work.engine(isa, 2));
      const double terms = static_cast<double>(sizes(problem, Direction::d_weight).terms);
      const std::size_t middle = got.size() / 2 - got.size() / 2 % 27 + 13 * (problem.r == 3);
      EXPECT_NEAR(got[middle] / (terms * 0.1f * 0.1f), 1, 672 * 0x1p-24) << describe(work, isa);
    }
}

TEST(ConvolutionEngine, StoragesMayDifferByOperand) {
  const ConvProblem problem = sized({.n = 2, .h = 6, .w = 6, .c = 4, .k = 5, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1});
  std::mt19937 random(5);
  const auto number = [&] { return static_cast<float>(static_cast<int>(random() % 5)) - 2.0f; };
  const Work work = make_work(problem, Direction::forward, DType::f32, number);
  const std::vector<Storage> storages = {DType::u8, Storage::blocks(DType::e2m1, 32), DType::sign};
  const std::vector<float>* values[] = {&work.left, &work.right, &work.bias};
  Convolution c{problem, Direction::forward, {{}, {{problem.n, problem.p, problem.q, problem.k}, DType::bf16}}};
  std::vector<std::vector<std::byte>> operands;
  std::vector<Memory> inputs;
  for (std::size_t i = 0; i < 3; ++i) {
    c.operands.inputs.push_back({{1, 1, 1, std::ssize(*values[i])}, storages[i]});
    operands.push_back(stored(storages[i], *values[i]));
  }
  for (auto& operand : operands) inputs.push_back({operand.data()});
  const auto result = [&](const Launch& launch) {
    std::vector<std::byte> y(c.operands.output.tensor().bytes()), workspace(launch.workspace);
    const Memory output{y.data()};
    launch.run({inputs, {&output, 1}, workspace.data()});
    return y;
  };
  EXPECT_EQ(result(implicit_gemm(c, best_isa(), 1)), result(reference(c)));
}

/// Where most products of a tile would be with padding or between strides; by shape and option alone.
TEST(Col2im, IsChosenWhereTapsFindNoInput) {
  const auto chosen = [](const ConvProblem& problem, const std::string& algorithms = "fastest") {
    const ConvProblem p = sized(problem);
    const Device device = cpu_device({.isa = name_of(usable_isas().back()), .algorithms = algorithms});
    const Conv2dDInput op({p.stride_h, p.pad_h}, {static_cast<int>(p.h), static_cast<int>(p.w)});
    const std::vector<ValueSpec> in = {{{p.n, p.p, p.q, p.k}}, {{p.k, p.r, p.s, p.c}}}, out = {{{p.n, p.h, p.w, p.c}}};
    return choose_kernel({op, in, out, device}).kernel;
  };
  ConvProblem lenet{.h = 14, .w = 14, .c = 6, .k = 16, .r = 5, .s = 5};
  for (const std::int64_t n : {1, 128}) {
    lenet.n = n;
    EXPECT_EQ(chosen(lenet), "conv2d_d_input/col2im");
    EXPECT_EQ(chosen(lenet, "direct"), "conv2d_d_input/col2im");
  }
  const ConvProblem strided{.n = 8,
                            .h = 32,
                            .w = 32,
                            .c = 64,
                            .k = 128,
                            .r = 3,
                            .s = 3,
                            .stride_h = 2,
                            .stride_w = 2,
                            .pad_h = 1,
                            .pad_w = 1};
  EXPECT_EQ(chosen(strided), "conv2d_d_input/col2im");
  EXPECT_EQ(chosen({.n = 8, .h = 8, .w = 8, .c = 64, .k = 64}), "conv2d_d_input/implicit_gemm");
  EXPECT_EQ(chosen({.n = 8, .h = 8, .w = 8, .c = 64, .k = 64, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1}),
            "conv2d_d_input/winograd");
}

/// A convolution whose codes are multiplied and summed as integers; each result is rounded once.
Launch integer(const Convolution& convolution) {
  return {[convolution](const Arguments& arguments) {
    const ConvProblem& p = convolution.problem;
    const Operands& operands = convolution.operands;
    const Direction direction = convolution.direction;
    const auto number = [&](std::size_t input, std::int64_t i, bool as_code) {
      Storage storage = operands.inputs[input].storage;
      if (as_code) storage.scaling = Scaling::none;
      return read_number(storage, arguments.in<std::byte>(input), operands.inputs[input].shape.elements(), i);
    };
    std::vector<std::int64_t> sums(static_cast<std::size_t>(operands.output.shape.elements()));
    const std::int64_t channels = p.c / p.groups, filters = p.k / p.groups;
    const auto add = [&](std::int64_t x, std::int64_t w, std::int64_t y) {
      const auto [left, right, result] = direction == Direction::forward   ? std::array{x, w, y}
                                         : direction == Direction::d_input ? std::array{y, w, x}
                                                                           : std::array{x, y, w};
      sums[static_cast<std::size_t>(result)] +=
          static_cast<std::int64_t>(number(0, left, true)) * static_cast<std::int64_t>(number(1, right, true));
    };
    for (std::int64_t y = 0; y < p.n * p.p * p.q * p.k; ++y)
      for (std::int64_t t = 0; t < p.r * p.s; ++t) {
        const std::int64_t k = y % p.k, j = y / p.k % p.q, i = y / p.k / p.q % p.p, n = y / p.k / p.q / p.p;
        const std::int64_t h = i * p.stride_h - p.pad_h + t / p.s * p.dilation_h;
        const std::int64_t w = j * p.stride_w - p.pad_w + t % p.s * p.dilation_w;
        if (h < 0 || h >= p.h || w < 0 || w >= p.w) continue;
        for (std::int64_t c = 0; c < channels; ++c)
          add(((n * p.h + h) * p.w + w) * p.c + k / filters * channels + c, (k * p.r * p.s + t) * channels + c, y);
      }
    const double scale = std::ldexp(1.0, operands.inputs[0].storage.exponent + operands.inputs[1].storage.exponent);
    std::vector<float> results;
    for (std::size_t i = 0; i < sums.size(); ++i) {
      const std::int64_t terms = operands.inputs.size() > 2 ? operands.inputs[2].shape.elements() : 1;
      const double bias = operands.inputs.size() > 2 ? number(2, static_cast<std::int64_t>(i) % terms, false) : 0;
      const double exact = static_cast<double>(sums[i]) * scale + bias;
      float cut = static_cast<float>(exact);
      if (std::abs(cut) > std::abs(exact)) cut = std::nextafter(cut, 0.0f);
      if (cut != exact) cut = bit_cast<float>(bit_cast<std::uint32_t>(cut) | 1u);  // rounds as `exact` does
      results.push_back(convolution.activation ? Relu{}.value(cut) : cut);
    }
    const Storage& storage = operands.output.storage;
    const bool random = storage.rounding == Rounding::stochastic;
    write_numbers(storage, arguments.out<std::byte>(0), std::ssize(results), 0, std::ssize(results), results.data(),
                  random ? arguments.key(arguments.outputs[0]) : RandomKey{});
  }};
}

/// Codes up to 15 with sums of at most 1500 products: all exact in f32. Results keep fewer bits than the sums have.
TEST(IntegerConvolution, HasTheBitsOfTheEngineWhereF32IsExact) {
  std::mt19937 random(6);
  const auto number = [&] { return static_cast<float>(static_cast<int>(random() % 31) - 15) * 0x1p-6f; };
  for (const ConvProblem& problem : problems()) {
    for (Direction direction : directions) {
      const Work work = make_work(problem, direction, Storage::fixed(10, 6), number);
      for (Rounding rounding : {Rounding::nearest, Rounding::stochastic, Rounding::toward_zero}) {
        const Storage result = Storage::fixed(3, 5, rounding);
        const Convolution convolution = work.convolution(result);
        const auto expected = work.run(integer(convolution), result);
        ASSERT_EQ(work.run(reference(convolution), result), expected);
        for (Isa isa : usable_isas()) {
          ASSERT_EQ(work.run(implicit_gemm(convolution, isa, 2), result), expected) << describe(work, isa);
          ASSERT_EQ(work.in_columns(isa, 2, result).value_or(expected), expected) << describe(work, isa);
        }
      }
    }
  }
}

/// 16384^2 + 1 codes, of which a result counts 2^29 as one: just above one half, also where f32 says one half.
TEST(IntegerConvolution, RoundsOnce) {
  Storage operand(DType::i16), result(DType::i8);
  operand.scaling = result.scaling = Scaling::constant;
  operand.exponent = -3, result.exponent = 29 - 6;
  Work work{dense(1, 2, 1), Direction::forward, operand, {2048, 0.125f}, {2048, 0.125f}, {0}};
  const Convolution convolution = work.convolution(result);
  for (const Launch& launch : {integer(convolution), reference(convolution)})
    EXPECT_EQ(work.run(launch, result)[0], std::byte{1});
  EXPECT_EQ(work.run(implicit_gemm(convolution, best_isa(), 1), result)[0], std::byte{0});  // the negative control
}

}  // namespace
}  // namespace halftone::cpu
