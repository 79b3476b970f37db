#include <algorithm>

#include "halftone/ops/pool2d.hpp"
#include "kernels/cuda/operands.hpp"
#include "kernels/cuda/table.hpp"

// Forward, a thread makes one pixel of the output, backward one of the input, for one channel or a pack of them. The
// gradient of a maximum first notes for every window which tap won, so that each window is looked through once.
namespace halftone::cuda {
namespace {

/// The stretch [first, last) of the image that a window covers in one direction; `divisor` is what it counts for in an
/// average. Or the windows that cover a place.
struct Span {
  int first, last, divisor;
};

/// Windows along one direction.
struct Windows {
  int size, stride, padding, extent, count;
  bool count_padding;

  HALFTONE_DEVICE int start(int i) const { return i * stride - padding; }
  HALFTONE_DEVICE Span operator[](int i) const {
    const int begin = start(i), end = begin + size;
    const int first = begin > 0 ? begin : 0, last = end < extent ? end : extent;
    return {first, last, count_padding ? (end < extent + padding ? end : extent + padding) - begin : last - first};
  }
  HALFTONE_DEVICE Span over(int place) const {
    const int from = place + padding, behind = from - size, last = from / stride + 1;
    return {behind < 0 ? 0 : behind / stride + 1, last < count ? last : count, 0};
  }
};

struct Pool {
  Windows h, w;
  std::int64_t n, c;

  Pool(const PoolAttributes& a, const Shape& x, const Shape& y)
      : h(windows(a.global, a.window.h, a.stride.h, a.padding.h, x.h, y.h, a.count_include_pad)),
        w(windows(a.global, a.window.w, a.stride.w, a.padding.w, x.w, y.w, a.count_include_pad)),
        n(x.n),
        c(x.c) {}

  constexpr std::int64_t inputs() const { return n * h.extent * w.extent * c; }
  constexpr std::int64_t outputs() const { return n * h.count * w.count * c; }
  std::int64_t taps() const { return static_cast<std::int64_t>(h.size) * w.size; }
  /// Whether threads are many enough where each takes a pack.
  bool packs(std::int64_t numbers) const { return c % pack == 0 && numbers >= 1 << 17; }

 private:
  static Windows windows(bool global, int size, int stride, int padding, std::int64_t extent, std::int64_t count,
                         bool count_padding) {
    const int all = static_cast<int>(extent);
    return {global ? all : size, global ? all : stride, padding, all, static_cast<int>(count), count_padding};
  }
};

/// A pixel of images [n, h, w, c] and the first of its channels that a thread has.
struct Pixel {
  std::int64_t image, channel;
  int row, column;
  template <int n>
  HALFTONE_DEVICE static Pixel of(std::int64_t thread, std::int64_t c, int w, int h, std::integral_constant<int, n>) {
    const std::int64_t units = c / n, pixel = thread / units, line = pixel / w;
    return {line / h, thread % units * n, static_cast<int>(line % h), static_cast<int>(pixel % w)};
  }
};

/// What kernels of one thread a pixel have in common.
template <int n>
struct Pixels {
  static constexpr unsigned threads = 256;
  using Shared = NoShared;

  Pool pool;

  HALFTONE_DEVICE Pixel output(std::int64_t thread) const {
    return Pixel::of(thread, pool.c, pool.w.count, pool.h.count, std::integral_constant<int, n>{});
  }
  HALFTONE_DEVICE Pixel input(std::int64_t thread) const {
    return Pixel::of(thread, pool.c, pool.w.extent, pool.h.extent, std::integral_constant<int, n>{});
  }
  /// Calls f(element of the output, p, q) for the windows (p, q) over a pixel of the input.
  template <class F>
  HALFTONE_DEVICE void for_windows(const Pixel& pixel, F&& f) const {
    const Windows &h = pool.h, &w = pool.w;
    const Span rows = h.over(pixel.row), columns = w.over(pixel.column);
    for (int p = rows.first; p < rows.last; ++p) {
      std::int64_t element = ((pixel.image * h.count + p) * w.count + columns.first) * pool.c + pixel.channel;
      for (int q = columns.first; q < columns.last; ++q, element += pool.c) f(element, p, q);
    }
  }
  /// Reads what window (p, q) sees, in row order: f(numbers, row, column).
  template <class Format, class F>
  HALFTONE_DEVICE void for_taps(const Source<Format>& x, const Pixel& pixel, const Span& rows, const Span& columns,
                                F&& f) const {
    for (int row = rows.first; row < rows.last; ++row) {
      std::int64_t first =
          ((pixel.image * pool.h.extent + row) * pool.w.extent + columns.first) * pool.c + pixel.channel;
      for (int column = columns.first; column < columns.last; ++column, first += pool.c) {
        float numbers[n];
        read(x, first, numbers);
        f(numbers, row, column);
      }
    }
  }
};

HALFTONE_DEVICE bool better(float a, float b) { return (b > a) | (b != b); }

struct Largest {
  static constexpr float start = -std::numeric_limits<float>::infinity();
  HALFTONE_DEVICE static float of(float a, float b) { return math::select(better(a, b), b, a); }
  HALFTONE_DEVICE static float finish(float value, float) { return value; }
};

struct Mean {
  static constexpr float start = 0;
  HALFTONE_DEVICE static float of(float a, float b) { return a + b; }
  HALFTONE_DEVICE static float finish(float sum, float pixels) { return sum / pixels; }
};

template <class Reduction, class Format, int n>
struct Reduce : Pixels<n> {
  Source<Format> x;
  Sink<Format> y;

