#include "halftone/ops/pool2d.hpp"

#include "kernels/cpu/backend.hpp"
#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/storage.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/pool2d.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

// Pooling works on rows of pixels in f32. Forward, a task is some output rows: the input rows of each are reduced to
// one, which is all of the work and vectorises over pixels and channels alike, then the pixels of that row. Backward, a
// task is one image: its rows pass through a band as high as the window. Vectors run over channels; where there are
// fewer than lanes the surplus falls on the next pixel, which is written later, or behind the row: rows here end with
// `spare` floats.
#ifndef HALFTONE_CPU_POOL2D_ONCE
#define HALFTONE_CPU_POOL2D_ONCE
namespace halftone::cpu {

inline constexpr std::int64_t spare = 16;

/// The stretch [first, last) of the image that a window covers in one direction; `divisor` is what it counts for in an
/// average.
struct Span {
  std::int64_t first, last, divisor;
  std::int64_t count() const { return last - first; }
};

/// Windows along one direction.
struct Windows {
  std::int64_t size, stride, padding, extent, count;
  bool count_padding;
  Span operator[](std::int64_t i) const {
    const std::int64_t start = i * stride - padding, end = start + size;
    const std::int64_t first = std::max<std::int64_t>(start, 0), last = std::min(end, extent);
    return {first, last, count_padding ? std::min(end, extent + padding) - start : last - first};
  }
};

struct Pool {
  Windows h, w;
  std::int64_t n, c;
  bool rectified = false;  ///< backward: x comes out of a relu, whose slope counts too

  Pool(const PoolAttributes& a, const Shape& x, const Shape& y)
      : h{a.global ? x.h : a.window.h, a.global ? x.h : a.stride.h, a.padding.h, x.h, y.h, a.count_include_pad},
        w{a.global ? x.w : a.window.w, a.global ? x.w : a.stride.w, a.padding.w, x.w, y.w, a.count_include_pad},
        n(x.n),
        c(x.c) {}

  std::int64_t row() const { return w.extent * c; }  ///< elements of an input row
  std::int64_t output_row() const { return w.count * c; }
  std::int64_t pitch() const { return row() + spare; }
  std::int64_t output_pitch() const { return output_row() + spare; }
  /// No pixel is in two windows, and no column before the last window in none.
  bool tiled() const { return h.stride >= h.size && w.stride == w.size; }
};

/// Reduces two rows to a third, which may be one of them.
using CombineLoop = void (*)(const float* a, const float* b, float* to, std::int64_t count);
/// Reduces the pixels of each window in a row that stands for `rows`.
using ReduceLoop = void (*)(const Pool&, const float* row, float* output, const Span& rows);
/// Adds the gradient of one output row to `rows` of the image, or writes these rows whole where the pool is tiled; x
/// holds the image's own.
using GradientLoop = void (*)(const Pool&, const float* d_output, const float* x, const Span& rows, float* d_input);

struct PoolLoops {
  CombineLoop combine;
  ReduceLoop reduce;
};

}  // namespace halftone::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Narrow = hn::CappedTag<float, 8>;
using Wide = hn::CappedTag<float, spare>;

struct Larger {
  static float of(float a, float b) { return math::select((b > a) | (b != b), b, a); }
  template <class D, class V>
  static auto better(D, V a, V b) {
    return hn::Or(hn::Gt(b, a), hn::IsNaN(b));
  }
  template <class D, class V>
  static V of(D d, V a, V b) {
    return hn::IfThenElse(better(d, a, b), b, a);
  }
  template <class D, class V>
  static V finish(D, V value, std::int64_t) {
    return value;
  }
};

struct Mean {
  static float of(float a, float b) { return a + b; }
  template <class D, class V>
  static V of(D, V a, V b) {
    return hn::Add(a, b);
  }
  template <class D, class V>
  static V finish(D d, V sum, std::int64_t pixels) {
    return hn::Div(sum, hn::Set(d, static_cast<float>(pixels)));
  }
};

template <class F>
void combine(const float* a, const float* b, float* to, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) to[i] = F::of(a[i], b[i]);
}

