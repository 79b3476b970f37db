#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <random>

#include "halftone/ops/conv2d.hpp"
#include "halftone/tensor/error.hpp"
#include "tests/kernels/convolution_work.hpp"

namespace halftone::cpu {
namespace {

/// A 6 x 6, 6 x 3 or 4 x 6 matrix of the algorithm.
template <std::size_t rows, std::size_t cols>
using Matrix = std::array<std::array<double, cols>, rows>;

/// The magnitudes of the transforms, from the construction: with the polynomial N of the points x[i], B' has the
/// coefficients of N / (x - x[i]), G the powers of x[i] over their values there, A' the powers; infinity comes last.
struct Magnitudes {
  Matrix<6, 6> input{};
  Matrix<6, 3> filter{};
  Matrix<4, 6> output{};

  Magnitudes() {
    constexpr double x[] = {0, 0.625, -0.625, 1.5, -1.5};
    for (std::size_t i = 0; i <= 5; ++i) {
      std::vector<double> product{1};  // coefficients, ascending
      double value = 1;
      for (std::size_t j = 0; j < 5; ++j) {
        if (j == i) continue;
        product.push_back(0);
        for (std::size_t d = product.size() - 1; d > 0; --d) product[d] = product[d - 1] - x[j] * product[d];
        product[0] *= -x[j];
        if (i < 5) value *= x[i] - x[j];
      }
      for (std::size_t d = 0; d < product.size(); ++d) input[i][d] = std::abs(product[d]);
      for (std::size_t d = 0; d < 3; ++d)
        filter[i][d] = i < 5 ? std::abs(std::pow(x[i], static_cast<double>(d)) / value) : d == 2;
      for (std::size_t d = 0; d < 4; ++d)
        output[d][i] = i < 5 ? std::abs(std::pow(x[i], static_cast<double>(d))) : d == 3;
    }
  }
};

/// |left| |m| |left|'.
template <std::size_t rows, std::size_t cols>
Matrix<rows, rows> transformed(const Matrix<rows, cols>& left, const Matrix<cols, cols>& m) {
  Matrix<rows, cols> half{};
  Matrix<rows, rows> result{};
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t j = 0; j < cols; ++j)
      for (std::size_t t = 0; t < cols; ++t) half[i][j] += left[i][t] * m[t][j];
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t j = 0; j < rows; ++j)
      for (std::size_t t = 0; t < cols; ++t) result[i][j] += half[i][t] * left[j][t];
  return result;
}

template <std::size_t rows, std::size_t cols>
Matrix<cols, rows> transposed(const Matrix<rows, cols>& m) {
  Matrix<cols, rows> result;
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t j = 0; j < cols; ++j) result[j][i] = m[i][j];
  return result;
}

/// What the direction reads and gives, as a forward pass: the data gradient is one with turned filters.
struct View {
  const Work& work;
  std::int64_t h, w, terms, p, q, results, pad_h, pad_w;
  bool is_forward;

  explicit View(const Work& work) : work(work), is_forward(work.direction == Direction::forward) {
    const ConvProblem& c = work.problem;
    if (is_forward)
      h = c.h, w = c.w, terms = c.c, p = c.p, q = c.q, results = c.k, pad_h = c.pad_h, pad_w = c.pad_w;
    else
      h = c.p, w = c.q, terms = c.k, p = c.h, q = c.w, results = c.c, pad_h = 2 - c.pad_h, pad_w = 2 - c.pad_w;
  }
  double input(std::int64_t n, std::int64_t y, std::int64_t x, std::int64_t term) const {
    if (y < 0 || y >= h || x < 0 || x >= w) return 0;
    return work.left[static_cast<std::size_t>(((n * h + y) * w + x) * terms + term)];
  }
  double filter(std::int64_t result, std::int64_t r, std::int64_t s, std::int64_t term) const {
    const std::int64_t at =
        is_forward ? ((result * 3 + r) * 3 + s) * terms + term : ((term * 3 + 2 - r) * 3 + 2 - s) * results + result;
    return work.right[static_cast<std::size_t>(at)];
  }
};

