#include "halftone/ops/norm.hpp"
#include "kernels/cpu/backend.hpp"
#include "kernels/cpu/columns.hpp"
#include "kernels/cpu/storage.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/group_norm.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/strands-inl.hpp"

// A sample that is an image is normalised by columns, as batch norm does, with one set of coefficients per image. A
// sample that is a row is summed along its channels.

#ifndef HALFTONE_CPU_GROUP_NORM_ONCE
#define HALFTONE_CPU_GROUP_NORM_ONCE
namespace halftone::cpu {

/// The loops over the n numbers that one group has in one row; x^ = inverse (x - mean).
struct GroupLoops {
  /// sums[0] += x - x[0], sums[1] += (x - x[0])^2, in double.
  void (*moments)(const float* x, std::int64_t n, double* sums);
  /// y = gamma (x^ - shift) + beta; y may be x.
  void (*normalize)(const float* x, const float* gamma, const float* beta, float mean, float inverse, float shift,
                    std::int64_t n, float* y);
  /// d_gamma += d_y x^, d_beta += d_y, sums[0] += gamma d_y, sums[1] += gamma d_y x^.
  void (*gradient_sums)(const float* d_y, const float* x, const float* gamma, float mean, float inverse, std::int64_t n,
                        double* d_gamma, double* d_beta, double* sums);
  /// d_x = inverse (gamma d_y - (a + b x^)); d_x may be d_y.
  void (*d_input)(const float* d_y, const float* x, const float* gamma, float mean, float inverse, float a, float b,
                  std::int64_t n, float* d_x);
};

}  // namespace halftone::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {
namespace {

void moments(const float* x, std::int64_t n, double* sums) {
  const double shift = x[0];
  const auto shifted = [=](std::int64_t i) HWY_ATTR { return static_cast<double>(x[i]) - shift; };
  sums[0] += sum_of(n, shifted);
  sums[1] += sum_of(n, [=](std::int64_t i) HWY_ATTR { return shifted(i) * shifted(i); });
}

void normalize(const float* x, const float* gamma, const float* beta, float mean, float inverse, float shift,
               std::int64_t n, float* y) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) y[i] = gamma[i] * (inverse * (x[i] - mean) - shift) + beta[i];
}

void gradient_sums(const float* d_y, const float* x, const float* gamma, float mean, float inverse, std::int64_t n,
                   double* HWY_RESTRICT d_gamma, double* HWY_RESTRICT d_beta, double* sums) {
  for (std::int64_t i = 0; i < n; ++i) {
    d_gamma[i] += d_y[i] * (inverse * (x[i] - mean));
    d_beta[i] += d_y[i];
  }
  sums[0] += sum_of(n, [=](std::int64_t i) HWY_ATTR { return static_cast<double>(gamma[i] * d_y[i]); });
  sums[1] += sum_of(
      n, [=](std::int64_t i) HWY_ATTR { return static_cast<double>(gamma[i] * d_y[i] * (inverse * (x[i] - mean))); });
}

void d_input(const float* d_y, const float* x, const float* gamma, float mean, float inverse, float a, float b,
             std::int64_t n, float* d_x) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) d_x[i] = inverse * (gamma[i] * d_y[i] - (a + b * (inverse * (x[i] - mean))));
}

