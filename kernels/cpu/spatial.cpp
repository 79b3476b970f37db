#include "halftone/ops/spatial.hpp"

#include <algorithm>

#include "kernels/cpu/backend.hpp"
#include "kernels/cpu/columns.hpp"
#include "kernels/cpu/storage.hpp"

// A task is a row of the result or, where sums run over an image, that image. All loops are over channels or whole rows
// of pixels in f32.
namespace halftone::cpu {
namespace {

std::vector<Taps> all_taps(std::int64_t extent, int factor, Interpolation interpolation) {
  std::vector<Taps> taps;
  for (std::int64_t i = 0; i < extent * factor; ++i) taps.push_back(taps_of(i, factor, extent, interpolation));
  return taps;
}

void add_times(float factor, const float* from, float* to, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) to[i] += factor * from[i];
}

void blend(const float* lower, const float* upper, float share, float* to, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) to[i] = (1 - share) * lower[i] + share * upper[i];
}

/// The outputs that input i may be part of.
struct Reach {
  std::int64_t first, last;
  Reach(std::int64_t i, int factor, std::int64_t extent)
      : first(std::max<std::int64_t>(i - 1, 0) * factor), last(std::min(i + 2, extent) * factor) {}
};

}  // namespace

Launch pad2d(const Request& request) {
  const Margins margins = request.attributes<Pad2d>().margins;
  const Machine machine = machine_of(request);
  const Shape x = request.inputs[0].shape, y = request.outputs[0].shape;
  const Access read(machine.isa, request.inputs[0]), written(machine.isa, request.outputs[0]);
  const std::int64_t row = y.w * y.c, left = std::max(margins.left, 0) * y.c, skipped = std::max(-margins.left, 0);
  const std::int64_t kept = std::min(x.w - skipped, y.w - std::max(margins.left, 0)) * y.c;
  std::size_t bytes = 0;
  const Arrays<float> buffers(row, machine.threads, bytes);
  const auto run = [=](const Arguments& a) {
    const Input from(read, a.inputs[0]);
    const Output to(written, a, 0);
    parallel_for(machine.threads, y.n * y.h, [&](std::int64_t task, int thread) {
      float* numbers = to.place(task * row, buffers(a.workspace, thread));
      std::fill_n(numbers, row, 0.0f);
      const std::int64_t image = task / y.h, line = task % y.h - margins.top;
      if (line >= 0 && line < x.h) from.copy(((image * x.h + line) * x.w + skipped) * x.c, kept, numbers + left);
      to(task * row, row, numbers);
    });
  };
  return {run, bytes};
}

Launch upsample2d(const Request& request) {
  const auto& op = request.attributes<Upsample2d>();
  const Machine machine = machine_of(request);
  const Shape x = request.inputs[0].shape, y = request.outputs[0].shape;
  const Access read(machine.isa, request.inputs[0]), written(machine.isa, request.outputs[0]);
  const std::int64_t row = y.w * y.c, x_row = x.w * x.c;
  std::size_t bytes = 0;
  const Arrays<float> buffers(row, machine.threads, bytes), lines(x_row, 2 * machine.threads, bytes);
  const auto run = [=, rows = all_taps(x.h, op.factor.h, op.interpolation),
                    columns = all_taps(x.w, op.factor.w, op.interpolation)](const Arguments& a) {
    const Input from(read, a.inputs[0]);
    const Output to(written, a, 0);
    parallel_for(machine.threads, y.n * y.h, [&](std::int64_t task, int thread) {
      float *line = lines(a.workspace, 2 * thread), *upper = lines(a.workspace, 2 * thread + 1);
      const Taps& taps = rows[static_cast<std::size_t>(task % y.h)];
      const std::int64_t image = task / y.h * x.h;
      from.copy((image + taps.lower) * x_row, x_row, line);
      if (taps.share > 0) blend(line, from((image + taps.upper) * x_row, x_row, upper), taps.share, line, x_row);
      float* numbers = to.place(task * row, buffers(a.workspace, thread));
      for (std::int64_t q = 0; q < y.w; ++q) {
        const Taps& tap = columns[static_cast<std::size_t>(q)];
        const float* lower = line + tap.lower * x.c;
        if (tap.share > 0) {
          blend(lower, line + tap.upper * x.c, tap.share, numbers + q * x.c, x.c);
        } else {
          std::copy_n(lower, x.c, numbers + q * x.c);
        }
      }
      to(task * row, row, numbers);
    });
  };
  return {run, bytes};
}