template <class F, class D>
void reduce_pixels(const Pool& pool, const float* row, float* output, const Span& rows) {
  const D d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t c = pool.c, last_start = std::max<std::int64_t>(c - lanes, 0);
  for (std::int64_t q = 0; q < pool.w.count; ++q) {
    const Span columns = pool.w[q];
    for (std::int64_t block = 0; block < c; block += lanes) {
      const std::int64_t k = std::min(block, last_start);
      auto value = hn::LoadU(d, row + columns.first * c + k);
      for (std::int64_t i = columns.first + 1; i < columns.last; ++i)
        value = F::of(d, value, hn::LoadU(d, row + i * c + k));
      hn::StoreU(F::finish(d, value, rows.divisor * columns.divisor), d, output + q * c + k);
    }
  }
}

/// Where channel vectors of one pixel stand. Tiled rows are stored in order, so that a surplus is overwritten, and the
/// last vector of many channels is drawn back; in others `value` must be 0 in the surplus, since it is added.
template <bool tiled, class D, class V>
void put(D d, V value, float* to) {
  hn::StoreU(tiled ? value : hn::Add(hn::LoadU(d, to), value), d, to);
}

template <bool tiled, class D>
auto load_gradient(D d, const float* from, std::int64_t channels_left) {
  const auto value = hn::LoadU(d, from);
  return tiled ? value : hn::IfThenElseZero(hn::FirstN(d, static_cast<std::size_t>(channels_left)), value);
}

template <bool tiled, class D>
void max_gradient(const Pool& pool, const float* d_output, const float* x, const Span& rows, float* d_input) {
  const D d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t c = pool.c, pitch = pool.pitch(), last_start = tiled ? std::max<std::int64_t>(c - lanes, 0) : c;
  for (std::int64_t q = 0; q < pool.w.count; ++q) {
    const Span columns = pool.w[q];
    for (std::int64_t block = 0; block < c; block += lanes) {
      const std::int64_t k = std::min(block, last_start), first = columns.first * c + k, last = columns.last * c + k;
      auto best = hn::LoadU(d, x + first);
      auto winner = hn::Zero(d), tap = winner;
      const auto one = hn::Set(d, 1.0f);
      for (std::int64_t r = 0; r < rows.count(); ++r) {
        for (std::int64_t i = first; i < last; i += c, tap = hn::Add(tap, one)) {
          const auto value = hn::LoadU(d, x + r * pitch + i);
          const auto better = Larger::better(d, best, value);
          best = hn::IfThenElse(better, value, best);
          winner = hn::IfThenElse(better, tap, winner);
        }
      }
      auto gradient = load_gradient<tiled>(d, d_output + q * c + k, c - k);
      tap = hn::Zero(d);
      if (pool.rectified) gradient = hn::Mul(gradient, hn::IfThenElse(hn::Le(best, tap), tap, one));
      for (std::int64_t r = 0; r < rows.count(); ++r)
        for (std::int64_t i = first; i < last; i += c, tap = hn::Add(tap, one))
          put<tiled>(d, hn::IfThenElseZero(hn::Eq(winner, tap), gradient), d_input + r * pitch + i);
    }
  }
  const std::int64_t end = pool.w[pool.w.count - 1].last * c;
  for (std::int64_t r = 0; tiled && r < rows.count(); ++r)
    std::fill(d_input + r * pitch + end, d_input + (r + 1) * pitch, 0.0f);
}

template <bool tiled, class D>
void mean_gradient(const Pool& pool, const float* d_output, const float*, const Span& rows, float* d_input) {
  const D d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t c = pool.c, pitch = pool.pitch(), last_start = tiled ? std::max<std::int64_t>(c - lanes, 0) : c;
  for (std::int64_t q = 0; q < pool.w.count; ++q) {
    const Span columns = pool.w[q];
    const auto pixels = hn::Set(d, static_cast<float>(rows.divisor * columns.divisor));
    for (std::int64_t i = columns.first; i < columns.last; ++i) {
      for (std::int64_t block = 0; block < c; block += lanes) {
        const std::int64_t k = std::min(block, last_start);
        const auto share = hn::Div(load_gradient<tiled>(d, d_output + q * c + k, c - k), pixels);
        for (std::int64_t r = 0; r < rows.count(); ++r) put<tiled>(d, share, d_input + r * pitch + i * c + k);
      }
    }
  }
  const std::int64_t end = pool.w[pool.w.count - 1].last * c;
  for (std::int64_t r = 0; tiled && r < rows.count(); ++r)
    std::fill(d_input + r * pitch + end, d_input + (r + 1) * pitch, 0.0f);
}