/// The magnitudes in a square of x [n, h, w, c] from (y, x) on, zero outside.
template <std::size_t size>
Matrix<size, size> square(const std::vector<float>& from, std::array<std::int64_t, 3> shape, std::int64_t n,
                          std::int64_t y, std::int64_t x, std::int64_t channel) {
  const auto [h, w, c] = shape;
  Matrix<size, size> result{};
  for (std::size_t i = 0; i < size * size; ++i) {
    const std::int64_t row = y + static_cast<std::int64_t>(i / size), col = x + static_cast<std::int64_t>(i % size);
    if (row >= 0 && row < h && col >= 0 && col < w)
      result[i / size][i % size] = std::abs(from[static_cast<std::size_t>(((n * h + row) * w + col) * c + channel)]);
  }
  return result;
}

void add_products(const Matrix<6, 6>& a, const Matrix<6, 6>& b, Matrix<6, 6>& sum) {
  for (std::size_t i = 0; i < 36; ++i) sum[i / 6][i % 6] += a[i / 6][i % 6] * b[i / 6][i % 6];
}

/// For each result |A'| [sum over terms of (|B'| |input| |B|) (|G| |filter| |G'|)] |A| of its tile: a computation that
/// rounds m times on the way from each number is off by m 2^-24 of it at most (Higham 2002, section 3.1).
std::vector<double> scales(const Work& work) {
  static const Magnitudes magnitudes;
  const View view(work);
  std::vector<double> all(work.result_count());
  const auto at = [&](std::int64_t k, std::int64_t c) { return static_cast<std::size_t>(k * view.terms + c); };
  std::vector<Matrix<6, 6>> filters(at(view.results, 0)), inputs(static_cast<std::size_t>(view.terms));
  for (std::int64_t k = 0; k < view.results; ++k)
    for (std::int64_t c = 0; c < view.terms; ++c) {
      Matrix<3, 3> g;
      for (std::size_t t = 0; t < 9; ++t)
        g[t / 3][t % 3] =
            std::abs(view.filter(k, static_cast<std::int64_t>(t / 3), static_cast<std::int64_t>(t % 3), c));
      filters[at(k, c)] = transformed(magnitudes.filter, g);
    }
  for (std::int64_t n = 0; n < work.problem.n; ++n)
    for (std::int64_t y = 0; y < view.p; y += 4)
      for (std::int64_t x = 0; x < view.q; x += 4) {
        for (std::int64_t c = 0; c < view.terms; ++c)
          inputs[at(0, c)] = transformed(magnitudes.input, square<6>(work.left, {view.h, view.w, view.terms}, n,
                                                                     y - view.pad_h, x - view.pad_w, c));
        for (std::int64_t k = 0; k < view.results; ++k) {
          Matrix<6, 6> sum{};
          for (std::int64_t c = 0; c < view.terms; ++c) add_products(inputs[at(0, c)], filters[at(k, c)], sum);
          const auto result = transformed(magnitudes.output, sum);
          for (std::int64_t i = 0; i < 16; ++i)
            if (y + i / 4 < view.p && x + i % 4 < view.q)
              all[static_cast<std::size_t>(((n * view.p + y + i / 4) * view.q + x + i % 4) * view.results + k)] =
                  result[static_cast<std::size_t>(i / 4)][static_cast<std::size_t>(i % 4)];
        }
      }
  return all;
}

