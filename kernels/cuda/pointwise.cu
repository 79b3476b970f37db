#include "halftone/ops/pointwise.hpp"
#include "halftone/ops/quantize.hpp"
#include "kernels/cuda/activation.hpp"
#include "kernels/cuda/constants.hpp"
#include "kernels/cuda/operands.hpp"
#include "kernels/cuda/table.hpp"

// Functions of numbers at one place. All of these take the time in which memory moves their numbers: a thread reads a
// pack of each input, computes in f32 and writes a pack.
namespace halftone::cuda {
namespace {

/// f(first, x) changes x[0] [pack], which becomes y, by the other x.
template <class Format, int arity, class F>
struct Elementwise {
  static constexpr unsigned threads = 256;
  using Shared = NoShared;

  Source<Format> x[arity];
  Sink<Format> y;
  std::int64_t count;
  F f;

  HALFTONE_DEVICE void operator()(Shared&) const {
    const std::int64_t first = thread_number<Elementwise>() * pack;
    if (first >= count) return;
    float values[arity][pack] = {};
    if (first + pack <= count) {
      HALFTONE_UNROLL
      for (int j = 0; j < arity; ++j) x[j].read(first, values[j]);
      f(first, values);
      y.write(first, values[0]);
    } else {
      const int left = static_cast<int>(count - first);
      HALFTONE_UNROLL
      for (int j = 0; j < arity; ++j) for_each<pack>(left, [&](int i) { values[j][i] = x[j][first + i]; });
      f(first, values);
      for_each<pack>(left, [&](int i) { y.write(first + i, values[0][i]); });
    }
  }
};

/// The launch that applies what `make(arguments)` gives to all numbers of a request whose inputs and output have one
/// shape.
template <int arity, class Make>
Launch elementwise(const Request& request, Make make) {
  static_assert(arity >= 1 && arity <= 3);
  const Operands values(request);
  const std::int64_t count = request.outputs[0].shape.elements();
  int overwrites = -1;
  for (int i = arity; i-- > 0;)
    if (same_places(request.inputs[static_cast<std::size_t>(i)], request.outputs[0])) overwrites = i;
  constexpr std::size_t middle = (arity - 1) / 2;
  return with_format(
      {&request.inputs[0], &request.inputs[middle], &request.inputs[arity - 1], &request.outputs[0]}, [&](auto format) {
        using Format = decltype(format);
        const auto run = [=](const Arguments& a) {
          const auto f = make(a);
          using Kernel = Elementwise<Format, arity, std::decay_t<decltype(f)>>;
          const auto launch = [&](auto... inputs) {
            enqueue(a, blocks_for<Kernel>(count, pack), Kernel{{inputs...}, values.out<Format>(a, 0), count, f});
          };
          if constexpr (arity == 1) launch(values.in<Format>(a, 0));
          if constexpr (arity == 2) launch(values.in<Format>(a, 0), values.in<Format>(a, 1));
          if constexpr (arity == 3) launch(values.in<Format>(a, 0), values.in<Format>(a, 1), values.in<Format>(a, 2));
        };
        return Launch{run, 0, overwrites};
      });
}

struct Value {
  Epilogue activation;
  HALFTONE_DEVICE void operator()(std::int64_t, float (&x)[1][pack]) const { activation.apply(x[0]); }
};

/// Where the slope is zero nothing passes, not even an infinite gradient.
/// With three tensors the gradient is the sum of the first two.
struct Slope {
  Activation activation;
  template <int arity>
  HALFTONE_DEVICE void operator()(std::int64_t, float (&x)[arity][pack]) const {
    visit(Activations{}, activation, [&](const auto& f) {
      HALFTONE_UNROLL
      for (int i = 0; i < pack; ++i) {
        const float slope = f.slope(x[arity - 1][i]), d = arity == 2 ? x[0][i] : x[0][i] + x[1][i];
        x[0][i] = math::select(slope == 0.0f, 0.0f, d * slope);
      }
    });
  }
};

struct Sum {
  Epilogue activation;
  HALFTONE_DEVICE void operator()(std::int64_t, float (&x)[2][pack]) const {
    HALFTONE_UNROLL
    for (int i = 0; i < pack; ++i) x[0][i] += x[1][i];
    activation.apply(x[0]);
  }
};

struct Product {
  HALFTONE_DEVICE void operator()(std::int64_t, float (&x)[2][pack]) const {
    HALFTONE_UNROLL
    for (int i = 0; i < pack; ++i) x[0][i] *= x[1][i];
  }
};

struct Scaled {
  float factor;
  HALFTONE_DEVICE void operator()(std::int64_t, float (&x)[1][pack]) const {
    HALFTONE_UNROLL
    for (int i = 0; i < pack; ++i) x[0][i] *= factor;
  }
};

struct Dropped {
  const StepState* state;
  std::uint32_t stream;
  float rate;
  HALFTONE_DEVICE void operator()(std::int64_t first, float (&x)[1][pack]) const {
    const RandomKey key = state->key(stream);
    const float factor = 1.0f / (1.0f - rate);
    HALFTONE_UNROLL
    for (int i = 0; i < pack; ++i)
      x[0][i] = math::select(key.uniform(static_cast<std::uint64_t>(first + i)) >= rate, x[0][i] * factor, 0.0f);
  }
};

struct OnGrid {
  const StepState* state;
  std::uint32_t stream;
  Grid grid;
  HALFTONE_DEVICE void operator()(std::int64_t first, float (&x)[1][pack]) const {
    const RandomKey key = state->key(stream);
    for (int i = 0; i < pack; ++i) {
      const bool random = grid.rounding == Rounding::stochastic;
      x[0][i] = grid(x[0][i], random ? key.uniform(static_cast<std::uint64_t>(first + i)) : 0.0f);
    }
  }
};

/// (x / divisor - mean) / deviation of the channel.
struct Normalized {
  float divisor;
  const float *mean, *stddev;
  std::int64_t channels;
  HALFTONE_DEVICE void operator()(std::int64_t first, float (&x)[1][pack]) const {
    std::int64_t channel = first % channels;
    for (int i = 0; i < pack; ++i) {
      x[0][i] = (x[0][i] / divisor - mean[channel]) / stddev[channel];
      channel = channel + 1 == channels ? 0 : channel + 1;
    }
  }
};

/// Copies rows of `run` numbers between tensors with rows of other lengths.
struct CopiedRows {
  static constexpr unsigned threads = 256;
  using Shared = NoShared;

