#include "kernels/cuda/operands.hpp"
#include "kernels/cuda/table.hpp"

// A first layer's one or three channels fit no load of 8 bytes, and cuDNN's forward plans are slow with them. With
// zeros behind them in both x and weight the sums are the same.
namespace halftone::cuda {
namespace {

constexpr std::int64_t multiple = 4;

/// Rows of `from` numbers of 16 bits become rows of `to`, zeros behind.
struct PadRows {
  static constexpr unsigned threads = 256;
  using Shared = NoShared;

  const std::uint16_t* x;
  std::uint16_t* y;
  std::int64_t rows;
  int from, to;

  HALFTONE_DEVICE void operator()(Shared&) const {
    const std::int64_t row = thread_number<PadRows>();
    if (row >= rows) return;
    for (int i = 0; i < to; ++i) y[row * to + i] = i < from ? x[row * from + i] : std::uint16_t{0};
  }
};

}  // namespace

bool wants_padded_channels(const Convolution& convolution) {
  constexpr std::int64_t worth_it = 1 << 19;  // numbers, beside two more launches
  const ConvProblem& p = convolution.problem;
  return convolution.direction == Direction::forward && p.groups == 1 && p.c < 8 && p.c % multiple != 0 &&
         convolution.operands.inputs[0].shape.elements() >= worth_it &&
         bits_of(convolution.operands.output.storage.code) == 16;
}

Convolution padded_channels(Convolution convolution) {
  std::int64_t& c = convolution.problem.c;
  c = (c + multiple - 1) / multiple * multiple;
  for (std::size_t i : {0, 1}) convolution.operands.inputs[i].shape.c = c;
  return convolution;
}

Launch with_padded_channels(Launch launch, const Convolution& convolution) {
  const Convolution wide = padded_channels(convolution);
  std::size_t bytes = 0;
  const auto room = [&](std::size_t i) {
    return Array<std::uint16_t>(wide.operands.inputs[i].shape.elements(), bytes);
  };
  const Array<std::uint16_t> x = room(0), weight = room(1);
  const Array<std::byte> rest(static_cast<std::int64_t>(launch.workspace), bytes);
  const ConvProblem& p = convolution.problem;
  const auto run = [=, run = std::move(launch.run), from = static_cast<int>(p.c), to = static_cast<int>(wide.problem.c),
                    pixels = p.n * p.h * p.w, taps = p.k * p.r * p.s](const Arguments& a) {
    std::vector<Memory> inputs(a.inputs.begin(), a.inputs.end());
    const auto pad = [&](std::size_t i, std::uint16_t* padded, std::int64_t rows) {
      enqueue(a, blocks_for<PadRows>(rows), PadRows{a.in<std::uint16_t>(i), padded, rows, from, to});
      inputs[i].data = padded;
    };
    pad(0, x(a), pixels);
    pad(1, weight(a), taps);
    Arguments inner = a;
    inner.inputs = inputs;
    inner.workspace = rest(a);
    run(inner);
  };
  return {.run = run, .workspace = bytes};
}

}  // namespace halftone::cuda
