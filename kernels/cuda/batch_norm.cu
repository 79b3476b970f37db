#include <algorithm>

#include "halftone/ops/norm.hpp"
#include "kernels/cuda/columns.hpp"
#include "kernels/cuda/table.hpp"

// Two passes over x forward (three where the variance needs the mean first), two over d_y and x backward; all sums in
// double (a few rows of f16 in f32 first) and, forward, of x less its first row, so that no mean is too large. Between
// the passes one kernel adds up the blocks' sums and makes the coefficients.
namespace halftone::cuda {
namespace {

/// Statistics and the coefficients of `Normalize`.
struct Settle {
  static constexpr int kinds = 2;

  Source<Any> x, gamma, beta;
  double share;  ///< of one row
  float epsilon;
  bool shift_based;
  std::int64_t c;
  float *mean, *inverse, *coefficients;

  HALFTONE_DEVICE void operator()(std::int64_t, std::int64_t j, const double (&sums)[2]) const {
    const Statistics found(x[j], sums[0], sums[1], share, epsilon);
    mean[j] = coefficients[j] = found.mean;
    finish(j, found.inverse, found.lost);
  }
  HALFTONE_DEVICE void finish(std::int64_t j, float deviation, double lost) const {
    inverse[j] = deviation;
    const float g = shift_factor(gamma[j], shift_based), scale = shift_factor(deviation, shift_based);
    coefficients[c + j] = g * scale;
    coefficients[2 * c + j] =
        static_cast<float>(static_cast<double>(beta[j]) - lost * static_cast<double>(g) * static_cast<double>(scale));
  }
};

/// The mean alone, as `ShiftMoments` takes it.
struct SettleMean {
  static constexpr int kinds = 2;

  Settle all;

  HALFTONE_DEVICE void operator()(std::int64_t, std::int64_t j, const double (&sums)[2]) const {
    const Statistics found(all.x[j], sums[0], sums[1], all.share, all.epsilon);
    all.mean[j] = all.coefficients[j] = found.mean;
    all.coefficients[all.c + j] = static_cast<float>(found.lost);
  }
};

/// The rest, from the products of `ShiftMoments`.
struct SettleShift {
  static constexpr int kinds = 1;

  Settle all;

  HALFTONE_DEVICE void operator()(std::int64_t, std::int64_t j, const double (&sums)[1]) const {
    const double lost = static_cast<double>(all.coefficients[all.c + j]);
    all.finish(j, inverse_deviation(sums[0] * all.share, all.epsilon), lost);
  }
};

template <class Format, int n>
Launch forward(const Request& request) {
  const auto& op = request.attributes<BatchNorm>();
  const Shape shape = request.inputs[0].shape;
  constexpr int few = summed_columns<n>;
  const Columns summed(1, shape.rows(), shape.c, few, Columns::few_blocks);
  const Columns columns(1, shape.rows(), shape.c, n, Columns::many_blocks);
  std::size_t bytes = 0;
  const Array<double> partials(summed.all_parts() * 2 * shape.c, bytes);
  const Array<float> coefficients(3 * shape.c, bytes);
  const auto run = [=, operands = Operands(request), epilogue = Epilogue(op.epilogue), epsilon = op.epsilon,
                    shift_based = op.shift_based](const Arguments& a) {
    const auto x = operands.in<Format>(a, 0);
    const double share = 1 / static_cast<double>(columns.rows);
    const Settle settle{operands.in(a, 0), operands.in(a, 1), operands.in(a, 2), share,           epsilon,
                        shift_based,       columns.c,         a.out<float>(1),   a.out<float>(2), coefficients(a)};
    const Moments<Format, few> moments{x, 0, 1};
    if (shift_based) {
      sum_columns(a, summed, moments, partials(a), SettleMean{settle});
      sum_columns(a, summed, ShiftMoments<Format, few>{x, coefficients(a), columns.c}, partials(a),
                  SettleShift{settle});
    } else {
      sum_columns(a, summed, moments, partials(a), settle);
    }
    enqueue(a, columns.blocks(),
            Normalize<Format, n>{columns, x, operands.out<Format>(a, 0), coefficients(a), epilogue});
  };
  return {.run = run, .workspace = bytes, .overwrites = same_places(request.inputs[0], request.outputs[0]) ? 0 : -1};
}

/// The coefficients of `Normalize` from statistics that are there already; a gradient is not shifted.
struct InferenceCoefficients {
  static constexpr unsigned threads = 128;
  using Shared = NoShared;

