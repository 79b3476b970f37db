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

  /// How many labels are not `ignored`; the first that is neither that nor a class is noted in the step's state.
  std::int64_t count(const Arguments& a, std::optional<std::int32_t> ignored) const {
    const auto* labels = a.in<std::int32_t>(logits + 1);
    std::int64_t counted = rows;
    for (std::int64_t row = rows; row-- > 0;) {
      if (ignored && labels[row] == *ignored) {
        --counted;
      } else if (!has(labels[row])) {
        a.state->bad_row = static_cast<std::int32_t>(row);
        a.state->bad_label = labels[row];
      }
    }
    return counted;
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
  const auto [smoothing, ignored] = request.attributes<SoftmaxCrossEntropy>().options;
  const auto run = [=, smoothing = smoothing, ignored = ignored](const Arguments& a) {
    rows.for_each(a, [&](std::int64_t row, const float* x, std::int32_t label, float* scratch) {
      if (!rows.has(label)) {
        losses(a.workspace)[row] = label == ignored ? 0 : nan;
        return;
      }
      const float largest = x[largest_of(x, rows.classes)];
      double of_label = x[label] - largest, of_all = 0;
      if (smoothing > 0)
        for (std::int64_t i = 0; i < rows.classes; ++i) of_all += x[i] - largest;
      const double log_sum = std::log(exponentials(x, largest, rows.classes, scratch));
      const double target = smoothing > 0
                                ? (1.0 - smoothing) * of_label + smoothing * of_all / static_cast<double>(rows.classes)
                                : of_label;
      losses(a.workspace)[row] = log_sum - target;
    });
    double sum = 0;
    for (std::int64_t row = 0; row < rows.rows; ++row) sum += losses(a.workspace)[row];
    const auto counted = static_cast<double>(std::max<std::int64_t>(rows.count(a, ignored), 1));
    const auto mean = static_cast<float>(sum / counted);
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
  const auto [smoothing, ignored] = request.attributes<SoftmaxCrossEntropyGradient>().options;
  const float background = smoothing / static_cast<float>(rows.classes);
  const auto run = [=, smoothing = smoothing, ignored = ignored](const Arguments& a) {
    const Output d_logits(result, a, 0);
    float seed;
    const auto counted = static_cast<float>(std::max<std::int64_t>(rows.count(a, ignored), 1));
    const float factor = *Input(d_loss, a.inputs[0])(0, 1, &seed) / counted;
    rows.for_each(a, [&](std::int64_t row, const float* x, std::int32_t label, float* scratch) {
      const std::int64_t first = row * rows.classes;
      float* d = d_logits.place(first, scratch);
      const double sum = exponentials(x, x[largest_of(x, rows.classes)], rows.classes, scratch);
      if (rows.has(label)) {
        const float at_label = static_cast<float>(scratch[label] / sum - (1.0 - smoothing)) - background;
        slope(scratch, static_cast<float>(1 / sum), background, factor, rows.classes, d);
        d[label] = at_label * factor;
      } else {
        std::fill_n(d, rows.classes, label == ignored ? 0.0f : static_cast<float>(nan));
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

Launch mean_squared_error(const Request& request) {
  const Machine machine = machine_of(request);
  const std::int64_t count = request.inputs[0].shape.elements();
  std::size_t bytes = 0;
  const Arrays<double> partials((count + chunk - 1) / chunk, 1, bytes);
  const Access x_access(machine.isa, request.inputs[0]), target_access(machine.isa, request.inputs[1]);
  const Access y(machine.isa, request.outputs[0]);
  const auto distance = HALFTONE_PER_ISA(machine.isa, squared_distance);
  const auto run = [=, threads = machine.threads](const Arguments& a) {
    const Input x(x_access, a.inputs[0]), target(target_access, a.inputs[1]);
    for_chunks(threads, count, [&](std::int64_t first, std::int64_t n) {
      float buffers[2][chunk];
      partials(a.workspace)[first / chunk] = distance(x(first, n, buffers[0]), target(first, n, buffers[1]), n);
    });
    double sum = 0;
    for (std::int64_t i = 0; i < (count + chunk - 1) / chunk; ++i) sum += partials(a.workspace)[i];
    const auto mean = static_cast<float>(sum / static_cast<double>(count));
    Output(y, a, 0)(0, 1, &mean);
  };
  return {run, bytes};
}

Launch mean_squared_error_gradient(const Request& request) {
  const Machine machine = machine_of(request);
  const std::int64_t count = request.inputs[1].shape.elements();
  const Access d_loss(machine.isa, request.inputs[0]), x_access(machine.isa, request.inputs[1]),
      target_access(machine.isa, request.inputs[2]), d_x_access(machine.isa, request.outputs[0]);
  const auto difference = HALFTONE_PER_ISA(machine.isa, scaled_difference);
  const auto run = [=, threads = machine.threads](const Arguments& a) {
    const Input x(x_access, a.inputs[1]), target(target_access, a.inputs[2]);
    const Output d_x(d_x_access, a, 0);
    float seed;
    const auto factor = static_cast<float>(2.0 * *Input(d_loss, a.inputs[0])(0, 1, &seed) / static_cast<double>(count));
    for_chunks(threads, count, [&](std::int64_t first, std::int64_t n) {
      float buffers[2][chunk];
      float* to = d_x.place(first, buffers[0]);
      difference(x(first, n, buffers[0]), target(first, n, buffers[1]), factor, n, to);
      d_x(first, n, to);
    });
  };
  return {run};
}

}  // namespace halftone::cpu
#endif