/// The same of a weight gradient: |G'| [sum over tiles of (|A| |d_output| |A'|) (|B'| |input| |B|)] |G|.
std::vector<double> gradient_scales(const Work& work) {
  static const Magnitudes magnitudes;
  const ConvProblem& p = work.problem;
  std::vector<Matrix<6, 6>> sums(static_cast<std::size_t>(p.k * p.c), Matrix<6, 6>{}),
      inputs(static_cast<std::size_t>(p.c));
  for (std::int64_t n = 0; n < p.n; ++n)
    for (std::int64_t y = 0; y < p.p; y += 4)
      for (std::int64_t x = 0; x < p.q; x += 4) {
        for (std::int64_t c = 0; c < p.c; ++c)
          inputs[static_cast<std::size_t>(c)] =
              transformed(magnitudes.input, square<6>(work.left, {p.h, p.w, p.c}, n, y - p.pad_h, x - p.pad_w, c));
        for (std::int64_t k = 0; k < p.k; ++k) {
          const auto gradient =
              transformed(transposed(magnitudes.output), square<4>(work.right, {p.p, p.q, p.k}, n, y, x, k));
          for (std::int64_t c = 0; c < p.c; ++c)
            add_products(gradient, inputs[static_cast<std::size_t>(c)], sums[static_cast<std::size_t>(k * p.c + c)]);
        }
      }
  std::vector<double> all(work.result_count());
  for (std::int64_t i = 0; i < p.k * p.c; ++i) {
    const auto result = transformed(transposed(magnitudes.filter), sums[static_cast<std::size_t>(i)]);
    for (std::int64_t t = 0; t < 9; ++t)
      all[static_cast<std::size_t>((i / p.c * 9 + t) * p.c + i % p.c)] =
          result[static_cast<std::size_t>(t / 3)][static_cast<std::size_t>(t % 3)];
  }
  return all;
}

/// Roundings between a number and a result: 4 in each transform along each axis (2 or 3 where multiply-adds are fused),
/// one more in G' after the constant's, one a product, one a term, a few where sums are added, one for the bias. A
/// weight gradient sums at most 128 tiles, then 32 such sums, then at most 32 of these and of as many splits.
double roundings(const Work& work) {
  const ConvProblem& p = work.problem;
  if (work.direction != Direction::d_weight) return 24 + static_cast<double>(View(work).terms) + 4;
  const std::int64_t tiles = p.n * ((p.p + 3) / 4) * ((p.q + 3) / 4);
  return 26 + static_cast<double>(std::min<std::int64_t>(tiles, 128 + 3 * 32)) + 4;
}

std::vector<std::byte> by_winograd(const Work& work, Isa isa, int threads) {
  const Convolution convolution = work.convolution(work.storage);
  EXPECT_EQ(decline_winograd(convolution), "");
  return work.run(winograd(convolution, isa, threads), work.storage);
}

ConvProblem filtered(std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t c, std::int64_t k, int pad_h = 1,
                     int pad_w = 1) {
  return sized({.n = n, .h = h, .w = w, .c = c, .k = k, .r = 3, .s = 3, .pad_h = pad_h, .pad_w = pad_w});
}

/// Numbers like those that layers see.
std::vector<std::function<float()>> sources(std::mt19937& random) {
  static std::normal_distribution<float> normal;
  return {[&] { return normal(random); }, [&] { return std::max(normal(random), 0.0f); },
          [&] { return 0x1p-5f * std::copysign(std::exp(2 * normal(random)), normal(random)); }};
}

/// The worst case is off by m 2^-24 of the scale; m roundings that are independent by 6 sqrt(m) (six deviations).
TEST(Winograd, StaysWithinItsBound) {
  std::mt19937 random(1);
  const auto up_to = [&](unsigned most) { return static_cast<std::int64_t>(1 + random() % most); };
  std::vector<ConvProblem> problems = {filtered(1, 1, 1, 1, 1), filtered(2, 4, 4, 16, 16), filtered(1, 8, 8, 300, 20),
                                       filtered(30, 4, 4, 33, 40)};
  for (int i = 0; i < 40; ++i)
    problems.push_back(filtered(up_to(3), 2 + up_to(12), 2 + up_to(12), up_to(50), up_to(50),
                                static_cast<int>(random() % 3), static_cast<int>(random() % 3)));
  std::size_t number = 0;
  for (const ConvProblem& problem : problems)
    for (const Direction direction : directions) {
      const DType dtype = std::array{DType::f32, DType::f16, DType::bf16}[number % 3];
      const Work work = make_work(problem, direction, dtype, sources(random)[number++ / 3 % 3]);
      const Work as_stored = work.rounded();
      const auto exact = as_stored.exact();
      const auto scale = direction == Direction::d_weight ? gradient_scales(as_stored) : scales(as_stored);
      const double units = 6 * std::sqrt(roundings(work)) + 1;
      for (Isa isa : usable_isas()) {
        const auto got = read(dtype, work.result_count(), by_winograd(work, isa, 2));
        for (std::size_t i = 0; i < got.size(); ++i) {
          const double store = dtype == DType::f32 ? 0 : 0.51 * epsilon_of(dtype) * std::abs(exact[i]) + 0x1p-25;
          ASSERT_LE(std::abs(got[i] - exact[i]), units * 0x1p-24 * scale[i] + store)
              << describe(work, isa) << " at " << i << ": " << got[i] << " for " << exact[i];
        }
      }
    }
}

