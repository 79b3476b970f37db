#include <algorithm>
#include <limits>

#include "halftone/ops/loss.hpp"
#include "halftone/ops/softmax.hpp"
#include "tests/kernels/harness.hpp"

namespace halftone::test {
namespace {

struct Batch {
  std::int64_t rows, classes;
  Shape logits() const { return {rows, 1, 1, classes}; }
  Shape labels() const { return {rows, 1, 1, 1}; }
};
const std::vector<Batch> batches = {{1, 1}, {1, 10}, {7, 3}, {130, 10}, {5, 17}, {3, 1000}, {700, 16}};
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

std::vector<float> random_labels(Batch batch) {
  return random_integers(batch.rows, 9, 0, static_cast<int>(batch.classes) - 1);
}

/// The softmax of one row and the logarithm of its denominator, both relative to `largest`.
struct SoftmaxOf {
  double largest, log_sum = 0;
  Doubles shares;
  explicit SoftmaxOf(const double* x, std::int64_t n) : largest(*std::max_element(x, x + n)) {
    for (std::int64_t i = 0; i < n; ++i) shares.push_back(std::exp(x[i] - largest));
    double sum = 0;
    for (double e : shares) sum += e;
    for (double& e : shares) e /= sum;
    log_sum = std::log(sum);
  }
};

Doubles cross_entropy_of(const Doubles& logits, const Doubles& labels, Batch batch, double smoothing) {
  double total = 0;
  for (std::int64_t row = 0; row < batch.rows; ++row) {
    const double* x = logits.data() + row * batch.classes;
    const SoftmaxOf softmax(x, batch.classes);
    const auto label = static_cast<std::int64_t>(labels[static_cast<std::size_t>(row)]);
    if (label < 0 || label >= batch.classes) return {nan};
    for (std::int64_t i = 0; i < batch.classes; ++i) {
      const double target = smoothing / static_cast<double>(batch.classes) + (i == label ? 1 - smoothing : 0);
      if (target > 0) total -= target * (x[i] - softmax.largest - softmax.log_sum);
    }
  }
  return {total / static_cast<double>(batch.rows)};
}

TEST(CrossEntropyKernels, GiveTheMeanLoss) {
  for (const Batch& batch : batches)
    for (float smoothing : {0.0f, 0.125f})
      for (float middle : {0.0f, 3000.0f})  // far beyond what exp takes
        for (const Storage& stored :
             {Storage(DType::f32), Storage(DType::f16), Storage(DType::bf16), Storage::fixed(6, 10)})
          check_kernels({SoftmaxCrossEntropy({.label_smoothing = smoothing}),
                         {batch.logits(), batch.labels()},
                         {stored, DType::i32, DType::f32},
                         {random_values(batch.logits().elements(), 1, middle - 8, middle + 8), random_labels(batch)},
                         [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                           return {cross_entropy_of(in[0], in[1], batch, static_cast<double>(smoothing))};
                         },
                         {{0, 3, 16}}});  // roundings: exp, a difference of logits up to 16, the result
}

TEST(CrossEntropyKernels, GiveTheGradient) {
  constexpr double seed = 1024;
  for (const Batch& batch : batches)
    for (float smoothing : {0.0f, 0.125f})
      for (const Storage& stored :
           {Storage(DType::f32), Storage(DType::f16), Storage(DType::bf16), Storage::fixed(6, 10)})
        check_kernels(
            {SoftmaxCrossEntropyGradient({.label_smoothing = smoothing}),
             {Shape{}, batch.logits(), batch.labels()},
             {DType::f32, stored, DType::i32, stored},
             {{static_cast<float>(seed)}, random_values(batch.logits().elements(), 1, -8, 8), random_labels(batch)},
             [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
               Doubles d;
               for (std::int64_t row = 0; row < batch.rows; ++row) {
                 const SoftmaxOf softmax(in[1].data() + row * batch.classes, batch.classes);
                 for (std::int64_t i = 0; i < batch.classes; ++i) {
                   const bool hit = i == static_cast<std::int64_t>(in[2][static_cast<std::size_t>(row)]);
                   const double target = static_cast<double>(smoothing) / static_cast<double>(batch.classes) +
                                         (hit ? 1 - static_cast<double>(smoothing) : 0);
                   d.push_back((softmax.shares[static_cast<std::size_t>(i)] - target) * in[0][0] /
                               static_cast<double>(batch.rows));
                 }
               }
               return {d};
             },
             {{0.5, 4, seed / static_cast<double>(batch.rows)}}});
}

/// As PyTorch defines it: each class's part of the target counts by its weight, and the sum is divided by those of the
/// labels.
TEST(CrossEntropyKernels, CountClassesByTheirWeights) {
  for (const Batch& batch : batches)
    for (float smoothing : {0.0f, 0.125f}) {
      CrossEntropyOptions options{.label_smoothing = smoothing, .ignore_label = -7};
      for (std::int64_t i = 0; i < batch.classes; ++i)
        options.class_weights.push_back(0.25f + static_cast<float>(i % 5));
      std::vector<float> labels = random_labels(batch);
      if (labels.size() > 2) labels[1] = -7;
      const auto weight = [&](std::int64_t i) { return double{options.class_weights[at(i)]}; };
      const auto target = [&](std::int64_t i, std::int64_t label) {
        return weight(i) *
               (double{smoothing} / static_cast<double>(batch.classes) + (i == label ? 1 - double{smoothing} : 0));
      };
      double counted = 0;
      for (const float label : labels) counted += label < 0 ? 0 : weight(static_cast<std::int64_t>(label));
      const auto logits = random_values(batch.logits().elements(), 1, -8, 8);
      check_kernels({SoftmaxCrossEntropy(options),
                     {batch.logits(), batch.labels()},
                     {DType::f32, DType::i32, DType::f32},
                     {logits, labels},
                     [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                       double total = 0;
                       for (std::int64_t row = 0; row < batch.rows; ++row) {
                         const double* x = in[0].data() + row * batch.classes;
                         const SoftmaxOf softmax(x, batch.classes);
                         const auto label = static_cast<std::int64_t>(in[1][at(row)]);
                         for (std::int64_t i = 0; i < batch.classes && label >= 0; ++i)
                           total -= target(i, label) * (x[i] - softmax.largest - softmax.log_sum);
                       }
                       return {{total / counted}};
                     },
                     {{0, 3, 16}}});
      check_kernels({SoftmaxCrossEntropyGradient(options),
                     {Shape{}, batch.logits(), batch.labels()},
                     {DType::f32, DType::f32, DType::i32, DType::f32},
                     {{1}, logits, labels},
                     [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                       Doubles d;
                       for (std::int64_t row = 0; row < batch.rows; ++row) {
                         const SoftmaxOf softmax(in[1].data() + row * batch.classes, batch.classes);
                         const auto label = static_cast<std::int64_t>(in[2][at(row)]);
                         double all = 0;
                         for (std::int64_t i = 0; i < batch.classes; ++i) all += target(i, label);
                         for (std::int64_t i = 0; i < batch.classes; ++i)
                           d.push_back(label < 0 ? 0 : (all * softmax.shares[at(i)] - target(i, label)) / counted);
                       }
                       return {d};
                     },
                     {{0.5, 8, 5 / counted}}});
    }
}

TEST(CrossEntropyKernels, TurnAWrongLabelIntoNaN) {
  const Batch batch{3, 4};
  for (float wrong : {-1.0f, 4.0f}) {
    const std::vector<float> logits = random_values(12, 1), labels = {0, wrong, 3};
    check_kernels({SoftmaxCrossEntropy({}),
                   {batch.logits(), batch.labels()},
                   {DType::f32, DType::i32, DType::f32},
                   {logits, labels},
                   [](const auto&) { return std::vector<Doubles>{{nan}}; }});
    check_kernels({SoftmaxCrossEntropyGradient({}),
                   {Shape{}, batch.logits(), batch.labels()},
                   {DType::f32, DType::f32, DType::i32, DType::f16},
                   {{1}, std::vector<float>(12, 0), labels},
                   [](const auto&) {
                     Doubles d(12, 1.0 / 12);
                     d[0] = d[11] = -0.25;
                     std::fill(d.begin() + 4, d.begin() + 8, nan);
                     return std::vector<Doubles>{d};
                   },
                   {{0.5, 4, 1}}});
  }
}

const std::vector<Shape> pixels = {{}, {1, 1, 1, 10}, {2, 3, 5, 3}, {130, 1, 1, 10}, {3, 1, 1, 1000}, {9, 9, 9, 17}};

TEST(SoftmaxKernels, GiveShares) {
  for (const Shape& shape : pixels)
    for (float middle : {0.0f, 3000.0f})
      for (const auto& storages : storage_choices)
        check_kernels({Softmax(),
                       {shape},
                       storages,
                       {random_values(shape.elements(), 1, middle - 8, middle + 8)},
                       [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                         Doubles y;
                         for (std::int64_t row = 0; row < shape.rows(); ++row)
                           for (double share : SoftmaxOf(in[0].data() + row * shape.c, shape.c).shares)
                             y.push_back(share);
                         return {y};
                       },
                       {{0.5, 4, 1}}});
}

TEST(SoftmaxKernels, GiveTheGradient) {
  for (const Shape& shape : pixels)
    for (const auto& storages : storage_choices)
      check_kernels(
          {SoftmaxGradient(),
           {shape, shape},
           storages,
           {random_values(shape.elements(), 1), random_values(shape.elements(), 2, 0, 2 / static_cast<float>(shape.c))},
           [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
             Doubles d;
             for (std::int64_t first = 0; first < shape.elements(); first += shape.c) {
               double sum = 0;
               for (std::int64_t i = first; i < first + shape.c; ++i) sum += in[0][at(i)] * in[1][at(i)];
               for (std::int64_t i = first; i < first + shape.c; ++i) d.push_back(in[1][at(i)] * (in[0][at(i)] - sum));
             }
             return {d};
           },
           {{0.5, 3, 16}}});  // |y| at most 2, d_y and the sum at most 4 apart each
}

TEST(AccuracyKernels, CountTheFirstLargest) {
  check_kernels({Accuracy(),
                 {{4, 1, 1, 3}, {4, 1, 1, 1}},
                 {DType::f16, DType::i32, DType::f32},
                 {{1, 3, 3, /**/ 5, 5, 5, /**/ -2, -1, -3, /**/ 0, 0, 1}, {1, 1, 1, 2}},
                 [](const auto&) { return std::vector<Doubles>{{0.75}}; }});
  for (const Batch& batch : batches)
    check_kernels({Accuracy(),
                   {batch.logits(), batch.labels()},
                   {DType::f32, DType::i32, DType::f32},
                   {random_integers(batch.logits().elements(), 1), random_labels(batch)},
                   [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                     double hits = 0;
                     for (std::int64_t row = 0; row < batch.rows; ++row) {
                       const double* x = in[0].data() + row * batch.classes;
                       hits += static_cast<double>(std::max_element(x, x + batch.classes) - x) ==
                               in[1][static_cast<std::size_t>(row)];
                     }
                     return {{hits / static_cast<double>(batch.rows)}};
                   }});
}

TEST(MeanSquaredErrorKernels, GiveLossAndGradient) {
  for (const Shape& shape : {Shape{}, Shape{3, 1, 1, 5}, Shape{2, 5, 7, 3}, Shape{9, 31, 33, 2}})
    for (const auto& storages : storage_choices) {
      const auto count = static_cast<double>(shape.elements());
      const auto format = [&](std::size_t i) { return storages[std::min(i, storages.size() - 1)]; };
      const auto x = random_values(shape.elements(), 1), target = random_values(shape.elements(), 2);
      check_kernels({MeanSquaredError(),
                     {shape, shape},
                     {format(0), format(1), DType::f32},
                     {x, target},
                     [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                       double sum = 0;
                       for (std::size_t i = 0; i < in[0].size(); ++i)
                         sum += (in[0][i] - in[1][i]) * (in[0][i] - in[1][i]);
                       return {{sum / count}};
                     },
                     {{0, 2, 0}}});
      check_kernels({MeanSquaredErrorGradient(),
                     {Shape{}, shape, shape},
                     {DType::f32, format(0), format(1), format(2)},
                     {{512}, x, target},
                     [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                       Doubles d(in[1].size());
                       for (std::size_t i = 0; i < d.size(); ++i) d[i] = 2 * (in[1][i] - in[2][i]) * in[0][0] / count;
                       return {d};
                     },
                     {{0.5, 2, 0}}});
    }
}

/// Where exp(-|x|) is small beside 1 the logarithm is off by an ulp of 1.
TEST(BinaryCrossEntropyKernels, GiveLossAndGradient) {
  for (const Shape& shape : {Shape{}, Shape{3, 1, 1, 5}, Shape{2, 5, 7, 3}, Shape{9, 31, 33, 2}})
    for (const Storage& stored :
         {Storage(DType::f32), Storage(DType::f16), Storage(DType::bf16), Storage::fixed(6, 10)}) {
      const auto count = static_cast<double>(shape.elements());
      auto x = random_values(shape.elements(), 1, -12, 12), target = random_values(shape.elements(), 2, 0, 1);
      if (stored != Storage::fixed(6, 10)) x[0] = 1000, target[0] = 0;
      check_kernels({BinaryCrossEntropy(),
                     {shape, shape},
                     {stored, stored, DType::f32},
                     {x, target},
                     [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                       double sum = 0;
                       for (std::size_t i = 0; i < in[0].size(); ++i)
                         sum +=
                             std::max(in[0][i], 0.0) - in[0][i] * in[1][i] + std::log1p(std::exp(-std::abs(in[0][i])));
                       return {{sum / count}};
                     },
                     {{0, 4, 12}}});
      check_kernels({BinaryCrossEntropyGradient(),
                     {Shape{}, shape, shape},
                     {DType::f32, stored, stored, stored},
                     {{512}, x, target},
                     [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                       Doubles d(in[1].size());
                       for (std::size_t i = 0; i < d.size(); ++i)
                         d[i] = (1 / (1 + std::exp(-in[1][i])) - in[2][i]) * in[0][0] / count;
                       return {d};
                     },
                     {{0.5, 4, 512 / count}}});
    }
}

}  // namespace
}  // namespace halftone::test
