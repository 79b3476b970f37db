#include "halftone/ops/norm.hpp"
#include "kernels/cpu/backend.hpp"
#include "kernels/cpu/columns.hpp"
#include "kernels/cpu/rows.hpp"

// Two passes over x forward, two over d_y and x backward; all sums in double, so that no mean is too large.
namespace halftone::cpu {
namespace {

/// A vector of parameters or statistics as f32.
struct Vector {
  Vector(const Machine& machine, const ValueSpec& value, std::size_t& bytes)
      : reader(machine, value), count(value.shape.c), buffer(count, 1, bytes) {}
  Reader reader;
  std::int64_t count;
  Arrays<float> buffer;
  const float* read(const void* data, void* workspace) const { return reader(data, 0, count, buffer(workspace)); }
};

/// The pass that applies the coefficients (mean, factor, offset) to x.
struct NormalizePass {
  NormalizePass(const Request& request, const Machine& machine, const Columns& columns,
                const std::optional<Activation>& activation, std::size_t& bytes)
      : threads(machine.threads),
        columns(columns),
        x(machine, request.inputs[0]),
        y(machine, request.outputs[0]),
        buffers(columns.chunk, machine.threads, bytes),
        coefficients(columns.width, 3, bytes),
        normalize(normalizer(machine.isa, activation)),
        activation(activation.value_or(Activation{})) {}
  int threads;
  Columns columns;
  Reader x;
  Writer y;
  Arrays<float> buffers, coefficients;
  Normalize normalize;
  Activation activation;

  template <class F>
  void fill(void* workspace, int i, F&& of_channel) const {
    columns.fill(coefficients(workspace, i), of_channel);
  }