  Source<Any> from;
  Sink<Any> to;
  std::int64_t from_row, to_row, run, from_first, to_first, rows;

  HALFTONE_DEVICE void operator()(Shared&) const {
    const std::int64_t i = thread_number<CopiedRows>();
    if (i >= rows * run) return;
    const std::int64_t row = i / run, column = i % run;
    to.write(to_first + row * to_row + column, from[from_first + row * from_row + column]);
  }
};

}  // namespace

Launch activation(const Request& request) {
  const Epilogue activation(request.attributes<Activate>().activation);
  return elementwise<1>(request, [=](const Arguments&) { return Value{activation}; });
}

Launch activation_gradient(const Request& request) {
  const Activation activation = request.attributes<ActivationGradient>().activation;
  if (request.inputs.size() == 3) return elementwise<3>(request, [=](const Arguments&) { return Slope{activation}; });
  return elementwise<2>(request, [=](const Arguments&) { return Slope{activation}; });
}

Launch add(const Request& request) {
  const Epilogue activation(request.attributes<Add>().epilogue);
  return elementwise<2>(request, [=](const Arguments&) { return Sum{activation}; });
}

Launch multiply(const Request& request) {
  return elementwise<2>(request, [=](const Arguments&) { return Product{}; });
}

Launch scale(const Request& request) {
  const float factor = request.attributes<Scale>().factor;
  return elementwise<1>(request, [=](const Arguments&) { return Scaled{factor}; });
}

Launch dropout(const Request& request) {
  const auto& op = request.attributes<Dropout>();
  return elementwise<1>(request, [rate = op.rate, stream = op.stream](const Arguments& a) {
    return Dropped{a.state, stream, rate};
  });
}

Launch quantize(const Request& request) {
  const auto& op = request.attributes<Quantize>();
  return elementwise<1>(request, [grid = op.grid, stream = op.stream](const Arguments& a) {
    return OnGrid{a.state, stream, grid};
  });
}

Launch normalize(const Request& request) {
  const auto& op = request.attributes<Normalize>();
  const float divisor = request.inputs[0].storage == DType::u8 ? 255.0f : 1.0f;
  const std::size_t channels = op.mean.size();
  std::vector<float> both = op.mean;
  both.insert(both.end(), op.stddev.begin(), op.stddev.end());
  const Constants<float> table(request.device, both.size());
  Launch launch = elementwise<1>(request, [=](const Arguments&) {
    return Normalized{divisor, table.data(), table.data() + channels, static_cast<std::int64_t>(channels)};
  });
  launch.prepare = [=](const Arguments&) { table.upload(both); };
  return launch;
}

Launch known_cast(const Request& request) {
  Launch launch = elementwise<1>(request, [=](const Arguments&) { return Value{}; });
  if (request.inputs[0].storage != request.outputs[0].storage) launch.overwrites = -1;
  return launch;
}

Launch concat(const Request& request) {
  const Operands values(request);
  return {[values](const Arguments& a) {
    const Shape& whole = values.outputs[0].shape;
    std::int64_t first = 0;
    for (std::size_t i = 0; i < values.inputs.size(); ++i) {
      const std::int64_t c = values.inputs[i].shape.c;
      enqueue(a, blocks_for<CopiedRows>(whole.rows() * c),
              CopiedRows{values.in(a, i), values.out(a, 0), c, whole.c, c, 0, first, whole.rows()});
      first += c;
    }
  }};
}

Launch slice(const Request& request) {
  const auto& op = request.attributes<Slice>();
  const Operands values(request);
  return {[values, first = op.first, run = op.count](const Arguments& a) {
    const Shape &x = values.inputs[0].shape, &y = values.outputs[0].shape;
    enqueue(a, blocks_for<CopiedRows>(y.elements()),
            CopiedRows{values.in(a, 0), values.out(a, 0), x.c, run, run, first, 0, y.rows()});
  }};
}

}  // namespace halftone::cuda
