#include "kernels/cuda/operands.hpp"
#include "kernels/cuda/table.hpp"

// A first layer's one or three channels fit no load of 8 bytes, and libraries are slow with them. With zeros behind
// them in both x and weight the sums are the same.
namespace halftone::cuda {
namespace {

constexpr std::int64_t multiple = 4;

/// Rows of `from` numbers of 16 bits become rows of `to`: cut off, or with zeros behind.
struct CopyRows {
  static constexpr unsigned threads = 256;
  using Shared = NoShared;

  const std::uint16_t* x;
  std::uint16_t* y;
  std::int64_t rows;
  int from, to;

  HALFTONE_DEVICE void operator()(Shared&) const {
    const std::int64_t row = thread_number<CopyRows>();
    if (row >= rows) return;
    for (int i = 0; i < to; ++i) y[row * to + i] = i < from ? x[row * from + i] : std::uint16_t{0};
  }
};

ValueSpec padded(ValueSpec value, std::int64_t c) {
  value.shape.c = c;
  return value;
}

}  // namespace

bool wants_padded_channels(const Convolution& convolution) {
  constexpr std::int64_t worth_it = 1 << 19;  // numbers, beside two more launches
  const ConvProblem& p = convolution.problem;
  return convolution.direction != Direction::d_input && p.groups == 1 && p.c < 8 && p.c % multiple != 0 &&
         convolution.operands.inputs[0].shape.elements() >= worth_it &&
         bits_of(convolution.operands.output.storage.code) == 16;
}

Convolution padded_channels(Convolution convolution) {
  auto& [problem, direction, operands, activation] = convolution;
  problem.c = (problem.c + multiple - 1) / multiple * multiple;
  operands.inputs[0] = padded(operands.inputs[0], problem.c);
  ValueSpec& weight = direction == Direction::forward ? operands.inputs[1] : operands.output;
  weight = padded(weight, problem.c);
  return convolution;
}

Launch with_padded_channels(Launch launch, const Convolution& convolution) {
  const Convolution wide = padded_channels(convolution);
  const bool forward = convolution.direction == Direction::forward;
  std::size_t bytes = 0;
  const Array<std::uint16_t> x(wide.operands.inputs[0].shape.elements(), bytes);
  const Array<std::uint16_t> weight((forward ? wide.operands.inputs[1] : wide.operands.output).shape.elements(), bytes);
  const Array<std::byte> rest(static_cast<std::int64_t>(launch.workspace), bytes);
  const ConvProblem& p = convolution.problem;
  const auto run = [=, run = std::move(launch.run), narrow = static_cast<int>(p.c),
                    padded = static_cast<int>(wide.problem.c), pixels = p.n * p.h * p.w,
                    taps = p.k * p.r * p.s](const Arguments& a) {
    const auto copy = [&](const void* from, int from_c, void* to, int to_c, std::int64_t rows) {
      enqueue(a, blocks_for<CopyRows>(rows),
              CopyRows{static_cast<const std::uint16_t*>(from), static_cast<std::uint16_t*>(to), rows, from_c, to_c});
    };
    std::vector<Memory> inputs(a.inputs.begin(), a.inputs.end()), outputs(a.outputs.begin(), a.outputs.end());
    copy(inputs[0].data, narrow, x(a), padded, pixels);
    inputs[0].data = x(a);
    if (forward) {
      copy(inputs[1].data, narrow, weight(a), padded, taps);
      inputs[1].data = weight(a);
    } else {
      outputs[0].data = weight(a);
    }
    Arguments inner = a;
    inner.inputs = inputs;
    inner.outputs = outputs;
    inner.workspace = rest(a);
    run(inner);
    if (!forward) copy(weight(a), padded, a.outputs[0].data, narrow, taps);
  };
  return {.run = run, .workspace = bytes};
}

}  // namespace halftone::cuda