  HALFTONE_DEVICE void operator()(NoShared&) const {
    const std::int64_t thread = thread_number<Reduce>();
    if (thread * n >= this->pool.outputs()) return;
    const Pixel pixel = this->output(thread);
    const Span rows = this->pool.h[pixel.row], columns = this->pool.w[pixel.column];
    float result[n];
    HALFTONE_UNROLL
    for (int i = 0; i < n; ++i) result[i] = Reduction::start;
    this->for_taps(x, pixel, rows, columns, [&](const float(&numbers)[n], int, int) {
      HALFTONE_UNROLL
      for (int i = 0; i < n; ++i) result[i] = Reduction::of(result[i], numbers[i]);
    });
    const float pixels = static_cast<float>(rows.divisor * columns.divisor);
    HALFTONE_UNROLL
    for (int i = 0; i < n; ++i) result[i] = Reduction::finish(result[i], pixels);
    write(y, thread * n, result);
  }
};

template <class Reduction, class Format, int n>
Launch forward(const Request& request, const Pool& pool) {
  return {.run = [=, operands = Operands(request)](const Arguments& a) {
    using Kernel = Reduce<Reduction, Format, n>;
    enqueue(a, blocks_for<Kernel>(pool.outputs(), n),
            Kernel{{pool}, operands.in<Format>(a, 0), operands.out<Format>(a, 0)});
  }};
}

template <class Reduction>
Launch forward(const Request& request, const PoolAttributes& attributes) {
  const Pool pool(attributes, request.inputs[0].shape, request.outputs[0].shape);
  return with_pack({&request.inputs[0], &request.outputs[0]}, pool.packs(pool.outputs()),
                   [&](auto format, auto n) { return forward<Reduction, decltype(format), n>(request, pool); });
}

/// Notes for every window the first tap, in row order, that holds the largest number.
template <class Format, class Tap, int n>
struct FindWinners : Pixels<n> {
  Source<Format> x;
  Tap* winners;

  HALFTONE_DEVICE void operator()(NoShared&) const {
    const std::int64_t thread = thread_number<FindWinners>();
    if (thread * n >= this->pool.outputs()) return;
    const Pixel pixel = this->output(thread);
    const Windows &h = this->pool.h, &w = this->pool.w;
    const Span rows = h[pixel.row], columns = w[pixel.column];
    const int origin = h.start(pixel.row) * w.size + w.start(pixel.column);
    float best[n];
    Tap winner[n];
    const int first_tap = rows.first * w.size + columns.first - origin;
    HALFTONE_UNROLL
    for (int i = 0; i < n; ++i) {
      best[i] = Largest::start;
      winner[i] = static_cast<Tap>(first_tap);
    }
    this->for_taps(x, pixel, rows, columns, [&](const float(&numbers)[n], int row, int column) {
      const auto tap = static_cast<Tap>(row * w.size + column - origin);
      HALFTONE_UNROLL
      for (int i = 0; i < n; ++i) {
        const bool wins = better(best[i], numbers[i]);
        best[i] = wins ? numbers[i] : best[i];
        winner[i] = wins ? tap : winner[i];
      }
    });
    write(winners + thread * n, winner);
  }
};

/// A number of the input gets the gradients of the windows that it has won.
template <class Format, class Tap, int n>
struct MaxGradient : Pixels<n> {
  Source<Format> d_y, x;
  Sink<Format> d_x;
  const Tap* winners;
  bool rectified;

