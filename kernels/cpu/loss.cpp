#include "halftone/ops/loss.hpp"

#include <cmath>
#include <limits>

#include "kernels/cpu/columns.hpp"
#include "kernels/cpu/elementwise.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/loss.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/strands-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {
namespace {

/// e[i] = exp(x[i] - largest); returns the sum of all e. e may be x.
double exponentials(const float* x, float largest, std::int64_t n, float* e) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) e[i] = math::exp(x[i] - largest);
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += e[i];
  return sum;
}

/// d[i] = (e[i] * inverse_sum - background) * factor.
void softmax_slope(const float* e, float inverse_sum, float background, float factor, std::int64_t n, float* d) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) d[i] = (e[i] * inverse_sum - background) * factor;
}

/// d[i] = y[i] (d_y[i] - sum of d_y y); d may be d_y.
void softmax_d_input(const float* d_y, const float* y, std::int64_t n, float* d) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(d_y[i]) * static_cast<double>(y[i]);
  const auto mean = static_cast<float>(sum);
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) d[i] = y[i] * (d_y[i] - mean);
}

double squared_distance(const float* x, const float* y, std::int64_t n) {
  return sum_of(n, [=](std::int64_t i) HWY_ATTR { return static_cast<double>((x[i] - y[i]) * (x[i] - y[i])); });
}

double logistic_distance(const float* x, const float* t, std::int64_t n) {
  return sum_of(n, [=](std::int64_t i) HWY_ATTR {
    const float above = math::select(x[i] > 0.0f, x[i], 0.0f), rest = math::log1p(math::exp(-math::abs(x[i])));
    return static_cast<double>(above - x[i] * t[i] + math::select(x[i] == x[i], rest, x[i]));
  });
}

void logistic_difference(const float* x, const float* t, float factor, std::int64_t n, float* d) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) d[i] = (Sigmoid{}.value(x[i]) - t[i]) * factor;
}

void scaled_difference(const float* x, const float* y, float factor, std::int64_t n, float* d) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) d[i] = (x[i] - y[i]) * factor;
}

}  // namespace
}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// The first largest of n numbers.
std::int64_t largest_of(const float* x, std::int64_t n) {
  std::int64_t best = 0;
  for (std::int64_t i = 1; i < n; ++i)
    if (x[i] > x[best]) best = i;
  return best;
}

/// Calls f(row, thread) for all rows of `length` numbers, a number of rows to a task.
template <class F>
void for_rows(int threads, std::int64_t rows, std::int64_t length, F&& f) {
  constexpr std::int64_t numbers_per_task = 4096;
  const std::int64_t per_task = std::max<std::int64_t>(numbers_per_task / length, 1);
  parallel_for(threads, (rows + per_task - 1) / per_task, [&](std::int64_t task, int thread) {
    for (std::int64_t row = task * per_task; row < std::min(rows, (task + 1) * per_task); ++row) f(row, thread);
  });
}

/// Rows of logits, each with its label.
struct LogitRows {
  LogitRows(const Request& request, std::size_t logits, std::size_t& bytes)
      : threads(machine_of(request).threads),
        rows(request.inputs[logits].shape.n),
        classes(request.inputs[logits].shape.c),
        access(machine_of(request).isa, request.inputs[logits]),
        logits(logits),
        buffers(classes, threads, bytes) {}
  int threads;
  std::int64_t rows, classes;
  Access access;
  std::size_t logits;  ///< which input they are; the labels follow
  Arrays<float> buffers;

  bool has(std::int32_t label) const { return label >= 0 && label < classes; }

  /// What the labels that are not to be ignored count for in all, 1 where there are none; the first that is neither
  /// that nor a class is noted in the step's state.
  double count(const Arguments& a, const CrossEntropyOptions& options) const {
    const auto* labels = a.in<std::int32_t>(logits + 1);
    double counted = 0;
    for (std::int64_t row = rows; row-- > 0;) {
      const std::int32_t label = labels[row];
      if (label == options.ignore_label) continue;
      counted += options.class_weights.empty() || !has(label) ? 1.0f : options.class_weights[at(label)];
      if (has(label)) continue;
      a.state->bad_row = static_cast<std::int32_t>(row);
      a.state->bad_label = label;
    }
    return counted > 0 ? counted : 1;
  }