  void run(const Arguments& a) const {
    const auto set = [&](int i) { return coefficients(a.workspace, i); };
    parallel_for(threads, columns.tasks(), [&](std::int64_t task, int thread) {
      float* buffer = buffers(a.workspace, thread);
      columns.for_chunks_of(task, [&](std::int64_t first, std::int64_t count) {
        float* to = y.place(a.outputs[0], first, buffer);
        normalize(x(a.inputs[0], first, count, buffer), set(0), set(1), set(2), count, columns.width, to, activation);
        y(a.outputs[0], first, count, to);
      });
    });
  }
};

}  // namespace

Offer batch_norm(const Request& request) {
  const auto& op = request.attributes<BatchNorm>();
  const Machine machine = machine_of(request);
  const Shape shape = request.inputs[0].shape;
  const Columns columns(shape.rows(), shape.c);
  std::size_t bytes = 0;
  const NormalizePass pass(request, machine, columns, op.epilogue, bytes);
  const ColumnSums sums(columns, 2, machine.threads, bytes);
  const Vector gamma(machine, request.inputs[1], bytes), beta(machine, request.inputs[2], bytes);
  const auto& loops = column_loops(machine.isa);

  const auto run = [=, epsilon = op.epsilon, rows = static_cast<double>(shape.rows())](const Arguments& a) {
    const double* totals = sums.run(a.workspace, [&](std::int64_t first, std::int64_t count, int thread, double* wide) {
      loops.moments(pass.x(a.inputs[0], first, count, pass.buffers(a.workspace, thread)), count, columns.width, wide);
    });
    const float *g = gamma.read(a.inputs[1], a.workspace), *b = beta.read(a.inputs[2], a.workspace);
    const auto statistics = [&](std::int64_t j) { return Statistics(totals[j], totals[columns.c + j], rows, epsilon); };
    pass.fill(a.workspace, 0, [&](std::int64_t j) { return a.out<float>(1)[j] = statistics(j).mean; });
    pass.fill(a.workspace, 1, [&](std::int64_t j) { return g[j] * (a.out<float>(2)[j] = statistics(j).inverse); });
    pass.fill(a.workspace, 2, [&](std::int64_t j) { return b[j] - statistics(j).rest * g[j] * statistics(j).inverse; });
    pass.run(a);
  };
  return Launch{run, bytes, in_place(request.inputs[0], request.outputs[0])};
}

Offer batch_norm_inference(const Request& request) {
  const auto& op = request.attributes<BatchNormInference>();
  const Machine machine = machine_of(request);
  const Shape shape = request.inputs[0].shape;
  std::size_t bytes = 0;
  const NormalizePass pass(request, machine, Columns(shape.rows(), shape.c), op.epilogue, bytes);
  const Vector gamma(machine, request.inputs[1], bytes), beta(machine, request.inputs[2], bytes);
  const Vector mean(machine, request.inputs[3], bytes), variance(machine, request.inputs[4], bytes);

  const auto run = [=, epsilon = op.epsilon](const Arguments& a) {
    const float *g = gamma.read(a.inputs[1], a.workspace), *b = beta.read(a.inputs[2], a.workspace);
    const float *m = mean.read(a.inputs[3], a.workspace), *v = variance.read(a.inputs[4], a.workspace);
    pass.fill(a.workspace, 0, [&](std::int64_t j) { return m[j]; });
    pass.fill(a.workspace, 1, [&](std::int64_t j) { return g[j] / std::sqrt(static_cast<double>(v[j]) + epsilon); });
    pass.fill(a.workspace, 2, [&](std::int64_t j) { return b[j]; });
    pass.run(a);
  };
  return Launch{run, bytes, in_place(request.inputs[0], request.outputs[0])};
}

Offer batch_norm_gradient(const Request& request) {
  const Machine machine = machine_of(request);
  const Shape shape = request.inputs[1].shape;
  const Columns columns(shape.rows(), shape.c);
  std::size_t bytes = 0;
  const Arrays<float> buffers(columns.chunk, 2 * machine.threads, bytes), coefficients(columns.width, 4, bytes);
  const ColumnSums sums(columns, 2, machine.threads, bytes);
  const Vector gamma(machine, request.inputs[2], bytes);
  const Reader d_y(machine, request.inputs[0]), x(machine, request.inputs[1]);
  const Writer d_x(machine, request.outputs[0]), d_gamma(machine, request.outputs[1]),
      d_beta(machine, request.outputs[2]);
  const auto& loops = column_loops(machine.isa);

  const auto run = [=, threads = machine.threads, rows = static_cast<double>(shape.rows())](const Arguments& a) {
    const auto *mean = a.in<float>(3), *inverse = a.in<float>(4);
    const auto set = [&](int i) { return coefficients(a.workspace, i); };
    const auto fill = [&](int i, auto&& of_channel) { columns.fill(set(i), of_channel); };
    const auto read = [&](const Reader& reader, std::size_t input, std::int64_t first, std::int64_t count, int thread) {
      return reader(a.inputs[input], first, count, buffers(a.workspace, 2 * thread + static_cast<int>(input)));
    };
    fill(0, [&](std::int64_t j) { return mean[j]; });
    const double* sum = sums.run(a.workspace, [&](std::int64_t first, std::int64_t count, int thread, double* wide) {
      loops.gradient_sums(read(d_y, 0, first, count, thread), read(x, 1, first, count, thread), set(0), count,
                          columns.width, wide);
    });
    const double* product = sum + columns.c;  // with x - mean
    const float* g = gamma.read(a.inputs[2], a.workspace);
    fill(1, [&](std::int64_t j) { return product[j] * inverse[j]; });
    d_gamma(a.outputs[1], 0, columns.c, set(1));
    fill(1, [&](std::int64_t j) { return sum[j]; });
    d_beta(a.outputs[2], 0, columns.c, set(1));
    const auto factor = [&](std::int64_t j) { return static_cast<double>(g[j]) * inverse[j]; };
    fill(1, factor);
    fill(2, [&](std::int64_t j) { return -factor(j) * inverse[j] * inverse[j] * product[j] / rows; });
    fill(3, [&](std::int64_t j) { return -factor(j) * sum[j] / rows; });

    parallel_for(threads, columns.tasks(), [&](std::int64_t task, int thread) {
      columns.for_chunks_of(task, [&](std::int64_t first, std::int64_t count) {
        float* to = d_x.place(a.outputs[0], first, buffers(a.workspace, 2 * thread));
        loops.d_input(read(d_y, 0, first, count, thread), read(x, 1, first, count, thread), set(0), set(1), set(2),
                      set(3), count, columns.width, to);
        d_x(a.outputs[0], first, count, to);
      });
    });
  };
  return Launch{run, bytes, in_place(request.inputs[0], request.outputs[0])};
}

Offer update_running_statistics(const Request& request) {
  const auto& op = request.attributes<UpdateRunningStatistics>();
  const double rows = static_cast<double>(op.rows), unbiased = rows / std::max(rows - 1, 1.0);
  return Launch{[=, epsilon = op.epsilon, momentum = op.momentum, c = request.inputs[0].shape.c](const Arguments& a) {
    if (!a.state->good) return;
    const auto *mean = a.in<float>(0), *inverse = a.in<float>(1);
    auto *running_mean = a.out<float>(0), *running_variance = a.out<float>(1);
    for (std::int64_t j = 0; j < c; ++j) {
      const double variance = std::max(1 / (static_cast<double>(inverse[j]) * inverse[j]) - epsilon, 0.0) * unbiased;
      running_mean[j] =
          static_cast<float>((1.0 - momentum) * running_mean[j] + static_cast<double>(momentum) * mean[j]);
      running_variance[j] = static_cast<float>((1.0 - momentum) * running_variance[j] + momentum * variance);
    }
  }};
}

}  // namespace halftone::cpu