Launch upsample2d_gradient(const Request& request) {
  const auto& op = request.attributes<Upsample2dGradient>();
  const Machine machine = machine_of(request);
  const Shape y = request.inputs[0].shape, x = request.outputs[0].shape;
  const Access read(machine.isa, request.inputs[0]), written(machine.isa, request.outputs[0]);
  const std::int64_t y_row = y.w * y.c, row = x.w * x.c;
  std::size_t bytes = 0;
  const Arrays<float> buffers(row, machine.threads, bytes), lines(y_row, 2 * machine.threads, bytes);
  const auto run = [=, factor = op.factor, rows = all_taps(x.h, op.factor.h, op.interpolation),
                    columns = all_taps(x.w, op.factor.w, op.interpolation)](const Arguments& a) {
    const Input from(read, a.inputs[0]);
    const Output to(written, a, 0);
    parallel_for(machine.threads, x.n * x.h, [&](std::int64_t task, int thread) {
      float *sum = lines(a.workspace, 2 * thread), *line_of_y = lines(a.workspace, 2 * thread + 1);
      float* numbers = to.place(task * row, buffers(a.workspace, thread));
      std::fill_n(sum, y_row, 0.0f);
      const std::int64_t image = task / x.h, line = task % x.h;
      for (Reach r(line, factor.h, x.h); r.first < r.last; ++r.first)
        if (const float part = rows[static_cast<std::size_t>(r.first)].of(line); part > 0)
          add_times(part, from((image * y.h + r.first) * y_row, y_row, line_of_y), sum, y_row);
      std::fill_n(numbers, row, 0.0f);
      for (std::int64_t j = 0; j < x.w; ++j)
        for (Reach r(j, factor.w, x.w); r.first < r.last; ++r.first)
          if (const float part = columns[static_cast<std::size_t>(r.first)].of(j); part > 0)
            add_times(part, sum + r.first * x.c, numbers + j * x.c, x.c);
      to(task * row, row, numbers);
    });
  };
  return {run, bytes};
}

namespace {

/// y = f(x, number of the channel), where each image has numbers of its own or all have the same.
template <class F>
Launch with_channels(const Request& request, bool of_images, F f) {
  const Machine machine = machine_of(request);
  const Shape x = request.inputs[0].shape;
  const Access read(machine.isa, request.inputs[0]), of_numbers(machine.isa, request.inputs[1]),
      written(machine.isa, request.outputs[0]);
  const std::int64_t row = x.w * x.c;
  std::size_t bytes = 0;
  const Arrays<float> buffers(row, machine.threads, bytes), channels(x.c, machine.threads, bytes);
  const auto run = [=](const Arguments& a) {
    const Input from(read, a.inputs[0]), numbers(of_numbers, a.inputs[1]);
    const Output to(written, a, 0);
    parallel_for(machine.threads, x.n * x.h, [&](std::int64_t task, int thread) {
      float* buffer = buffers(a.workspace, thread);
      const std::int64_t image = of_images ? task / x.h : 0;
      const float *number = numbers(image * x.c, x.c, channels(a.workspace, thread)),
                  *before = from(task * row, row, buffer);
      float* after = to.place(task * row, buffer);
      for (std::int64_t first = 0; first < row; first += x.c) {
#pragma omp simd
        for (std::int64_t c = 0; c < x.c; ++c) after[first + c] = f(before[first + c], number[c]);
      }
      to(task * row, row, after);
    });
  };
  return {run, bytes, same_places(request.inputs[0], request.outputs[0]) ? 0 : -1};
}

}  // namespace

Launch scale_channels(const Request& request) {
  return with_channels(request, true, [](float x, float factor) { return x * factor; });
}

Launch add_channels(const Request& request) {
  return with_channels(request, false, [](float x, float number) { return x + number; });
}

Launch scale_channels_gradient(const Request& request) {
  const Machine machine = machine_of(request);
  const Shape x = request.inputs[1].shape;
  const Access of_d_y(machine.isa, request.inputs[0]), of_x(machine.isa, request.inputs[1]),
      written(machine.isa, request.outputs[0]);
  const std::int64_t row = x.w * x.c;
  std::size_t bytes = 0;
  const Arrays<float> buffers(row, 2 * machine.threads, bytes), results(x.c, machine.threads, bytes);
  const Arrays<double> sums(x.c, machine.threads, bytes);
  const auto run = [=](const Arguments& a) {
    const Input d_y(of_d_y, a.inputs[0]), from(of_x, a.inputs[1]);
    const Output to(written, a, 0);
    parallel_for(machine.threads, x.n, [&](std::int64_t image, int thread) {
      double* sum = sums(a.workspace, thread);
      std::fill_n(sum, x.c, 0.0);
      for (std::int64_t line = image * x.h; line < (image + 1) * x.h; ++line) {
        const float *d = d_y(line * row, row, buffers(a.workspace, 2 * thread)),
                    *v = from(line * row, row, buffers(a.workspace, 2 * thread + 1));
        for (std::int64_t first = 0; first < row; first += x.c) {
#pragma omp simd
          for (std::int64_t c = 0; c < x.c; ++c) sum[c] += static_cast<double>(d[first + c]) * v[first + c];
        }
      }
      float* result = results(a.workspace, thread);
      std::copy_n(sum, x.c, result);
      to(image * x.c, x.c, result);
    });
  };
  return {run, bytes};
}

}  // namespace halftone::cpu