  Source<Any> gamma, variance, beta, mean;
  bool shifts;
  NormFactor factor;
  std::int64_t c;
  float* coefficients;

  HALFTONE_DEVICE void operator()(Shared&) const {
    const std::int64_t j = thread_number<InferenceCoefficients>();
    if (j >= c) return;
    coefficients[j] = shifts ? mean[j] : 0.0f;
    coefficients[c + j] = factor(gamma[j], variance[j]);
    coefficients[2 * c + j] = shifts ? beta[j] : 0.0f;
  }
};

/// Of [x, gamma, beta, mean, variance] or, for its gradient, [d_y, gamma, variance].
template <class Format, int n>
Launch by_running_statistics(const Request& request, const Epilogue& epilogue, NormFactor factor) {
  const bool shifts = request.inputs.size() > 3;
  const Shape shape = request.inputs[0].shape;
  const Columns columns(1, shape.rows(), shape.c, n, Columns::many_blocks);
  std::size_t bytes = 0;
  const Array<float> coefficients(3 * shape.c, bytes);
  const auto run = [=, operands = Operands(request)](const Arguments& a) {
    InferenceCoefficients settle{operands.in(a, 1), {}, {}, {}, shifts, factor, columns.c, coefficients(a)};
    settle.variance = operands.in(a, shifts ? 4 : 2);
    if (shifts) settle.beta = operands.in(a, 2), settle.mean = operands.in(a, 3);
    enqueue(a, blocks_for<InferenceCoefficients>(columns.c), settle);
    enqueue(a, columns.blocks(),
            Normalize<Format, n>{columns, operands.in<Format>(a, 0), operands.out<Format>(a, 0), coefficients(a),
                                 epilogue});
  };
  return {.run = run, .workspace = bytes, .overwrites = same_places(request.inputs[0], request.outputs[0]) ? 0 : -1};
}

/// The parameters' gradients and the coefficients of `InputGradient`.
struct SettleGradient {
  static constexpr int kinds = 2;

  Sink<Any> d_gamma, d_beta;
  Source<Any> gamma;
  const float *mean, *inverse;
  double share;  ///< of one row
  bool shift_based;
  std::int64_t c;
  float* coefficients;

  HALFTONE_DEVICE void operator()(std::int64_t, std::int64_t j, const double (&sums)[2]) const {
    const double scale = static_cast<double>(shift_factor(inverse[j], shift_based)), sum = sums[0],
                 product = sums[1];  // with x - mean
    const double factor = static_cast<double>(shift_factor(gamma[j], shift_based)) * scale;
    coefficients[j] = mean[j];
    coefficients[c + j] = static_cast<float>(factor);
    coefficients[2 * c + j] = static_cast<float>(-factor * scale * scale * product * share);
    coefficients[3 * c + j] = static_cast<float>(-factor * sum * share);
    d_gamma.write(j, static_cast<float>(product * scale));
    d_beta.write(j, static_cast<float>(sum));
  }
};

template <class Format, int n>
Launch backward(const Request& request) {
  const auto& op = request.attributes<BatchNormGradient>();
  const Shape shape = request.inputs[1].shape;
  constexpr int few = summed_columns<n>;
  const Columns summed(1, shape.rows(), shape.c, few, Columns::few_blocks);
  const Columns columns(1, shape.rows(), shape.c, n, Columns::many_blocks);
  std::size_t bytes = 0;
  const Array<double> partials(summed.all_parts() * 2 * shape.c, bytes);
  const Array<float> coefficients(4 * shape.c, bytes);
  const auto run = [=, operands = Operands(request), shift_based = op.shift_based](const Arguments& a) {
    const auto d_y = operands.in<Format>(a, 0), x = operands.in<Format>(a, 1);
    const auto *mean = a.in<float>(3), *inverse = a.in<float>(4);
    const SettleGradient settle{
        operands.out(a, 1), operands.out(a, 2), operands.in(a, 2), mean, inverse, 1 / static_cast<double>(columns.rows),
        shift_based,        columns.c,          coefficients(a)};
    sum_columns(a, summed, GradientTerms<Format, few>{d_y, x, {mean}}, partials(a), settle);
    enqueue(a, columns.blocks(),
            InputGradient<Format, n>{columns, d_y, x, operands.out<Format>(a, 0), coefficients(a)});
  };
  return {.run = run, .workspace = bytes, .overwrites = same_places(request.inputs[0], request.outputs[0]) ? 0 : -1};
}

struct UpdateStatistics {
  static constexpr unsigned threads = 128;
  using Shared = NoShared;