/// What the choice of points buys; the bound above would pass worse ones.
TEST(Winograd, ErrsLittleMoreThanDirect) {
  std::mt19937 random(2);
  const auto error = [](const std::vector<float>& got, const std::vector<float>& exact) {
    double sum = 0;
    for (std::size_t i = 0; i < got.size(); ++i) sum += std::pow(got[i] - exact[i], 2);
    return std::sqrt(sum);
  };
  for (const auto& source : sources(random))
    for (const Direction direction : directions) {
      Work work = make_work(filtered(2, 12, 12, 64, 64), direction, DType::f32, source);
      const auto exact = work.exact();
      for (Isa isa : usable_isas()) {
        const auto of = [&](const auto& bytes) { return error(read(DType::f32, work.result_count(), bytes), exact); };
        EXPECT_LE(of(by_winograd(work, isa, 2)), 4 * of(work.engine(isa, 2))) << describe(work, isa);
      }
    }
}

/// Equal terms, of which a single chain would err by half their number: here 16 tiles are summed at a time, then 32 of
/// these sums, then what 16 splits have.
TEST(Winograd, LongSumsAreMadeOfShortOnes) {
  const Magnitudes magnitudes;
  Matrix<4, 4> ones4;
  Matrix<6, 6> ones6, products{};
  for (auto& row : ones4) row.fill(1);
  for (auto& row : ones6) row.fill(1);
  add_products(transformed(transposed(magnitudes.output), ones4), transformed(magnitudes.input, ones6), products);
  const double condition = transformed(transposed(magnitudes.filter), products)[1][1] / 16;
  const Work work = make_work(filtered(1, 364, 364, 80, 80), Direction::d_weight, DType::f32, [] { return 0.1f; });
  for (Isa isa : usable_isas()) {
    if (isa == Isa::baseline && isa != best_isa()) continue;  // slow
    const auto got = read(DType::f32, work.result_count(), by_winograd(work, isa, 2));
    const double expected = 364.0 * 364 * 0.1f * 0.1f;
    EXPECT_NEAR(got[(3 * 9 + 4) * 80 + 5] / expected, 1, (26 + 16 + 32 + 2 + 16) * 0x1p-24 * condition)
        << describe(work, isa);
  }
}

TEST(Winograd, BitsDoNotDependOnThreads) {
  std::mt19937 random(3);
  for (const ConvProblem& problem : {filtered(5, 17, 22, 24, 40), filtered(60, 4, 4, 32, 16), filtered(1, 3, 5, 7, 9),
                                     filtered(2, 40, 64, 8, 8), filtered(2, 7, 7, 170, 140)})
    for (const Direction direction : directions)
      for (const DType dtype : {DType::f32, DType::bf16}) {
        const Work work = make_work(problem, direction, dtype, sources(random)[0]);
        for (Isa isa : usable_isas()) {
          const auto one = by_winograd(work, isa, 1);
          for (int threads : {2, 3}) ASSERT_EQ(by_winograd(work, isa, threads), one) << describe(work, isa);
        }
      }
}