constexpr GroupLoops group_loops = {moments, normalize, gradient_sums, d_input};

}  // namespace
}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {
namespace {

/// How the samples are cut: `rows` rows of `c` channels in `groups` each, `count` numbers to a group.
struct Samples {
  Samples(Shape shape, int groups, bool per_pixel)
      : number(per_pixel ? shape.rows() : shape.n),
        rows(per_pixel ? 1 : shape.h * shape.w),
        c(shape.c),
        groups(groups),
        run(c / groups),
        count(static_cast<double>(rows * run)),
        columns(rows, c),
        task((number + 63) / 64) {}
  std::int64_t number, rows, c, groups, run;
  double count;
  Columns columns;    ///< of one sample
  std::int64_t task;  ///< samples
  std::int64_t tasks() const { return (number + task - 1) / task; }

  /// Calls f(sample, task, thread) for all.
  template <class F>
  void for_each(int threads, F&& f) const {
    parallel_for(threads, tasks(), [&](std::int64_t number_of_task, int thread) {
      const std::int64_t first = number_of_task * task, end = std::min(number, first + task);
      for (std::int64_t sample = first; sample < end; ++sample) f(sample, number_of_task, thread);
    });
  }
};

/// What forward and backward have in common: coefficients, scratch and the readers of one sample at a time.
struct Common {
  Common(const Request& request, const Samples& samples, std::size_t x_input, std::size_t gamma_input)
      : machine(machine_of(request)),
        s(samples),
        x(machine.isa, request.inputs[x_input]),
        gamma(machine.isa, request.inputs[gamma_input]),
        loops(column_loops(machine.isa)),
        group_loops(HALFTONE_PER_ISA(machine.isa, group_loops)),
        buffers(s.columns.chunk, 2 * machine.threads, bytes),
        coefficients(s.columns.width, 4 * machine.threads, bytes),
        vectors(s.c, 2, bytes),
        wide(2 * s.columns.width, machine.threads, bytes),
        narrow(2 * s.c, machine.threads, bytes) {}
  Machine machine;
  Samples s;
  Access x, gamma;
  ColumnLoops loops;
  GroupLoops group_loops;
  std::size_t bytes = 0;
  Arrays<float> buffers, coefficients, vectors;
  Arrays<double> wide, narrow;

  float* set(void* workspace, int thread, int i) const { return coefficients(workspace, 4 * thread + i); }

  /// Two sums per channel of one image; add(first, count, sums) adds a chunk's terms.
  template <class F>
  const double* sum_image(void* workspace, int thread, F&& add) const {
    double *sums = wide(workspace, thread), *totals = narrow(workspace, thread);
    std::fill_n(sums, 2 * s.columns.width, 0.0);
    std::fill_n(totals, 2 * s.c, 0.0);
    s.columns.for_chunks(0, s.columns.elements,
                         [&](std::int64_t first, std::int64_t count) { add(first, count, sums); });
    for (int kind : {0, 1}) s.columns.fold(sums + kind * s.columns.width, totals + kind * s.c);
    return totals;
  }
};

struct Forward : Common {
  Forward(const Request& request, const Samples& samples)
      : Common(request, samples, 0, 1),
        beta(machine.isa, request.inputs[2]),
        y(machine.isa, request.outputs[0]),
        normalize(normalizer(machine.isa, {})),
        epsilon(request.attributes<GroupNorm>().epsilon) {}
  Access beta, y;
  Normalize normalize;
  float epsilon;

  void run(const Arguments& a) const {
    const float* g = Input(gamma, a.inputs[1])(0, s.c, vectors(a.workspace, 0));
    const float* b = Input(beta, a.inputs[2])(0, s.c, vectors(a.workspace, 1));
    s.for_each(machine.threads, [&](std::int64_t sample, std::int64_t, int thread) {
      if (s.rows == 1)
        row(a, sample, thread, g, b);
      else
        image(a, sample, thread, g, b);
    });
  }

  void image(const Arguments& a, std::int64_t sample, int thread, const float* g, const float* b) const {
    const std::int64_t begin = sample * s.columns.elements;
    const Input from(x, a.inputs[0]);
    const Output result(y, a, 0);
    float* buffer = buffers(a.workspace, thread);
    float *mean = set(a.workspace, thread, 0), *factor = set(a.workspace, thread, 1),
          *offset = set(a.workspace, thread, 2);
    const float* first_row = from(begin, s.c, buffer);
    s.columns.fill(mean, [&](std::int64_t j) { return first_row[j / s.run * s.run]; });  // an estimate
    const double* totals = sum_image(a.workspace, thread, [&](std::int64_t first, std::int64_t count, double* sums) {
      loops.moments(from(begin + first, count, buffer), mean, count, s.columns.width, sums);
    });
    for (std::int64_t group = 0; group < s.groups; ++group) {
      double sum = 0, squares = 0;
      for (std::int64_t j = group * s.run; j < (group + 1) * s.run; ++j) sum += totals[j], squares += totals[s.c + j];
      const Statistics found = keep(a, sample, group, mean[group * s.run], sum, squares);
      for (std::int64_t j = group * s.run; j < (group + 1) * s.run; ++j) {
        mean[j] = found.mean;
        factor[j] = g[j] * found.inverse;
        offset[j] = static_cast<float>(b[j] - found.lost * g[j] * found.inverse);
      }
    }
    for (float* values : {mean, factor, offset}) s.columns.repeat(values);
    s.columns.for_chunks(0, s.columns.elements, [&](std::int64_t first, std::int64_t count) {
      float* to = result.place(begin + first, buffer);
      normalize(from(begin + first, count, buffer), mean, factor, offset, count, s.columns.width, to, {});
      result(begin + first, count, to);
    });
  }

  void row(const Arguments& a, std::int64_t sample, int thread, const float* g, const float* b) const {
    float* buffer = buffers(a.workspace, thread);
    const Output result(y, a, 0);
    const float* from = Input(x, a.inputs[0])(sample * s.c, s.c, buffer);
    float* to = result.place(sample * s.c, buffer);
    for (std::int64_t group = 0, j = 0; group < s.groups; ++group, j += s.run) {
      double sums[2] = {};
      group_loops.moments(from + j, s.run, sums);
      const Statistics found = keep(a, sample, group, from[j], sums[0], sums[1]);
      group_loops.normalize(from + j, g + j, b + j, found.mean, found.inverse,
                            static_cast<float>(found.lost * found.inverse), s.run, to + j);
    }
    result(sample * s.c, s.c, to);
  }

  Statistics keep(const Arguments& a, std::int64_t sample, std::int64_t group, float shift, double sum,
                  double squares) const {
    const Statistics found(shift, sum, squares, s.count, epsilon);
    float* to = a.out<float>(1) + 2 * (sample * s.groups + group);
    to[0] = found.mean, to[1] = found.inverse;
    return found;
  }
};

struct Backward : Common {
  Backward(const Request& request, const Samples& samples)
      : Common(request, samples, 1, 2),
        d_y(machine.isa, request.inputs[0]),
        d_x(machine.isa, request.outputs[0]),
        d_gamma(machine.isa, request.outputs[1]),
        d_beta(machine.isa, request.outputs[2]),
        partials(s.c, 2 * s.tasks(), bytes) {}
  Access d_y, d_x, d_gamma, d_beta;
  Arrays<double> partials;  ///< d_gamma and d_beta of each task

  void run(const Arguments& a) const {
    const float* g = Input(gamma, a.inputs[2])(0, s.c, vectors(a.workspace, 0));
    for (std::int64_t i = 0; i < 2 * s.tasks(); ++i) std::fill_n(partials(a.workspace, i), s.c, 0.0);
    s.for_each(machine.threads, [&](std::int64_t sample, std::int64_t task, int thread) {
      double *of_gamma = partials(a.workspace, 2 * task), *of_beta = partials(a.workspace, 2 * task + 1);
      if (s.rows == 1)
        row(a, sample, thread, g, of_gamma, of_beta);
      else
        image(a, sample, thread, g, of_gamma, of_beta);
    });
    for (const std::size_t which : {0, 1}) {
      float* total = vectors(a.workspace, which);
      for (std::int64_t j = 0; j < s.c; ++j) {
        double sum = 0;
        for (std::int64_t task = 0; task < s.tasks(); ++task) sum += partials(a.workspace, 2 * task + which)[j];
        total[j] = static_cast<float>(sum);
      }
      Output(which == 0 ? d_gamma : d_beta, a, 1 + which)(0, s.c, total);
    }
  }

  void image(const Arguments& a, std::int64_t sample, int thread, const float* g, double* of_gamma,
             double* of_beta) const {
    const std::int64_t begin = sample * s.columns.elements;
    const float* statistics = a.in<float>(3) + 2 * sample * s.groups;
    const Output result(d_x, a, 0);
    const auto read = [&](const Access& access, std::size_t input, std::int64_t first, std::int64_t count) {
      return Input(access, a.inputs[input])(begin + first, count,
                                            buffers(a.workspace, 2 * thread + static_cast<int>(input)));
    };
    float *mean = set(a.workspace, thread, 0), *factor = set(a.workspace, thread, 1),
          *slope = set(a.workspace, thread, 2), *offset = set(a.workspace, thread, 3);
    s.columns.fill(mean, [&](std::int64_t j) { return statistics[2 * (j / s.run)]; });
    const double* sum = sum_image(a.workspace, thread, [&](std::int64_t first, std::int64_t count, double* sums) {
      loops.gradient_sums(read(d_y, 0, first, count), read(x, 1, first, count), mean, count, s.columns.width, sums);
    });
    const double* product = sum + s.c;  // with x - mean
    for (std::int64_t group = 0; group < s.groups; ++group) {
      const double inverse = statistics[2 * group + 1];
      double a_sum = 0, b_sum = 0;
      for (std::int64_t j = group * s.run; j < (group + 1) * s.run; ++j) {
        of_gamma[j] += inverse * product[j];
        of_beta[j] += sum[j];
        a_sum += g[j] * sum[j];
        b_sum += g[j] * product[j];
      }
      for (std::int64_t j = group * s.run; j < (group + 1) * s.run; ++j) {
        factor[j] = static_cast<float>(g[j] * inverse);
        slope[j] = static_cast<float>(-inverse * inverse * inverse * b_sum / s.count);
        offset[j] = static_cast<float>(-inverse * a_sum / s.count);
      }
    }
    for (float* values : {factor, slope, offset}) s.columns.repeat(values);
    s.columns.for_chunks(0, s.columns.elements, [&](std::int64_t first, std::int64_t count) {
      float* to = result.place(begin + first, buffers(a.workspace, 2 * thread));
      loops.d_input(read(d_y, 0, first, count), read(x, 1, first, count), mean, factor, slope, offset, count,
                    s.columns.width, to);
      result(begin + first, count, to);
    });
  }

  void row(const Arguments& a, std::int64_t sample, int thread, const float* g, double* of_gamma,
           double* of_beta) const {
    const std::int64_t begin = sample * s.c;
    float* buffer = buffers(a.workspace, 2 * thread);
    const Output result(d_x, a, 0);
    const float* dy = Input(d_y, a.inputs[0])(begin, s.c, buffer);
    const float* from = Input(x, a.inputs[1])(begin, s.c, buffers(a.workspace, 2 * thread + 1));
    float* to = result.place(begin, buffer);
    for (std::int64_t group = 0, j = 0; group < s.groups; ++group, j += s.run) {
      const float* statistics = a.in<float>(3) + 2 * (sample * s.groups + group);
      double sums[2] = {};
      group_loops.gradient_sums(dy + j, from + j, g + j, statistics[0], statistics[1], s.run, of_gamma + j, of_beta + j,
                                sums);
      group_loops.d_input(dy + j, from + j, g + j, statistics[0], statistics[1], static_cast<float>(sums[0] / s.count),
                          static_cast<float>(sums[1] / s.count), s.run, to + j);
    }
    result(begin, s.c, to);
  }
};

template <class Pass>
Launch launch(const Request& request, const Samples& samples) {
  const Pass pass(request, samples);
  return {[pass](const Arguments& a) { pass.run(a); }, pass.bytes,
          same_places(request.inputs[0], request.outputs[0]) ? 0 : -1};
}

}  // namespace

Launch group_norm(const Request& request) {
  const auto& op = request.attributes<GroupNorm>();
  return launch<Forward>(request, {request.inputs[0].shape, op.groups, op.per_pixel});
}

Launch group_norm_gradient(const Request& request) {
  const auto& op = request.attributes<GroupNormGradient>();
  return launch<Backward>(request, {request.inputs[1].shape, op.groups, op.per_pixel});
}

}  // namespace halftone::cpu
#endif
