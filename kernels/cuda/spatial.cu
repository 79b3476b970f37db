#include "halftone/ops/spatial.hpp"
#include "kernels/cuda/operands.hpp"
#include "kernels/cuda/table.hpp"

// A thread makes one number of the result; what it reads lies beside what its neighbours read.
namespace halftone::cuda {
namespace {

/// A place in a tensor [n, h, w, c].
struct Place {
  std::int64_t n, h, w, c;
  HALFTONE_DEVICE Place(std::int64_t i, const Shape& shape)
      : n(i / (shape.h * shape.w * shape.c)),
        h(i / (shape.w * shape.c) % shape.h),
        w(i / shape.c % shape.w),
        c(i % shape.c) {}
};

HALFTONE_DEVICE std::int64_t index(const Shape& shape, std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t c) {
  return ((n * shape.h + h) * shape.w + w) * shape.c + c;
}

/// Calls f(i), which gives the number of element i of y, for each of them.
template <class Format, class F>
struct Each {
  static constexpr unsigned threads = 256;
  using Shared = NoShared;

  Sink<Format> y;
  std::int64_t count;
  F f;

  HALFTONE_DEVICE void operator()(Shared&) const {
    const std::int64_t i = thread_number<Each>();
    if (i < count) y.write(i, f(i));
  }
};

/// The launch that writes make(format, operands, arguments)(i) to each element i of the output.
template <class Make>
Launch each(const Request& request, Make make) {
  const Operands values(request);
  return with_format({&request.inputs[0], &request.inputs.back(), &request.outputs[0]}, [&](auto format) {
    using Format = decltype(format);
    return Launch{[=](const Arguments& a) {
      const auto f = make(format, values, a);
      const std::int64_t count = values.outputs[0].shape.elements();
      using Kernel = Each<Format, std::decay_t<decltype(f)>>;
      enqueue(a, blocks_for<Kernel>(count), Kernel{values.out<Format>(a, 0), count, f});
    }};
  });
}

template <class Format>
struct Padded {
  Source<Format> x;
  Shape from, to;
  Margins margins;
  HALFTONE_DEVICE float operator()(std::int64_t i) const {
    const Place at(i, to);
    const std::int64_t h = at.h - margins.top, w = at.w - margins.left;
    return h >= 0 && h < from.h && w >= 0 && w < from.w ? x[index(from, at.n, h, w, at.c)] : 0.0f;
  }
};

template <class Format>
struct Upsampled {
  Source<Format> x;
  Shape from, to;
  int factor_h, factor_w;
  Interpolation interpolation;
  HALFTONE_DEVICE float operator()(std::int64_t i) const {
    const Place at(i, to);
    const Taps rows = taps_of(at.h, factor_h, from.h, interpolation),
               columns = taps_of(at.w, factor_w, from.w, interpolation);
    const auto line = [&](std::int64_t w) {
      const float lower = x[index(from, at.n, rows.lower, w, at.c)];
      return rows.share > 0 ? (1 - rows.share) * lower + rows.share * x[index(from, at.n, rows.upper, w, at.c)] : lower;
    };
    const float lower = line(columns.lower);
    return columns.share > 0 ? (1 - columns.share) * lower + columns.share * line(columns.upper) : lower;
  }
};

template <class Format>
struct UpsampledGradient {
  Source<Format> d_y;
  Shape from, to;
  int factor_h, factor_w;
  Interpolation interpolation;
  HALFTONE_DEVICE static std::int64_t first(std::int64_t i, int factor) { return (i > 0 ? i - 1 : 0) * factor; }
  HALFTONE_DEVICE static std::int64_t last(std::int64_t i, int factor, std::int64_t extent) {
    return (i + 2 < extent ? i + 2 : extent) * factor;
  }
  HALFTONE_DEVICE float operator()(std::int64_t i) const {
    const Place at(i, to);
    float sum = 0;
    for (std::int64_t w = first(at.w, factor_w); w < last(at.w, factor_w, to.w); ++w) {
      const float column = taps_of(w, factor_w, to.w, interpolation).of(at.w);
      if (!(column > 0)) continue;
      float down = 0;
      for (std::int64_t h = first(at.h, factor_h); h < last(at.h, factor_h, to.h); ++h)
        if (const float row = taps_of(h, factor_h, to.h, interpolation).of(at.h); row > 0)
          down += row * d_y[index(from, at.n, h, w, at.c)];
      sum += column * down;
    }
    return sum;
  }
};

template <class Format>
struct ScaledChannels {
  Source<Format> x, factors;
  Shape shape;
  HALFTONE_DEVICE float operator()(std::int64_t i) const {
    const Place at(i, shape);
    return x[i] * factors[at.n * shape.c + at.c];
  }
};

template <class Format>
struct ScaledChannelsGradient {
  Source<Format> d_y, x;
  Shape shape;
  HALFTONE_DEVICE float operator()(std::int64_t i) const {
    double sum = 0;
    const std::int64_t pixels = shape.h * shape.w, first = i / shape.c * pixels * shape.c + i % shape.c;
    for (std::int64_t p = 0; p < pixels; ++p)
      sum += static_cast<double>(d_y[first + p * shape.c]) * static_cast<double>(x[first + p * shape.c]);
    return static_cast<float>(sum);
  }
};

template <class Format>
struct AddedChannels {
  Source<Format> x;
  Source<Any> numbers;
  std::int64_t c;
  HALFTONE_DEVICE float operator()(std::int64_t i) const { return x[i] + numbers[i % c]; }
};

}  // namespace

Launch pad2d(const Request& request) {
  const Margins margins = request.attributes<Pad2d>().margins;
  return each(request, [=](auto format, const Operands& values, const Arguments& a) {
    using Format = decltype(format);
    return Padded<Format>{values.in<Format>(a, 0), values.inputs[0].shape, values.outputs[0].shape, margins};
  });
}

Launch upsample2d(const Request& request) {
  const auto& op = request.attributes<Upsample2d>();
  return each(request, [f = op.factor, way = op.interpolation](auto format, const Operands& values,
                                                               const Arguments& a) {
    using Format = decltype(format);
    return Upsampled<Format>{values.in<Format>(a, 0), values.inputs[0].shape, values.outputs[0].shape, f.h, f.w, way};
  });
}

Launch upsample2d_gradient(const Request& request) {
  const auto& op = request.attributes<Upsample2dGradient>();
  return each(request,
              [f = op.factor, way = op.interpolation](auto format, const Operands& values, const Arguments& a) {
                using Format = decltype(format);
                return UpsampledGradient<Format>{
                    values.in<Format>(a, 0), values.inputs[0].shape, values.outputs[0].shape, f.h, f.w, way};
              });
}

Launch scale_channels(const Request& request) {
  return each(request, [](auto format, const Operands& values, const Arguments& a) {
    using Format = decltype(format);
    return ScaledChannels<Format>{values.in<Format>(a, 0), values.in<Format>(a, 1), values.inputs[0].shape};
  });
}

Launch scale_channels_gradient(const Request& request) {
  return each(request, [](auto format, const Operands& values, const Arguments& a) {
    using Format = decltype(format);
    return ScaledChannelsGradient<Format>{values.in<Format>(a, 0), values.in<Format>(a, 1), values.inputs[1].shape};
  });
}

Launch add_channels(const Request& request) {
  return each(request, [](auto format, const Operands& values, const Arguments& a) {
    using Format = decltype(format);
    return AddedChannels<Format>{values.in<Format>(a, 0), values.in(a, 1), values.inputs[0].shape.c};
  });
}

}  // namespace halftone::cuda