/// Numbers of one sign, so that nothing that is finite cancels: whatever is not finite must be so in the reference.
TEST(Winograd, InfinityAndNanSpreadAsInTheReference) {
  std::mt19937 random(4);
  constexpr float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const ConvProblem& problem : {filtered(2, 9, 10, 20, 17), filtered(3, 6, 7, 16, 16, 2, 0)})
    for (const Direction direction : directions)
      for (float special : {infinity, -infinity, nan, 3e38f})
        for (int side : {0, 1, 2}) {
          Work work = make_work(problem, direction, DType::f32, [&] { return static_cast<float>(1 + random() % 3); });
          if (side != 1) work.left[5] = work.left[work.left.size() / 2] = special;
          if (side != 0) work.right[5] = work.right[work.right.size() / 2] = special;
          const auto expected = work.exact();
          for (Isa isa : usable_isas()) {
            const auto got = read(DType::f32, work.result_count(), by_winograd(work, isa, 2));
            for (std::size_t i = 0; i < got.size(); ++i)
              ASSERT_TRUE(
                  got[i] == expected[i] || (std::isnan(got[i]) && std::isnan(expected[i])) ||
                  (std::isfinite(expected[i]) && std::abs(got[i] - expected[i]) <= 1e-4f * std::abs(expected[i])))
                  << describe(work, isa) << " at " << i << ": " << got[i] << " for " << expected[i];
          }
        }
}

TEST(Winograd, DeclinesWhatItCannotDo) {
  const ConvProblem good = filtered(2, 8, 8, 16, 16);
  const auto reason = [](const ConvProblem& problem, Direction direction, const Storage& storage) {
    return decline_winograd(make_work(problem, direction, storage, [] { return 1.0f; }).convolution(storage));
  };
  EXPECT_EQ(reason(good, Direction::forward, DType::f16), "");
  EXPECT_EQ(reason(good, Direction::d_input, Storage::blocks(DType::e2m1, 32)), "");
  EXPECT_EQ(reason(good, Direction::d_weight, DType::bf16), "");
  for (const Storage& storage : {Storage::fixed(8, 8), Storage(DType::sign), Storage(DType::i8)})
    EXPECT_NE(reason(good, Direction::forward, storage), "") << to_string(storage);
  ConvProblem strided = good, dilated = good, grouped = good, wide = good;
  strided.stride_h = 2, dilated.dilation_w = 2, grouped.groups = 2, wide.s = 5;
  for (ConvProblem problem : {strided, dilated, grouped, wide})
    EXPECT_NE(reason(sized(problem), Direction::forward, DType::f32), "");
}

/// By shape, number system and option, not by how many images there are.
TEST(Winograd, IsChosenWhereItIsFaster) {
  const auto chosen = [](std::int64_t n, std::int64_t side, std::int64_t c, const Storage& storage,
                         const std::string& algorithms = "fastest") {
    const Device device = cpu_device({.isa = name_of(usable_isas().back()), .algorithms = algorithms});
    const std::vector<ValueSpec> in = {{{n, side, side, c}, storage}, {{c, 3, 3, c}, storage}},
                                 out = {{{n, side, side, c}, storage}};
    return choose_kernel({Conv2d({1, 1}), in, out, device});
  };
  for (const std::int64_t n : {1, 128})
    for (const std::int64_t c : {16, 64, 512})
      EXPECT_EQ(chosen(n, 4, c, DType::bf16).kernel, "conv2d/winograd") << n << " images, " << c << " channels";
  EXPECT_EQ(chosen(128, 1, 64, DType::f32).kernel, "conv2d/implicit_gemm");
  EXPECT_EQ(chosen(128, 8, 64, Storage::fixed(8, 8)).kernel, "conv2d/implicit_gemm");
  const Choice direct = chosen(128, 8, 64, DType::f32, "direct");
  EXPECT_EQ(direct.kernel, "conv2d/implicit_gemm");
  EXPECT_EQ(direct.declined,
            (std::vector<std::string>{"conv2d/xnor: not signs alone", "conv2d/winograd: algorithms: direct",
                                      "conv2d/pairs: not plain bf16"}));
  EXPECT_THROW(cpu_device({.algorithms = "slowest"}), Error);
}

}  // namespace
}  // namespace halftone::cpu