  const StepState* state;
  const float *mean, *inverse;
  float *running_mean, *running_variance;
  std::int64_t c;
  double unbiased;
  float epsilon, momentum;

  /// As f32; what that does not hold becomes its largest number.
  HALFTONE_DEVICE static float finite(double x) {
    constexpr double largest = std::numeric_limits<float>::max();
    return static_cast<float>(x < -largest ? -largest : x > largest ? largest : x);
  }

  HALFTONE_DEVICE void operator()(Shared&) const {
    const std::int64_t j = thread_number<UpdateStatistics>();
    if (j >= c || !state->good) return;
    const double deviation = static_cast<double>(inverse[j]), share = static_cast<double>(momentum);
    const double biased = 1 / (deviation * deviation) - static_cast<double>(epsilon);
    const double variance = (biased < 0 ? 0 : biased) * unbiased;
    running_mean[j] =
        finite((1.0 - share) * static_cast<double>(running_mean[j]) + share * static_cast<double>(mean[j]));
    running_variance[j] = finite((1.0 - share) * static_cast<double>(running_variance[j]) + share * variance);
  }
};

}  // namespace

Launch batch_norm(const Request& request) {
  return with_pack({&request.inputs[0], &request.outputs[0]}, request.inputs[0].shape.c % pack == 0,
                   [&](auto format, auto n) { return forward<decltype(format), n>(request); });
}

Launch batch_norm_inference(const Request& request) {
  const auto& op = request.attributes<BatchNormInference>();
  return with_pack({&request.inputs[0], &request.outputs[0]}, request.inputs[0].shape.c % pack == 0,
                   [&](auto format, auto n) {
                     return by_running_statistics<decltype(format), n>(request, Epilogue(op.epilogue), op.factor());
                   });
}

Launch batch_norm_inference_gradient(const Request& request) {
  const NormFactor factor = request.attributes<BatchNormInferenceGradient>().factor();
  return with_pack(
      {&request.inputs[0], &request.outputs[0]}, request.inputs[0].shape.c % pack == 0,
      [&](auto format, auto n) { return by_running_statistics<decltype(format), n>(request, Epilogue(), factor); });
}

Launch batch_norm_gradient(const Request& request) {
  return with_pack({&request.inputs[0], &request.inputs[1], &request.outputs[0]}, request.inputs[1].shape.c % pack == 0,
                   [&](auto format, auto n) { return backward<decltype(format), n>(request); });
}

Launch update_running_statistics(const Request& request) {
  const auto& op = request.attributes<UpdateRunningStatistics>();
  const double rows = static_cast<double>(op.rows), unbiased = rows / std::max(rows - 1, 1.0);
  const auto run = [=, epsilon = op.epsilon, momentum = op.momentum,
                    c = request.inputs[0].shape.c](const Arguments& a) {
    enqueue(a, blocks_for<UpdateStatistics>(c),
            UpdateStatistics{a.state, a.in<float>(0), a.in<float>(1), a.out<float>(0), a.out<float>(1), c, unbiased,
                             epsilon, momentum});
  };
  return {.run = run};
}

}  // namespace halftone::cuda