template <class F>
PoolLoops loops(const Pool& pool) {
  return {combine<F>, pool.c < spare ? reduce_pixels<F, Narrow> : reduce_pixels<F, Wide>};
}
PoolLoops max_loops(const Pool& pool) { return loops<Larger>(pool); }
PoolLoops mean_loops(const Pool& pool) { return loops<Mean>(pool); }

GradientLoop max_gradient_loop(const Pool& pool) {
  if (pool.tiled()) return pool.c < spare ? max_gradient<true, Narrow> : max_gradient<true, Wide>;
  return pool.c < spare ? max_gradient<false, Narrow> : max_gradient<false, Wide>;
}
GradientLoop mean_gradient_loop(const Pool& pool) {
  if (pool.tiled()) return pool.c < spare ? mean_gradient<true, Narrow> : mean_gradient<true, Wide>;
  return pool.c < spare ? mean_gradient<false, Narrow> : mean_gradient<false, Wide>;
}

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {
namespace {

Launch forward(const Request& request, const Pool& pool, const PoolLoops& loops) {
  const Machine machine = machine_of(request);
  const Access read(machine.isa, request.inputs[0]), written(machine.isa, request.outputs[0]);
  constexpr std::int64_t task_numbers = 8192, least_tasks = 16;
  const std::int64_t output_rows = pool.n * pool.h.count;
  const std::int64_t rows_at_once =
      std::max<std::int64_t>(std::min(task_numbers / (pool.h.size * pool.row()), output_rows / least_tasks), 1);
  const std::int64_t scratch = 2 * pool.pitch() + rows_at_once * pool.output_row() + spare;
  const auto run = [=](const Arguments& arguments) {
    const Input x(read, arguments.inputs[0]);
    const Output y(written, arguments, 0);
    parallel_for(machine.threads, (output_rows + rows_at_once - 1) / rows_at_once, [&](std::int64_t task, int thread) {
      float* reduced = static_cast<float*>(arguments.workspace) + thread * scratch;
      float *buffer = reduced + pool.pitch(), *output = buffer + pool.pitch();
      const std::int64_t begin = task * rows_at_once, end = std::min(begin + rows_at_once, output_rows);
      for (std::int64_t row = begin; row < end; ++row) {
        const Span rows = pool.h[row % pool.h.count];
        const std::int64_t count = pool.row(), first = (row / pool.h.count * pool.h.extent + rows.first) * count;
        const float* so_far = x(first, count, reduced);
        for (std::int64_t r = 1; r < rows.count(); ++r, so_far = reduced)
          loops.combine(so_far, x(first + r * count, count, buffer), reduced, count);
        if (so_far != reduced) std::copy_n(so_far, count, reduced);
        loops.reduce(pool, reduced, output + (row - begin) * pool.output_row(), rows);
      }
      y(begin * pool.output_row(), (end - begin) * pool.output_row(), output);
    });
  };
  return {run, static_cast<std::size_t>(machine.threads * scratch) * sizeof(float)};
}

/// The rows of one image on their way backward: the band holds those of the current windows from row `first` on.
struct Band {
  const Pool& pool;
  const Input d_output, x;
  const Output d_input;
  float *d_output_row, *d_input_rows, *x_rows;

  void image(std::int64_t n, GradientLoop loop) {
    std::int64_t kept = 0;
    for (std::int64_t p = 0; p < pool.h.count; ++p) {
      const Span rows = pool.h[p];
      const std::int64_t next = p + 1 < pool.h.count ? pool.h[p + 1].first : pool.h.extent,
                         done = std::min(next, rows.last);
      enter(n, rows.first + kept, rows.last, kept);
      const std::int64_t count = pool.output_row();
      d_output.copy((n * pool.h.count + p) * count, count, d_output_row);
      loop(pool, d_output_row, x_rows, rows, d_input_rows);
      for (std::int64_t row = rows.first; row < done; ++row)
        store(n, row, d_input_rows + (row - rows.first) * pool.pitch());
      if (done < next) std::fill_n(d_input_rows, pool.row(), 0.0f);
      for (std::int64_t row = done; row < next; ++row) store(n, row, d_input_rows);
      kept = rows.last - done;
      for (float* rows_held : {d_input_rows, x_rows})
        if (rows_held) std::copy_n(rows_held + (done - rows.first) * pool.pitch(), kept * pool.pitch(), rows_held);
    }
  }

 private:
  /// Takes image rows [first_row, last_row) into the band behind the `kept` ones.
  void enter(std::int64_t n, std::int64_t first_row, std::int64_t last_row, std::int64_t kept) {
    for (std::int64_t row = first_row; row < last_row; ++row, ++kept) {
      if (!pool.tiled()) std::fill_n(d_input_rows + kept * pool.pitch(), pool.pitch(), 0.0f);
      const std::int64_t first = (n * pool.h.extent + row) * pool.row();
      if (x_rows) x.copy(first, pool.row(), x_rows + kept * pool.pitch());
    }
  }

  void store(std::int64_t n, std::int64_t row, const float* from) {
    d_input((n * pool.h.extent + row) * pool.row(), pool.row(), from);
  }
};

Launch backward(const Request& request, const Pool& pool, GradientLoop loop) {
  const Machine machine = machine_of(request);
  const bool needs_x = request.inputs.size() > 1;
  const Access d_output(machine.isa, request.inputs[0]), x(machine.isa, request.inputs.back()),
      d_input(machine.isa, request.outputs[0]);
  const std::int64_t band = pool.h.size * pool.pitch(), scratch = pool.output_pitch() + (needs_x ? 2 : 1) * band;
  const auto run = [=](const Arguments& a) {
    parallel_for(machine.threads, pool.n, [&](std::int64_t n, int thread) {
      float* d_output_row = static_cast<float*>(a.workspace) + thread * scratch;
      float* rows = d_output_row + pool.output_pitch();
      Band{pool, {d_output, a.inputs[0]},        {x, a.inputs.back()}, {d_input, a, 0}, d_output_row,
           rows, needs_x ? rows + band : nullptr}
          .image(n, loop);
    });
  };
  return {run, static_cast<std::size_t>(machine.threads * scratch) * sizeof(float)};
}

}  // namespace

std::string no_whole_rows(const Request& request) {
  const auto& [shape, storage, role] = request.outputs[0];
  return shape.w * shape.c % storage.granule() == 0 ? "" : "rows end within a packed byte or block";
}

Launch max_pool2d(const Request& request) {
  const Pool pool(request.attributes<MaxPool2d>().pool, request.inputs[0].shape, request.outputs[0].shape);
  return forward(request, pool, HALFTONE_PER_ISA(machine_of(request).isa, max_loops(pool)));
}

Launch avg_pool2d(const Request& request) {
  const Pool pool(request.attributes<AvgPool2d>().pool, request.inputs[0].shape, request.outputs[0].shape);
  return forward(request, pool, HALFTONE_PER_ISA(machine_of(request).isa, mean_loops(pool)));
}

Launch max_pool2d_gradient(const Request& request) {
  const auto& op = request.attributes<MaxPool2dGradient>();
  Pool pool(op.pool, request.outputs[0].shape, request.inputs[0].shape);
  pool.rectified = op.rectified;
  return backward(request, pool, HALFTONE_PER_ISA(machine_of(request).isa, max_gradient_loop(pool)));
}

Launch avg_pool2d_gradient(const Request& request) {
  const Pool pool(request.attributes<AvgPool2dGradient>().pool, request.outputs[0].shape, request.inputs[0].shape);
  return backward(request, pool, HALFTONE_PER_ISA(machine_of(request).isa, mean_gradient_loop(pool)));
}

}  // namespace halftone::cpu
#endif