  HALFTONE_DEVICE void operator()(NoShared&) const {
    const std::int64_t thread = thread_number<MaxGradient>();
    if (thread * n >= this->pool.inputs()) return;
    const Pixel pixel = this->input(thread);
    const Windows &h = this->pool.h, &w = this->pool.w;
    const int tap_of_first = (pixel.row + h.padding) * w.size + pixel.column + w.padding;  // in window (0, 0)
    float sums[n] = {};
    this->for_windows(pixel, [&](std::int64_t window, int p, int q) {
      const auto tap = static_cast<Tap>(tap_of_first - p * h.stride * w.size - q * w.stride);
      float d[n];
      Tap winner[n];
      read(winners + window, winner);
      read(d_y, window, d);
      HALFTONE_UNROLL
      for (int i = 0; i < n; ++i) sums[i] += winner[i] == tap ? d[i] : 0.0f;
    });
    if (rectified) {
      float outputs[n];
      read(x, thread * n, outputs);
      HALFTONE_UNROLL
      for (int i = 0; i < n; ++i) sums[i] *= Relu{}.slope(outputs[i]);
    }
    write(d_x, thread * n, sums);
  }
};

template <class Format, class Tap, int n>
Launch max_backward(const Request& request, const Pool& pool) {
  const bool rectified = request.attributes<MaxPool2dGradient>().rectified;
  const auto run = [=, operands = Operands(request)](const Arguments& a) {
    auto* winners = static_cast<Tap*>(a.workspace);
    using Find = FindWinners<Format, Tap, n>;
    using Give = MaxGradient<Format, Tap, n>;
    enqueue(a, blocks_for<Find>(pool.outputs(), n), Find{{pool}, operands.in<Format>(a, 1), winners});
    enqueue(a, blocks_for<Give>(pool.inputs(), n),
            Give{{pool},
                 operands.in<Format>(a, 0),
                 operands.in<Format>(a, 1),
                 operands.out<Format>(a, 0),
                 winners,
                 rectified});
  };
  return {.run = run, .workspace = static_cast<std::size_t>(pool.outputs()) * sizeof(Tap)};
}

/// A number of the input gets its share of each window's gradient.
template <class Format, int n>
struct MeanGradient : Pixels<n> {
  Source<Format> d_y;
  Sink<Format> d_x;

  HALFTONE_DEVICE void operator()(NoShared&) const {
    const std::int64_t thread = thread_number<MeanGradient>();
    if (thread * n >= this->pool.inputs()) return;
    const Pixel pixel = this->input(thread);
    const Windows &h = this->pool.h, &w = this->pool.w;
    float sums[n] = {};
    this->for_windows(pixel, [&](std::int64_t window, int p, int q) {
      const float pixels = static_cast<float>(h[p].divisor * w[q].divisor);
      float d[n];
      read(d_y, window, d);
      HALFTONE_UNROLL
      for (int i = 0; i < n; ++i) sums[i] += d[i] / pixels;
    });
    write(d_x, thread * n, sums);
  }
};

template <class Format, int n>
Launch mean_backward(const Request& request, const Pool& pool) {
  return {.run = [=, operands = Operands(request)](const Arguments& a) {
    using Kernel = MeanGradient<Format, n>;
    enqueue(a, blocks_for<Kernel>(pool.inputs(), n),
            Kernel{{pool}, operands.in<Format>(a, 0), operands.out<Format>(a, 0)});
  }};
}

}  // namespace

Launch max_pool2d(const Request& request) { return forward<Largest>(request, request.attributes<MaxPool2d>().pool); }

Launch avg_pool2d(const Request& request) { return forward<Mean>(request, request.attributes<AvgPool2d>().pool); }

Launch max_pool2d_gradient(const Request& request) {
  const Pool pool(request.attributes<MaxPool2dGradient>().pool, request.outputs[0].shape, request.inputs[0].shape);
  return with_pack({&request.inputs[0], &request.inputs[1], &request.outputs[0]}, pool.packs(pool.inputs()),
                   [&](auto format, auto n) {
                     using Format = decltype(format);
                     return pool.taps() <= 256 ? max_backward<Format, std::uint8_t, n>(request, pool)
                                               : max_backward<Format, std::uint32_t, n>(request, pool);
                   });
}

Launch avg_pool2d_gradient(const Request& request) {
  const Pool pool(request.attributes<AvgPool2dGradient>().pool, request.outputs[0].shape, request.inputs[0].shape);
  return with_pack({&request.inputs[0], &request.outputs[0]}, pool.packs(pool.inputs()),
                   [&](auto format, auto n) { return mean_backward<decltype(format), n>(request, pool); });
}

}  // namespace halftone::cuda
