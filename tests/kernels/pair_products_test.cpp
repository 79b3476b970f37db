#include "kernels/cpu/pair_products.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "tests/kernels/convolution_work.hpp"

namespace halftone::cpu {
namespace {

using Codes = std::vector<std::uint16_t>;

/// What the manual says of one sum: its pairs one after another, of each the second product first.
float dot(const std::vector<float>& a, const std::vector<float>& b) {
  float sum = 0;
  for (std::size_t i = 0; i < a.size(); i += 2) sum = std::fma(a[i], b[i], std::fma(a[i + 1], b[i + 1], sum));
  return sum;
}

/// The manual again: 32 products are a chain of the first and a chain of the second numbers of all pairs.
float tile(const std::vector<float>& a, const std::vector<float>& b, float sum) {
  for (std::size_t i = 0; i < a.size(); i += 32) {
    float first = 0, second = 0;
    for (std::size_t j = i; j < i + 32; j += 2)
      first = std::fma(a[j], b[j], first), second = std::fma(a[j + 1], b[j + 1], second);
    sum += first + second;
  }
  return sum;
}

/// A product of matrices, with numbers behind the rows of a that must not matter.
struct Product {
  std::int64_t rows, panels, depth, a_stride = depth + 32, c_stride = panels * PairProducts::width + 16;
  Codes a = Codes(static_cast<std::size_t>((rows + PairProducts::tile) * a_stride), 0x7fc0);
  Codes b = Codes(static_cast<std::size_t>(panels * PairProducts::width * depth));

