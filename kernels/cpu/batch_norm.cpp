#include <algorithm>
#include <limits>

#include "halftone/ops/norm.hpp"
#include "kernels/cpu/backend.hpp"
#include "kernels/cpu/columns.hpp"
#include "kernels/cpu/storage.hpp"

// Two passes over x forward (three where the variance needs the mean first), two over d_y and x backward; all sums in
// double and, forward, of x less its first row, so that no mean is too large.
namespace halftone::cpu {
namespace {

/// A vector of parameters or statistics as f32.
struct Vector {
  Vector(const Request& request, std::size_t input, std::size_t& bytes)
      : input(input), access(machine_of(request).isa, request.inputs[input]), buffer(access.count, 1, bytes) {}
  std::size_t input;
  Access access;
  Arrays<float> buffer;
  const float* read(const Arguments& a) const {
    return Input(access, a.inputs[input])(0, access.count, buffer(a.workspace));
  }
};

/// The pass that applies the coefficients (mean, factor, offset) to x.
struct NormalizePass {
  NormalizePass(const Request& request, const Machine& machine, const Columns& columns,
                const std::optional<Activation>& activation, std::size_t& bytes)
      : threads(machine.threads),
        columns(columns),
        x(machine.isa, request.inputs[0]),
        y(machine.isa, request.outputs[0]),
        buffers(columns.chunk, machine.threads, bytes),
        coefficients(columns.width, 3, bytes),
        normalize(normalizer(machine.isa, activation)),
        activation(activation.value_or(Activation{})) {}
  int threads;
  Columns columns;
  Access x, y;
  Arrays<float> buffers, coefficients;
  Normalize normalize;
  Activation activation;

  template <class F>
  void fill(void* workspace, int i, F&& of_channel) const {
    columns.fill(coefficients(workspace, i), of_channel);
  }