  /// Calls f(row, x, label, scratch) for every row; x may be scratch.
  template <class F>
  void for_each(const Arguments& a, F&& f) const {
    const Input x(access, a.inputs[logits]);
    for_rows(threads, rows, classes, [&](std::int64_t row, int thread) {
      float* scratch = buffers(a.workspace, thread);
      f(row, x(row * classes, classes, scratch), a.in<std::int32_t>(logits + 1)[row], scratch);
    });
  }
};

/// What the targets of an image's classes count for: `of_label` for the label, and `of_each` w_i for every class.
struct ClassWeights {
  const std::vector<float>& given;
  double smoothing, of_each, spread = 0;

  ClassWeights(const CrossEntropyOptions& options, std::int64_t classes)
      : given(options.class_weights),
        smoothing(options.label_smoothing),
        of_each(smoothing / static_cast<double>(classes)) {
    for (std::int64_t i = 0; i < classes; ++i) spread += of_each * (*this)[i];
    if (given.empty()) spread = smoothing;
  }
  float operator[](std::int64_t i) const { return given.empty() ? 1.0f : given[at(i)]; }
  double of_label(std::int32_t label) const { return (1.0 - smoothing) * (*this)[label]; }
  double sum(std::int32_t label) const { return given.empty() ? 1.0 : of_label(label) + spread; }
};

}  // namespace

Launch softmax(const Request& request) {
  const Machine machine = machine_of(request);
  const std::int64_t rows = request.inputs[0].shape.rows(), n = request.inputs[0].shape.c;
  std::size_t bytes = 0;
  const Arrays<float> buffers(n, machine.threads, bytes);
  const Access x_access(machine.isa, request.inputs[0]), y_access(machine.isa, request.outputs[0]);
  const auto exponentials = HALFTONE_PER_ISA(machine.isa, exponentials);
  const auto slope = HALFTONE_PER_ISA(machine.isa, softmax_slope);
  const auto run = [=, threads = machine.threads](const Arguments& a) {
    const Input input(x_access, a.inputs[0]);
    const Output output(y_access, a, 0);
    for_rows(threads, rows, n, [&](std::int64_t row, int thread) {
      float* scratch = buffers(a.workspace, thread);
      const float* x = input(row * n, n, scratch);
      float* y = output.place(row * n, scratch);
      const double sum = exponentials(x, x[largest_of(x, n)], n, y);
      slope(y, static_cast<float>(1 / sum), 0, 1, n, y);
      output(row * n, n, y);
    });
  };
  return {run, bytes};
}

Launch softmax_gradient(const Request& request) {
  const Machine machine = machine_of(request);
  const std::int64_t rows = request.inputs[1].shape.rows(), n = request.inputs[1].shape.c;
  std::size_t bytes = 0;
  const Arrays<float> buffers(n, 2 * machine.threads, bytes);
  const Access d_y_access(machine.isa, request.inputs[0]), y_access(machine.isa, request.inputs[1]),
      d_x_access(machine.isa, request.outputs[0]);
  const auto d_input = HALFTONE_PER_ISA(machine.isa, softmax_d_input);
  const auto run = [=, threads = machine.threads](const Arguments& a) {
    const Input d_outputs(d_y_access, a.inputs[0]), outputs(y_access, a.inputs[1]);
    const Output d_inputs(d_x_access, a, 0);
    for_rows(threads, rows, n, [&](std::int64_t row, int thread) {
      float* scratch = buffers(a.workspace, 2 * thread);
      const float* d_y = d_outputs(row * n, n, scratch);
      float* d_x = d_inputs.place(row * n, scratch);
      d_input(d_y, outputs(row * n, n, buffers(a.workspace, 2 * thread + 1)), n, d_x);
      d_inputs(row * n, n, d_x);
    });
  };
  return {run, bytes};
}