  Product(std::int64_t m, std::int64_t n, std::int64_t k, const std::function<std::uint16_t()>& code)
      : rows(m), panels(n), depth(k) {
    for (std::int64_t i = 0; i < rows; ++i) std::generate_n(a.begin() + i * a_stride, depth, code);
    std::generate(b.begin(), b.end(), code);
  }
  std::vector<float> row(std::int64_t i) const {
    std::vector<float> numbers;
    for (std::int64_t d = 0; d < depth; ++d)
      numbers.push_back(BF16::decode(a[static_cast<std::size_t>(i * a_stride + d)]));
    return numbers;
  }
  std::vector<float> col(std::int64_t j) const {
    constexpr std::int64_t width = PairProducts::width;
    std::vector<float> numbers;
    for (std::int64_t d = 0; d < depth; ++d)
      numbers.push_back(
          BF16::decode(b[static_cast<std::size_t>((j / width * depth + d / 2 * 2) * width + j % width * 2 + d % 2)]));
    return numbers;
  }
  std::vector<float> operator()(PairUnit unit, Isa isa, bool add) const {
    std::vector<float> c(static_cast<std::size_t>(rows * c_stride), 0.25f);
    pair_products(isa, unit).multiply(rows, panels, depth, a.data(), a_stride, b.data(), add, c.data(), c_stride);
    return c;
  }
};

bool is_tile(PairUnit unit) { return unit == PairUnit::tile || unit == PairUnit::emulated_tile; }

TEST(PairProducts, HaveTheBitsOfTheirDefinition) {
  std::mt19937 random(1);
  const auto code = [&] { return BF16::encode(static_cast<float>(random() % 2001) / 777.0f - 1.3f); };
  for (std::int64_t rows : {1, 11, 12, 13, 15, 16, 17, 31, 32, 33, 50})
    for (std::int64_t panels : {1, 2, 3})
      for (std::int64_t depth : {32, 96}) {
        const Product product(rows, panels, depth, code);
        for (PairUnit unit : usable_units())
          for (bool add : {false, true}) {
            const auto c = product(unit, best_isa(), add);
            for (std::int64_t i = 0; i < rows; ++i)
              for (std::int64_t j = 0; j < product.c_stride; ++j) {
                float expected = 0.25f;
                if (j < panels * PairProducts::width) {
                  const float before = add ? 0.25f : 0;
                  expected = is_tile(unit) ? tile(product.row(i), product.col(j), before)
                                           : before + dot(product.row(i), product.col(j));
                }
                ASSERT_EQ(c[static_cast<std::size_t>(i * product.c_stride + j)], expected)
                    << static_cast<int>(unit) << ' ' << rows << ' ' << panels << ' ' << depth << ": " << i << ' ' << j;
              }
          }
      }
}

/// Numbers below 2, subnormal ones too. Where a product is below f32's range, the sign of a zero may differ.
TEST(PairProducts, EmulationsEqualTheInstructions) {
  std::mt19937 random(2);
  for (auto [unit, emulated] :
       {std::pair{PairUnit::dot, PairUnit::emulated_dot}, std::pair{PairUnit::tile, PairUnit::emulated_tile}}) {
    if (!supported(unit)) continue;
    for (int mask : {0x80ff, 0xa0ff, 0xbfff}) {
      const Product product(64, 2, 32, [&] { return static_cast<std::uint16_t>(random() & mask); });
      const auto expected = product(unit, best_isa(), false);
      for (Isa isa : usable_isas()) {
        const auto c = product(emulated, isa, false);
        for (std::size_t i = 0; i < c.size(); ++i) ASSERT_EQ(c[i], expected[i]) << mask << ' ' << name_of(isa);
      }
    }
  }
}

TEST(PairProducts, TakeSubnormalNumbersForZero) {
  const std::uint16_t one = BF16::encode(1.0f), subnormal = 0x0040;
  for (PairUnit unit : usable_units()) {
    Product product(1, 1, 32, [] { return std::uint16_t{0}; });
    product.a[0] = one, product.b[0] = subnormal;
    EXPECT_EQ(product(unit, best_isa(), false)[0], 0.0f);
    product.b[0] = 0x0080;  // the smallest normal number: the negative control
    EXPECT_EQ(product(unit, best_isa(), false)[0], std::numeric_limits<float>::min());
  }
}

TEST(ConvolutionInPairs, InfinityAndNanSpreadAsInTheReference) {
  std::mt19937 random(4);
  constexpr float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const ConvProblem& problem :
       {sized({.n = 3, .h = 7, .w = 6, .c = 20, .k = 9, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1}),
        sized({.n = 2,
        .h = 9,
        .w = 8,
        .c = 3,
        .k = 34,
        .r = 3,
        .s = 3,
        .stride_h = 2,
        .stride_w = 2,
        .pad_h = 2,
        .pad_w = 2}),
        dense(130, 300, 20)})
    for (Direction direction : directions)
      for (float special : {infinity, -infinity, nan})
        for (int side : {0, 1, 2}) {
          Work work = make_work(problem, direction, DType::bf16, [&] { return static_cast<float>(1 + random() % 3); });
          if (side != 1) work.left[0] = work.left[work.left.size() / 2] = special;
          if (side != 0) work.right[0] = work.right[work.right.size() / 2] = special;
          const auto expected = read(DType::bf16, work.result_count(), stored(DType::bf16, work.exact()));
          for (PairUnit unit : usable_units()) {
            const auto got = read(DType::bf16, work.result_count(), work.in_pairs(unit, 2));
            for (std::size_t i = 0; i < got.size(); ++i)
              ASSERT_TRUE(got[i] == expected[i] || (std::isnan(got[i]) && std::isnan(expected[i])))
                  << describe(work, unit) << " at " << i << ": " << got[i] << " for " << expected[i];
          }
        }
}

/// An infinity in one place costs one block its pairs: bits must not depend on which thread has it.
TEST(ConvolutionInPairs, BitsDoNotDependOnThreads) {
  std::mt19937 random(5);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (const ConvProblem& problem :
       {sized({.n = 3, .h = 16, .w = 16, .c = 12, .k = 20, .r = 5, .s = 5, .pad_h = 2, .pad_w = 2}),
        dense(2100, 40, 20)})
    for (Direction direction : directions)
      for (bool finite : {true, false}) {
        Work work = make_work(problem, direction, DType::bf16, [&] { return uniform(random); });
        if (!finite) work.left[work.left.size() / 2] = std::numeric_limits<float>::infinity();
        for (PairUnit unit : usable_units()) {
          const auto one = work.in_pairs(unit, 1);
          for (int threads : {2, 3}) ASSERT_EQ(work.in_pairs(unit, threads), one) << describe(work, unit);
        }
      }
}

/// By instruction set, storage and shape.
TEST(ConvolutionInPairs, AreChosenWhereTheyAreFaster) {
  const auto chosen = [](const ConvProblem& problem, Isa isa, DType dtype = DType::bf16) {
    const Work work = make_work(problem, Direction::forward, dtype, [] { return 1.0f; });
    return prefer_other(Way::pairs, work.convolution(dtype), isa, false).empty();
  };
  const ConvProblem wide = dense(2, 512, 512),
                    filtered = sized({.h = 8, .w = 8, .c = 64, .k = 64, .r = 3, .s = 3, .pad_h = 1, .pad_w = 1}),
                    few = sized({.h = 28, .w = 28, .c = 1, .k = 6, .r = 5, .s = 5});
  ConvProblem grouped = filtered;
  grouped.groups = 2;
  EXPECT_TRUE(chosen(wide, Isa::avx512_bf16));
  EXPECT_TRUE(chosen(wide, Isa::amx));
  EXPECT_FALSE(chosen(wide, Isa::avx512));
  EXPECT_FALSE(chosen(wide, Isa::amx, DType::f16));
  EXPECT_FALSE(chosen(filtered, Isa::avx512_bf16));  // minimal filtering in f32 takes less
  EXPECT_TRUE(chosen(filtered, Isa::amx));
  EXPECT_FALSE(chosen(grouped, Isa::amx));
  EXPECT_FALSE(chosen(few, Isa::amx));
}

}  // namespace
}  // namespace halftone::cpu