  void run(const Arguments& a) const {
    const Input from(x, a.inputs[0]);
    const Output result(y, a, 0);
    const auto set = [&](int i) { return coefficients(a.workspace, i); };
    parallel_for(threads, columns.tasks(), [&](std::int64_t task, int thread) {
      float* buffer = buffers(a.workspace, thread);
      columns.for_chunks_of(task, [&](std::int64_t first, std::int64_t count) {
        float* to = result.place(first, buffer);
        normalize(from(first, count, buffer), set(0), set(1), set(2), count, columns.width, to, activation);
        result(first, count, to);
      });
    });
  }
};

/// As f32; what that does not hold becomes its largest number.
float finite(double x) {
  constexpr double largest = std::numeric_limits<float>::max();
  return static_cast<float>(std::clamp(x, -largest, largest));
}

}  // namespace

Launch batch_norm(const Request& request) {
  const auto& op = request.attributes<BatchNorm>();
  const Machine machine = machine_of(request);
  const Shape shape = request.inputs[0].shape;
  const Columns columns(shape.rows(), shape.c);
  std::size_t bytes = 0;
  const NormalizePass pass(request, machine, columns, op.epilogue, bytes);
  const ColumnSums sums(columns, 2, machine.threads, bytes);
  const ColumnSums shift_sums(columns, op.shift_based ? 1 : 0, machine.threads, bytes);
  const Vector gamma(request, 1, bytes), beta(request, 2, bytes);
  const auto& loops = column_loops(machine.isa);

  const auto run = [=, epsilon = op.epsilon, shift_based = op.shift_based,
                    rows = static_cast<double>(shape.rows())](const Arguments& a) {
    const Input x(pass.x, a.inputs[0]);
    float* shift = pass.coefficients(a.workspace, 2);  // until the statistics are settled
    x.copy(0, columns.c, shift);
    columns.repeat(shift);
    const double* totals = sums.run(a.workspace, [&](std::int64_t first, std::int64_t count, int thread, double* wide) {
      loops.moments(x(first, count, pass.buffers(a.workspace, thread)), shift, count, columns.width, wide);
    });
    const float *g = gamma.read(a), *b = beta.read(a);
    float* const inverse = a.out<float>(2);
    const auto statistics = [&](std::int64_t j) {
      return Statistics(shift[j], totals[j], totals[columns.c + j], rows, epsilon);
    };
    pass.fill(a.workspace, 0, [&](std::int64_t j) { return a.out<float>(1)[j] = statistics(j).mean; });
    for (std::int64_t j = 0; j < columns.c; ++j) inverse[j] = statistics(j).inverse;
    if (shift_based) {
      pass.fill(a.workspace, 1, [&](std::int64_t j) { return statistics(j).lost; });
      const double* products =
          shift_sums.run(a.workspace, [&](std::int64_t first, std::int64_t count, int thread, double* wide) {
            loops.shift_moments(x(first, count, pass.buffers(a.workspace, thread)), pass.coefficients(a.workspace, 0),
                                pass.coefficients(a.workspace, 1), count, columns.width, wide);
          });
      for (std::int64_t j = 0; j < columns.c; ++j) inverse[j] = inverse_deviation(products[j] / rows, epsilon);
    }
    const auto factor = [&](std::int64_t j) {
      return std::pair(shift_factor(g[j], shift_based), shift_factor(inverse[j], shift_based));
    };
    pass.fill(a.workspace, 1, [&](std::int64_t j) { return factor(j).first * factor(j).second; });
    pass.fill(a.workspace, 2,
              [&](std::int64_t j) { return b[j] - statistics(j).lost * factor(j).first * factor(j).second; });
    pass.run(a);
  };
  return {run, bytes, same_places(request.inputs[0], request.outputs[0]) ? 0 : -1};
}

Launch batch_norm_inference(const Request& request) {
  const auto& op = request.attributes<BatchNormInference>();
  const Machine machine = machine_of(request);
  const Shape shape = request.inputs[0].shape;
  std::size_t bytes = 0;
  const NormalizePass pass(request, machine, Columns(shape.rows(), shape.c), op.epilogue, bytes);
  const Vector gamma(request, 1, bytes), beta(request, 2, bytes);
  const Vector mean(request, 3, bytes), variance(request, 4, bytes);

  const auto run = [=, factor = op.factor()](const Arguments& a) {
    const float *g = gamma.read(a), *b = beta.read(a);
    const float *m = mean.read(a), *v = variance.read(a);
    pass.fill(a.workspace, 0, [&](std::int64_t j) { return m[j]; });
    pass.fill(a.workspace, 1, [&](std::int64_t j) { return factor(g[j], v[j]); });
    pass.fill(a.workspace, 2, [&](std::int64_t j) { return b[j]; });
    pass.run(a);
  };
  return {run, bytes, same_places(request.inputs[0], request.outputs[0]) ? 0 : -1};
}

Launch batch_norm_inference_gradient(const Request& request) {
  const auto& op = request.attributes<BatchNormInferenceGradient>();
  const Shape shape = request.inputs[0].shape;
  std::size_t bytes = 0;
  const NormalizePass pass(request, machine_of(request), Columns(shape.rows(), shape.c), {}, bytes);
  const Vector gamma(request, 1, bytes), variance(request, 2, bytes);

  const auto run = [=, factor = op.factor()](const Arguments& a) {
    const float *g = gamma.read(a), *v = variance.read(a);
    for (const int i : {0, 2}) pass.fill(a.workspace, i, [](std::int64_t) { return 0.0f; });
    pass.fill(a.workspace, 1, [&](std::int64_t j) { return factor(g[j], v[j]); });
    pass.run(a);
  };
  return {run, bytes, same_places(request.inputs[0], request.outputs[0]) ? 0 : -1};
}

Launch batch_norm_gradient(const Request& request) {
  const auto& op = request.attributes<BatchNormGradient>();
  const Machine machine = machine_of(request);
  const Shape shape = request.inputs[1].shape;
  const Columns columns(shape.rows(), shape.c);
  std::size_t bytes = 0;
  const Arrays<float> buffers(columns.chunk, 2 * machine.threads, bytes), coefficients(columns.width, 4, bytes);
  const ColumnSums sums(columns, 2, machine.threads, bytes);
  const Vector gamma(request, 2, bytes);
  const Access d_y_access(machine.isa, request.inputs[0]), x_access(machine.isa, request.inputs[1]);
  const Access d_x_access(machine.isa, request.outputs[0]), d_gamma(machine.isa, request.outputs[1]),
      d_beta(machine.isa, request.outputs[2]);
  const auto& loops = column_loops(machine.isa);

  const auto run = [=, threads = machine.threads, shift_based = op.shift_based,
                    rows = static_cast<double>(shape.rows())](const Arguments& a) {
    const Input d_y(d_y_access, a.inputs[0]), x(x_access, a.inputs[1]);
    const Output d_x(d_x_access, a, 0);
    const float* mean = a.in<float>(3);
    const auto inverse = [&](std::int64_t j) { return shift_factor(a.in<float>(4)[j], shift_based); };
    const auto set = [&](int i) { return coefficients(a.workspace, i); };
    const auto fill = [&](int i, auto&& of_channel) { columns.fill(set(i), of_channel); };
    const auto buffer = [&](int thread, int i) { return buffers(a.workspace, 2 * thread + i); };
    fill(0, [&](std::int64_t j) { return mean[j]; });
    const double* sum = sums.run(a.workspace, [&](std::int64_t first, std::int64_t count, int thread, double* wide) {
      loops.gradient_sums(d_y(first, count, buffer(thread, 0)), x(first, count, buffer(thread, 1)), set(0), count,
                          columns.width, wide);
    });
    const double* product = sum + columns.c;  // with x - mean
    const float* g = gamma.read(a);
    fill(1, [&](std::int64_t j) { return product[j] * inverse(j); });
    Output(d_gamma, a, 1)(0, columns.c, set(1));
    fill(1, [&](std::int64_t j) { return sum[j]; });
    Output(d_beta, a, 2)(0, columns.c, set(1));
    const auto factor = [&](std::int64_t j) {
      return static_cast<double>(shift_factor(g[j], shift_based)) * inverse(j);
    };
    fill(1, factor);
    fill(2, [&](std::int64_t j) { return -factor(j) * inverse(j) * inverse(j) * product[j] / rows; });
    fill(3, [&](std::int64_t j) { return -factor(j) * sum[j] / rows; });

    parallel_for(threads, columns.tasks(), [&](std::int64_t task, int thread) {
      columns.for_chunks_of(task, [&](std::int64_t first, std::int64_t count) {
        float* to = d_x.place(first, buffer(thread, 0));
        loops.d_input(d_y(first, count, buffer(thread, 0)), x(first, count, buffer(thread, 1)), set(0), set(1), set(2),
                      set(3), count, columns.width, to);
        d_x(first, count, to);
      });
    });
  };
  return {run, bytes, same_places(request.inputs[0], request.outputs[0]) ? 0 : -1};
}

Launch update_running_statistics(const Request& request) {
  const auto& op = request.attributes<UpdateRunningStatistics>();
  const double rows = static_cast<double>(op.rows), unbiased = rows / std::max(rows - 1, 1.0);
  return {[=, epsilon = op.epsilon, momentum = op.momentum, c = request.inputs[0].shape.c](const Arguments& a) {
    if (!a.state->good) return;
    const auto *mean = a.in<float>(0), *inverse = a.in<float>(1);
    auto *running_mean = a.out<float>(0), *running_variance = a.out<float>(1);
    for (std::int64_t j = 0; j < c; ++j) {
      const double variance = std::max(1 / (static_cast<double>(inverse[j]) * inverse[j]) - epsilon, 0.0) * unbiased;
      running_mean[j] = finite((1.0 - momentum) * running_mean[j] + static_cast<double>(momentum) * mean[j]);
      running_variance[j] = finite((1.0 - momentum) * running_variance[j] + momentum * variance);
    }
  }};
}

}  // namespace halftone::cpu