Launch softmax_cross_entropy(const Request& request) {
  std::size_t bytes = 0;
  const LogitRows rows(request, 0, bytes);
  const Arrays<double> losses(rows.rows, 1, bytes);
  const Access y(machine_of(request).isa, request.outputs[0]);
  const auto exponentials = HALFTONE_PER_ISA(machine_of(request).isa, exponentials);
  const auto run = [=, options = request.attributes<SoftmaxCrossEntropy>().options](const Arguments& a) {
    const ClassWeights weights(options, rows.classes);
    rows.for_each(a, [&](std::int64_t row, const float* x, std::int32_t label, float* scratch) {
      if (!rows.has(label)) {
        losses(a.workspace)[row] = label == options.ignore_label ? 0 : nan;
        return;
      }
      const float largest = x[largest_of(x, rows.classes)];
      double target = (x[label] - largest) * weights.of_label(label), of_all = 0;
      if (weights.of_each > 0)
        for (std::int64_t i = 0; i < rows.classes; ++i) of_all += (x[i] - largest) * double{weights[i]};
      const double log_sum = std::log(exponentials(x, largest, rows.classes, scratch));
      losses(a.workspace)[row] = weights.sum(label) * log_sum - target - weights.of_each * of_all;
    });
    double sum = 0;
    for (std::int64_t row = 0; row < rows.rows; ++row) sum += losses(a.workspace)[row];
    const auto mean = static_cast<float>(sum / rows.count(a, options));
    Output(y, a, 0)(0, 1, &mean);
  };
  return {run, bytes};
}

Launch softmax_cross_entropy_gradient(const Request& request) {
  const Machine machine = machine_of(request);
  std::size_t bytes = 0;
  const LogitRows rows(request, 1, bytes);
  const Access d_loss(machine.isa, request.inputs[0]), result(machine.isa, request.outputs[0]);
  const auto exponentials = HALFTONE_PER_ISA(machine.isa, exponentials);
  const auto slope = HALFTONE_PER_ISA(machine.isa, softmax_slope);
  const auto run = [=, options = request.attributes<SoftmaxCrossEntropyGradient>().options](const Arguments& a) {
    const ClassWeights weights(options, rows.classes);
    const Output d_logits(result, a, 0);
    float seed;
    const auto counted = static_cast<float>(rows.count(a, options));
    const float factor = *Input(d_loss, a.inputs[0])(0, 1, &seed) / counted,
                background = static_cast<float>(weights.of_each);
    rows.for_each(a, [&](std::int64_t row, const float* x, std::int32_t label, float* scratch) {
      const std::int64_t first = row * rows.classes;
      float* d = d_logits.place(first, scratch);
      const double sum = exponentials(x, x[largest_of(x, rows.classes)], rows.classes, scratch);
      if (rows.has(label)) {
        const double all = weights.sum(label);
        const auto at_label = static_cast<float>(all * scratch[label] / sum - weights.of_label(label));
        if (options.class_weights.empty()) {
          slope(scratch, static_cast<float>(1 / sum), background, factor, rows.classes, d);
        } else {
          for (std::int64_t i = 0; i < rows.classes; ++i)
            d[i] = (scratch[i] * static_cast<float>(all / sum) - background * weights[i]) * factor;
        }
        d[label] = (at_label - background * weights[label]) * factor;
      } else {
        std::fill_n(d, rows.classes, label == options.ignore_label ? 0.0f : static_cast<float>(nan));
      }
      d_logits(first, rows.classes, d);
    });
  };
  return {run, bytes};
}

