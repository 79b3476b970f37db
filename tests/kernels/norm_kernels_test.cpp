#include "halftone/ops/dense.hpp"
#include "halftone/ops/norm.hpp"
#include "halftone/ops/sum_rows.hpp"
#include "tests/kernels/harness.hpp"

namespace halftone::test {
namespace {

constexpr float epsilon = 1e-5f;

/// One channel with one sample, up to rows that fill several tasks and channels that are wider than a chunk.
const std::vector<Shape> shapes = {{1, 1, 1, 1},  {5, 1, 1, 3},  {3, 7, 5, 1},  {2, 9, 11, 3},
                                   {3, 5, 4, 16}, {2, 3, 3, 17}, {4, 4, 4, 64}, {2, 2, 1, 1100}};
const std::vector<Shape> large_shapes = {{5, 63, 65, 3}, {4, 33, 31, 17}, {3, 31, 17, 64}};

/// The mean of each group of a tensor's numbers and the inverse of their deviation; group_of(row, channel).
template <class GroupOf>
std::pair<Doubles, Doubles> statistics_of(const Doubles& x, std::int64_t c, std::size_t groups, GroupOf group_of) {
  Doubles mean(groups), inverse(groups), count(groups);
  const auto group = [&](std::size_t i) {
    return static_cast<std::size_t>(group_of(static_cast<std::int64_t>(i) / c, static_cast<std::int64_t>(i) % c));
  };
  for (std::size_t i = 0; i < x.size(); ++i) mean[group(i)] += x[i], ++count[group(i)];
  for (std::size_t g = 0; g < groups; ++g) mean[g] /= count[g];
  for (std::size_t i = 0; i < x.size(); ++i) inverse[group(i)] += (x[i] - mean[group(i)]) * (x[i] - mean[group(i)]);
  for (std::size_t g = 0; g < groups; ++g)
    inverse[g] = 1 / std::sqrt(inverse[g] / count[g] + static_cast<double>(epsilon));
  return {mean, inverse};
}

/// d_x, d_gamma and d_beta by the formulas of Ioffe & Szegedy 2015, section 3, for any grouping.
template <class GroupOf>
std::vector<Doubles> gradient_of(const Doubles& d_y, const Doubles& x, const Doubles& gamma, const Doubles& mean,
                                 const Doubles& inverse, GroupOf group_of) {
  const std::size_t c = gamma.size();
  Doubles d_x(x.size()), d_gamma(c), d_beta(c), of_d(mean.size()), of_product(mean.size()), count(mean.size());
  const auto group = [&](std::size_t i) {
    return static_cast<std::size_t>(group_of(static_cast<std::int64_t>(i / c), static_cast<std::int64_t>(i % c)));
  };
  const auto normal = [&](std::size_t i) { return (x[i] - mean[group(i)]) * inverse[group(i)]; };
  for (std::size_t i = 0; i < x.size(); ++i) {
    d_gamma[i % c] += d_y[i] * normal(i);
    d_beta[i % c] += d_y[i];
    of_d[group(i)] += gamma[i % c] * d_y[i];
    of_product[group(i)] += gamma[i % c] * d_y[i] * normal(i);
    ++count[group(i)];
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t g = group(i);
    d_x[i] = inverse[g] * (gamma[i % c] * d_y[i] - of_d[g] / count[g] - normal(i) * of_product[g] / count[g]);
  }
  return {d_x, d_gamma, d_beta};
}

const std::vector<Storage> storages = {DType::f32, DType::f16, DType::bf16, in_range(DType::i16),
                                       Storage::fixed(5, 3, Rounding::stochastic)};

const auto by_channel = [](std::int64_t, std::int64_t channel) { return channel; };

/// The bound on gamma x^ + beta: four roundings of terms no larger than |gamma| |x^| + |beta| <= 2 * 4 + 2.
const Bound normalized = {0.5, 3, 10};
/// Sums are made in double and rounded once; the mean of numbers in [-2, 2] may be near 0.
const Bound statistic = {0, 1, 0.01};

std::vector<Storage> formats(std::size_t inputs, const Storage& stored, const Storage& parameters) {
  std::vector<Storage> all(inputs + 3, DType::f32);
  all[0] = all[inputs] = stored;
  all[1] = all[2] = parameters;
  return all;
}

void check_batch_norm(Shape shape, std::vector<float> x, const Storage& stored, const Storage& parameters,
                      std::optional<Activation> epilogue = {}) {
  BatchNorm op(epsilon, 0.1f);
  op.epilogue = epilogue;
  const Shape vector = Shape::vector(shape.c);
  // The squares of 16-bit numbers may be rounded to f32, and a few at a time added in it: 4 x 2^-24 of the variance.
  const Bound deviation = {0, bits_of(stored.code) == 16 ? 2.0 : 1.0, 0};
  check_kernels({op,
                 {shape, vector, vector, vector, vector},
                 formats(5, stored, parameters),
                 {std::move(x), random_values(shape.c, 2), random_values(shape.c, 3), random_values(shape.c, 4),
                  random_values(shape.c, 5)},
                 [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                   const auto [mean, inverse] = statistics_of(in[0], shape.c, in[1].size(), by_channel);
                   Doubles y(in[0].size());
                   for (std::size_t i = 0; i < y.size(); ++i) {
                     const std::size_t j = i % in[1].size();
                     y[i] = in[1][j] * (in[0][i] - mean[j]) * inverse[j] + in[2][j];
                     if (epilogue)
                       y[i] = std::visit([&](auto f) { return f.value(static_cast<float>(y[i])); }, *epilogue);
                   }
                   return {y, mean, inverse};
                 },
                 {normalized, statistic, deviation}});
}

TEST(BatchNormKernels, NormalizeInEveryFormat) {
  for (const Shape& shape : shapes)
    for (const Storage& stored : storages) check_batch_norm(shape, random_values(shape.elements(), 1), stored, stored);
  for (const Shape& shape : large_shapes)
    check_batch_norm(shape, random_values(shape.elements(), 1), DType::f32, DType::f16);
}

TEST(BatchNormKernels, AreRightWhereTheMeanIsLarge) {
  for (const Shape& shape : {Shape{40, 8, 9, 3}, Shape{64, 8, 8, 16}})
    for (DType stored : {DType::f32, DType::f16})
      check_batch_norm(shape, random_values(shape.elements(), 1, 998, 1002), stored, DType::f32);
}

/// Every 2^k-th number is `middle` plus one unit in its last place, the others are `middle`: their mean is 2^24 units
/// and more from zero, their deviation about 2^(-k/2) units.
std::vector<float> far_from_zero(std::int64_t count, int k, float middle, const Storage& stored) {
  std::vector<float> x(static_cast<std::size_t>(count), middle);
  const float unit = stored.plain() ? epsilon_of(stored.code) * middle : 1;
  for (std::size_t i = 5; i < x.size(); i += std::size_t{1} << k) x[i] += unit;
  return x;
}

TEST(BatchNormKernels, AreRightWhereTheMeanIsABillionDeviations) {
  for (int k : {2, 13})  // up to 2^24 / 2^(-13/2) > 2^30 deviations
    for (const Shape& shape : {Shape{16, 32, 32, 1}, Shape{11, 32, 32, 3}})
      for (float middle : {0x1p20f, 0x1p23f, 0x1p50f}) {
        const Storage stored = DType::f32;
        check_batch_norm(shape, far_from_zero(shape.elements(), k, middle, stored), stored, DType::f32);
      }
  for (DType stored : {DType::f16, DType::bf16})
    check_batch_norm({16, 32, 32, 1}, far_from_zero(16384, 13, 0x1p10f, stored), stored, DType::f32);
  check_batch_norm({16, 32, 32, 1}, far_from_zero(16384, 13, 0x1p20f, Storage::fixed(31, 1)), Storage::fixed(31, 1),
                   DType::f32);
}

TEST(BatchNormKernels, ApplyTheEpilogue) {
  for (const Activation& activation : {Activation(Relu{}), Activation(LeakyRelu{0.25f}), Activation(HardTanh{})})
    check_batch_norm({3, 5, 4, 16}, random_values(960, 1), DType::f16, DType::f32, activation);
}

TEST(BatchNormKernels, UseTheRunningStatisticsInEvaluation) {
  BatchNormInference op(epsilon);
  op.epilogue = Relu{};
  for (const Shape& shape : shapes) {
    const Shape vector = Shape::vector(shape.c);
    for (const Storage& stored : {Storage(DType::f32), Storage(DType::bf16), Storage::fixed(8, 8)})
      check_kernels({op,
                     {shape, vector, vector, vector, vector},
                     formats(5, stored, stored),
                     {random_values(shape.elements(), 1), random_values(shape.c, 2), random_values(shape.c, 3),
                      random_values(shape.c, 4), random_values(shape.c, 5, 0.5f, 4)},
                     [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                       Doubles y(in[0].size());
                       for (std::size_t i = 0; i < y.size(); ++i) {
                         const std::size_t j = i % in[1].size();
                         y[i] = std::max(0.0, in[1][j] * (in[0][i] - in[3][j]) /
                                                      std::sqrt(in[4][j] + static_cast<double>(epsilon)) +
                                                  in[2][j]);
                       }
                       return {y};
                     },
                     {{0.5, 3, 14}}});  // x^ <= 4 / sqrt(0.5)
  }
}

TEST(BatchNormKernels, GiveTheGradientByRunningStatistics) {
  for (const Shape& shape : shapes) {
    const Shape vector = Shape::vector(shape.c);
    for (const Storage& stored : storages)
      check_kernels(
          {BatchNormInferenceGradient(epsilon),
           {shape, vector, vector},
           {stored, stored, stored, stored},
           {random_values(shape.elements(), 1), random_values(shape.c, 2), random_values(shape.c, 3, 0.5f, 4)},
           [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
             Doubles d_x(in[0].size());
             for (std::size_t i = 0; i < d_x.size(); ++i) {
               const std::size_t j = i % in[1].size();
               d_x[i] = in[0][i] * in[1][j] / std::sqrt(in[2][j] + static_cast<double>(epsilon));
             }
             return {d_x};
           },
           {{0.5, 3, 6}}});  // 2 * 2 / sqrt(0.5)
  }
}

/// d_gamma and d_beta: terms rounded to f32 twice, summed in double; each of `count` terms is at most 2 x^ and 2.
void check_gradient(const Op& op, Shape shape, Shape statistics_shape, std::vector<std::vector<float>> statistics,
                    double count, double largest_inverse, const Storage& stored, const Reference& reference) {
  std::vector<Shape> all = {shape, shape, Shape::vector(shape.c)};
  std::vector<std::vector<float>> values = {random_values(shape.elements(), 1), random_values(shape.elements(), 2),
                                            random_values(shape.c, 3)};
  for (auto& numbers : statistics) all.push_back(statistics_shape), values.push_back(std::move(numbers));
  std::vector<Storage> chosen(all.size() + 3, stored);
  for (std::size_t i = 3; i < all.size(); ++i) chosen[i] = DType::f32;
  const double largest_normal = 4 * std::min(largest_inverse, 4.0);
  check_kernels({op,
                 all,
                 chosen,
                 values,
                 reference,
                 {{0.5, 4, 2 * largest_inverse * (4 + 2 * largest_normal)},
                  {0.5, 2, 2 * count * largest_normal},
                  {0.5, 1, 2 * count}}});
}

std::vector<float> to_floats(const Doubles& values) { return {values.begin(), values.end()}; }

Doubles rounded(const std::vector<float>& values, const Storage& storage) {
  return stored({values.begin(), values.end()}, storage);
}

TEST(BatchNormKernels, GiveTheGradients) {
  auto all = shapes;
  all.insert(all.end(), large_shapes.begin(), large_shapes.end());
  for (const Shape& shape : all) {
    for (const Storage& stored : storages) {
      if (stored != DType::f32 && stored != DType::bf16 && shape.elements() > 20000) continue;
      const auto channels = static_cast<std::size_t>(shape.c);
      const auto [mean, inverse] =
          statistics_of(rounded(random_values(shape.elements(), 2), stored), shape.c, channels, by_channel);
      check_gradient(
          BatchNormGradient(), shape, Shape::vector(shape.c), {to_floats(mean), to_floats(inverse)},
          static_cast<double>(shape.rows()), *std::max_element(inverse.begin(), inverse.end()), stored,
          [](const std::vector<Doubles>& in) { return gradient_of(in[0], in[1], in[2], in[3], in[4], by_channel); });
    }
  }
}

/// AP2 of Courbariaux et al. 2016, by logarithms.
double power_of(double x) { return x == 0 ? x : std::copysign(std::exp2(std::round(std::log2(std::abs(x)))), x); }

Doubles powers_of(Doubles x) {
  std::ranges::transform(x, x.begin(), power_of);
  return x;
}

/// Shapes whose numbers of rows are powers of two, so that means of integers are exact.
const std::vector<Shape> dyadic_shapes = {{1, 1, 1, 1},  {8, 1, 1, 3},    {2, 4, 2, 16},  {2, 2, 2, 17},
                                          {4, 4, 4, 64}, {2, 2, 1, 1100}, {8, 64, 64, 3}, {4, 32, 32, 17}};

/// Courbariaux et al. 2016, algorithm 3, of integers: all is exact up to the inverse deviation's rounding, but the sums
/// with beta.
/// Somewhere it differs from the ordinary norm by `least_difference`.
void check_shift_based(Shape shape, std::vector<float> x, const Storage& stored, double least_difference,
                       std::optional<Activation> epilogue = {}) {
  BatchNorm op(epsilon, 0.1f, true);
  op.epilogue = epilogue;
  const Shape vector = Shape::vector(shape.c);
  double difference = 0;
  check_kernels({op,
                 {shape, vector, vector, vector, vector},
                 formats(5, stored, DType::f32),
                 {std::move(x), random_values(shape.c, 2), random_values(shape.c, 3), random_values(shape.c, 4),
                  random_values(shape.c, 5)},
                 [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                   const auto statistics = statistics_of(in[0], shape.c, in[1].size(), by_channel);
                   const Doubles &mean = statistics.first, &usual = statistics.second;
                   Doubles inverse(mean.size()), y(in[0].size());
                   for (std::size_t i = 0; i < y.size(); ++i) {
                     const double centred = in[0][i] - mean[i % mean.size()];
                     inverse[i % mean.size()] += centred * power_of(centred) / static_cast<double>(shape.rows());
                   }
                   for (double& v : inverse)
                     v = static_cast<double>(static_cast<float>(1 / std::sqrt(v + static_cast<double>(epsilon))));
                   for (std::size_t i = 0; i < y.size(); ++i) {
                     const std::size_t j = i % mean.size();
                     const double centred = in[0][i] - mean[j];
                     y[i] = power_of(in[1][j]) * power_of(inverse[j]) * centred + in[2][j];
                     difference = std::max(difference, std::abs(y[i] - (in[1][j] * usual[j] * centred + in[2][j])));
                     if (epilogue)
                       y[i] = std::visit([&](auto f) { return f.value(static_cast<float>(y[i])); }, *epilogue);
                   }
                   return {y, mean, inverse};
                 },
                 {normalized, {0, 1, 0}, {0, 1, 0}}});
  EXPECT_GE(difference, least_difference);
}

TEST(BatchNormKernels, ShiftBasedOnesMultiplyByPowersOfTwo) {
  const Storage exact[] = {DType::f32, DType::f16, DType::bf16, in_range(DType::i16), Storage::fixed(8, 8)};
  for (const Shape& shape : dyadic_shapes)
    for (const Storage& stored : exact)
      check_shift_based(shape, random_integers(shape.elements(), 1, -15, 15), stored, shape.rows() > 1 ? 0.1 : 0);
  for (const auto& activation : {Activation(Relu{}), Activation(HardTanh{})})
    check_shift_based({4, 4, 4, 64}, random_integers(4096, 1), DType::f16, 0.1, activation);
}

/// Where the mean is no f32 number, what rounding took from it counts.
TEST(BatchNormKernels, ShiftBasedOnesAreRightWhereTheMeanIsLarge) {
  for (const Shape& shape : {Shape{32, 32, 32, 1}, Shape{8, 64, 64, 3}})
    for (const float middle : {1000.0f, 0x1p23f}) {
      std::vector<float> x = random_integers(shape.elements(), 1, -7, 7);
      for (float& value : x) value += middle;
      check_shift_based(shape, std::move(x), DType::f32, 0.01);
    }
}

TEST(BatchNormKernels, ShiftBasedOnesUseTheRunningStatisticsInEvaluation) {
  const BatchNormInference op(epsilon, true);
  const BatchNormInferenceGradient gradient(epsilon, true);
  for (const Shape& shape : shapes) {
    const Shape vector = Shape::vector(shape.c);
    const auto gamma = random_values(shape.c, 2), variance = random_values(shape.c, 5, 0.5f, 4);
    const auto factor = [](double g, double v) {
      return power_of(g) * power_of(1 / std::sqrt(v + static_cast<double>(epsilon)));
    };
    for (const Storage& stored : {Storage(DType::f32), Storage(DType::bf16)}) {
      check_kernels(
          {op,
           {shape, vector, vector, vector, vector},
           formats(5, stored, DType::f32),
           {random_values(shape.elements(), 1), gamma, random_values(shape.c, 3), random_values(shape.c, 4), variance},
           [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
             Doubles y(in[0].size());
             for (std::size_t i = 0; i < y.size(); ++i) {
               const std::size_t j = i % in[1].size();
               y[i] = factor(in[1][j], in[4][j]) * (in[0][i] - in[3][j]) + in[2][j];
             }
             return {y};
           },
           {{0.5, 2, 18}}});  // factors are at most 4
      check_kernels({gradient,
                     {shape, vector, vector},
                     {stored, DType::f32, DType::f32, stored},
                     {random_values(shape.elements(), 1), gamma, variance},
                     [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                       Doubles d_x(in[0].size());
                       for (std::size_t i = 0; i < d_x.size(); ++i)
                         d_x[i] = in[0][i] * factor(in[1][i % in[1].size()], in[2][i % in[1].size()]);
                       return {d_x};
                     }});
    }
  }
}

/// The ordinary gradient, with the factors that the forward pass multiplied by.
TEST(BatchNormKernels, ShiftBasedOnesHaveStraightThroughGradients) {
  for (const Shape& shape : shapes) {
    for (const Storage& stored : storages) {
      const auto channels = static_cast<std::size_t>(shape.c);
      const auto [mean, inverse] =
          statistics_of(rounded(random_values(shape.elements(), 2), stored), shape.c, channels, by_channel);
      const Doubles powers = powers_of(inverse);
      check_gradient(BatchNormGradient(true), shape, Shape::vector(shape.c), {to_floats(mean), to_floats(inverse)},
                     static_cast<double>(shape.rows()), *std::max_element(powers.begin(), powers.end()), stored,
                     [](const std::vector<Doubles>& in) {
                       return gradient_of(in[0], in[1], powers_of(in[2]), in[3], powers_of(in[4]), by_channel);
                     });
    }
  }
}

TEST(BatchNormKernels, UpdateRunningStatisticsOnlyInAGoodStep) {
  constexpr std::int64_t c = 19, rows = 12;
  const UpdateRunningStatistics op(epsilon, 0.25f, rows);
  for (int good : {0, 1}) {
    const auto mean = random_values(c, 3), variance = random_values(c, 4, 1, 2);
    StepState state;
    state.good = good;
    const ValueSpec vector{Shape::vector(c), DType::f32, Role::exact};
    check_kernels({op,
                   {Shape::vector(c), Shape::vector(c)},
                   {DType::f32},
                   {random_values(c, 1), random_values(c, 2, 0.5f, 2)},
                   [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                     Doubles m(mean.begin(), mean.end()), v(variance.begin(), variance.end());
                     for (std::size_t j = 0; good && j < c; ++j) {
                       m[j] += 0.25 * (in[0][j] - m[j]);
                       v[j] += 0.25 *
                               ((1 / (in[1][j] * in[1][j]) - static_cast<double>(epsilon)) * rows / (rows - 1) - v[j]);
                     }
                     return {m, v};
                   },
                   {{0, good * 1.0, 0.01}, {0, good * 1.0, 0}},
                   state,
                   {vector, vector},
                   {mean, variance}});
  }
}

struct Grouping {
  Shape shape;
  int groups;
  bool per_pixel;
  std::int64_t samples() const { return per_pixel ? shape.rows() : shape.n; }
  std::size_t count() const { return static_cast<std::size_t>(samples() * groups); }
  std::int64_t operator()(std::int64_t row, std::int64_t channel) const {
    return row / (shape.rows() / samples()) * groups + channel / (shape.c / groups);
  }
};

const std::vector<Grouping> groupings = {
    {{1, 1, 1, 1}, 1, false}, {{3, 5, 4, 16}, 1, false},  {{3, 5, 4, 16}, 4, false},
    {{2, 7, 3, 6}, 6, false}, {{5, 1, 1, 12}, 3, false},  {{2, 3, 3, 17}, 1, true},
    {{4, 4, 4, 64}, 1, true}, {{130, 2, 1, 35}, 5, true}, {{2, 1, 1, 1100}, 1, true}};

TEST(GroupNormKernels, NormalizeInEveryFormat) {
  for (const Grouping& grouping : groupings) {
    const Shape vector = Shape::vector(grouping.shape.c);
    for (const Storage& stored : storages)
      for (float middle : {0.0f, 1000.0f, 0x1p23f}) {
        if (middle > 0 && stored != DType::f32) continue;
        const std::int64_t count = grouping.shape.elements();
        const auto x = middle < 0x1p23f ? random_values(count, 1, middle - 2, middle + 2)
                                        : far_from_zero(count, 4, middle, stored);
        check_kernels({GroupNorm(grouping.groups, grouping.per_pixel, epsilon),
                       {grouping.shape, vector, vector},
                       formats(3, stored, stored),
                       {x, random_values(vector.c, 2), random_values(vector.c, 3)},
                       [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                         const auto [mean, inverse] = statistics_of(in[0], vector.c, grouping.count(), grouping);
                         Doubles y(in[0].size()), statistics;
                         for (std::size_t g = 0; g < mean.size(); ++g)
                           statistics.push_back(mean[g]), statistics.push_back(inverse[g]);
                         for (std::size_t i = 0; i < y.size(); ++i) {
                           const std::size_t j = i % in[1].size();
                           const auto g = static_cast<std::size_t>(
                               grouping(static_cast<std::int64_t>(i / in[1].size()), static_cast<std::int64_t>(j)));
                           y[i] = in[1][j] * (in[0][i] - mean[g]) * inverse[g] + in[2][j];
                         }
                         return {y, statistics};
                       },
                       {{0.5, 4, 10}, statistic}});
      }
  }
}

TEST(GroupNormKernels, GiveTheGradients) {
  for (const Grouping& grouping : groupings) {
    for (const Storage& stored : storages) {
      const auto [mean, inverse] = statistics_of(rounded(random_values(grouping.shape.elements(), 2), stored),
                                                 grouping.shape.c, grouping.count(), grouping);
      std::vector<float> statistics;
      for (std::size_t g = 0; g < mean.size(); ++g)
        statistics.push_back(static_cast<float>(mean[g])), statistics.push_back(static_cast<float>(inverse[g]));
      check_gradient(GroupNormGradient(grouping.groups, grouping.per_pixel), grouping.shape,
                     {grouping.samples(), grouping.groups, 1, 2}, {statistics},
                     static_cast<double>(grouping.shape.rows()), *std::max_element(inverse.begin(), inverse.end()),
                     stored, [&](const std::vector<Doubles>& in) {
                       Doubles m, d;
                       for (std::size_t g = 0; g < in[3].size(); g += 2)
                         m.push_back(in[3][g]), d.push_back(in[3][g + 1]);
                       return gradient_of(in[0], in[1], in[2], m, d, grouping);
                     });
    }
  }
}

TEST(SumRowsKernels, AreExactOnIntegers) {
  auto all = shapes;
  all.insert(all.end(), large_shapes.begin(), large_shapes.end());
  for (const Shape& shape : all)
    for (const auto& choice : storage_choices)
      check_kernels({SumRows(),
                     {shape},
                     choice,
                     {random_integers(shape.elements(), 1)},
                     [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                       Doubles sums(static_cast<std::size_t>(shape.c));
                       for (std::size_t i = 0; i < in[0].size(); ++i) sums[i % sums.size()] += in[0][i];
                       return {sums};
                     }});
}

}  // namespace
}  // namespace halftone::test