Launch accuracy(const Request& request) {
  std::size_t bytes = 0;
  const LogitRows rows(request, 0, bytes);
  const Arrays<std::int32_t> hits(rows.rows, 1, bytes);
  const Access y(machine_of(request).isa, request.outputs[0]);
  const auto run = [=](const Arguments& a) {
    rows.for_each(a, [&](std::int64_t row, const float* x, std::int32_t label, float*) {
      hits(a.workspace)[row] = largest_of(x, rows.classes) == label;
    });
    std::int64_t count = 0;
    for (std::int64_t row = 0; row < rows.rows; ++row) count += hits(a.workspace)[row];
    const auto share = static_cast<float>(static_cast<double>(count) / static_cast<double>(rows.rows));
    Output(y, a, 0)(0, 1, &share);
  };
  return {run, bytes};
}

namespace {

/// The mean over two tensors' numbers of what `sum` adds up.
Launch mean_over_pairs(const Request& request, double (*sum)(const float*, const float*, std::int64_t)) {
  const Machine machine = machine_of(request);
  const std::int64_t count = request.inputs[0].shape.elements();
  std::size_t bytes = 0;
  const Arrays<double> partials((count + chunk - 1) / chunk, 1, bytes);
  const Access x_access(machine.isa, request.inputs[0]), target_access(machine.isa, request.inputs[1]);
  const Access y(machine.isa, request.outputs[0]);
  const auto run = [=, threads = machine.threads](const Arguments& a) {
    const Input x(x_access, a.inputs[0]), target(target_access, a.inputs[1]);
    for_chunks(threads, count, [&](std::int64_t first, std::int64_t n) {
      float buffers[2][chunk];
      partials(a.workspace)[first / chunk] = sum(x(first, n, buffers[0]), target(first, n, buffers[1]), n);
    });
    double total = 0;
    for (std::int64_t i = 0; i < (count + chunk - 1) / chunk; ++i) total += partials(a.workspace)[i];
    const auto mean = static_cast<float>(total / static_cast<double>(count));
    Output(y, a, 0)(0, 1, &mean);
  };
  return {run, bytes};
}

/// d_x by `slopes`, which takes `times` the loss's gradient over the count as a factor.
Launch gradient_of_pairs(const Request& request, double times,
                         void (*slopes)(const float*, const float*, float, std::int64_t, float*)) {
  const Machine machine = machine_of(request);
  const std::int64_t count = request.inputs[1].shape.elements();
  const Access d_loss(machine.isa, request.inputs[0]), x_access(machine.isa, request.inputs[1]),
      target_access(machine.isa, request.inputs[2]), d_x_access(machine.isa, request.outputs[0]);
  const auto run = [=, threads = machine.threads](const Arguments& a) {
    const Input x(x_access, a.inputs[1]), target(target_access, a.inputs[2]);
    const Output d_x(d_x_access, a, 0);
    float seed;
    const auto factor =
        static_cast<float>(times * *Input(d_loss, a.inputs[0])(0, 1, &seed) / static_cast<double>(count));
    for_chunks(threads, count, [&](std::int64_t first, std::int64_t n) {
      float buffers[2][chunk];
      float* to = d_x.place(first, buffers[0]);
      slopes(x(first, n, buffers[0]), target(first, n, buffers[1]), factor, n, to);
      d_x(first, n, to);
    });
  };
  return {run};
}

}  // namespace

Launch mean_squared_error(const Request& request) {
  return mean_over_pairs(request, HALFTONE_PER_ISA(machine_of(request).isa, squared_distance));
}

Launch mean_squared_error_gradient(const Request& request) {
  return gradient_of_pairs(request, 2, HALFTONE_PER_ISA(machine_of(request).isa, scaled_difference));
}

Launch binary_cross_entropy(const Request& request) {
  return mean_over_pairs(request, HALFTONE_PER_ISA(machine_of(request).isa, logistic_distance));
}

Launch binary_cross_entropy_gradient(const Request& request) {
  return gradient_of_pairs(request, 1, HALFTONE_PER_ISA(machine_of(request).isa, logistic_difference));
}

}  // namespace halftone::cpu
#endif
