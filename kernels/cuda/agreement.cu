#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>

#include "kernels/cuda/agreement.hpp"
#include "kernels/cuda/operands.hpp"
#include "kernels/cuda/table.hpp"

namespace halftone::cuda {
namespace {

/// Integers from -largest to largest, whose products and sums are exact in f32; on request with what is not finite
/// among them.
struct Fill {
  static constexpr unsigned threads = 256;
  using Shared = NoShared;

  Sink<Any> y;
  std::int64_t count;
  std::uint32_t seed;
  int largest;
  bool finite;

  HALFTONE_DEVICE void operator()(Shared&) const {
    const std::int64_t i = thread_number<Fill>();
    if (i >= count) return;
    std::uint32_t mixed = (static_cast<std::uint32_t>(i) + seed) * 2654435761u;
    mixed = (mixed ^ (mixed >> 15)) * 2246822519u;
    mixed ^= mixed >> 13;
    float x = static_cast<float>(static_cast<int>(mixed % static_cast<unsigned>(2 * largest + 1)) - largest);
    if (!finite) {
      constexpr float infinity = std::numeric_limits<float>::infinity();
      if (i == 0) x = infinity;
      if (i == count / 2) x = -infinity;
      if (i == count - 1) x = std::numeric_limits<float>::quiet_NaN();
    }
    y.write(i, x);
  }
};

/// A number that no sum of the others is.
struct Poison {
  static constexpr unsigned threads = 256;
  using Shared = NoShared;

  Sink<Any> y;
  std::int64_t count;

  HALFTONE_DEVICE void operator()(Shared&) const {
    if (const std::int64_t i = thread_number<Poison>(); i < count) y.write(i, 0.4375f);
  }
};

struct Compare {
  static constexpr unsigned threads = 256;
  using Shared = NoShared;

  Source<Any> a, b;
  std::int64_t count;
  std::int32_t* differs;

  HALFTONE_DEVICE void operator()(Shared&) const {
    const std::int64_t i = thread_number<Compare>();
    if (i >= count) return;
    const float x = a[i], y = b[i];
    const bool both_nan = x != x && y != y;
    if (!(x == y || both_nan)) store_same(differs, 1);
  }
};

Launch own_launch(const Convolution& convolution) {
  if (decline_tensor_cores(convolution).empty()) return tensor_cores(convolution);
  if (const std::string reason = decline_plain(convolution); !reason.empty()) throw Failure(reason);
  return plain(convolution);
}

/// With integers up to this, sums deviate by about 2^13: far from 2^24, so they are exact in f32, and from f16's
/// largest number, but no shorter sum holds them. 128 at most, which every code has exactly.
int largest_for_long_sums(const Convolution& convolution) {
  const ConvProblem& p = convolution.problem;
  const std::int64_t terms = convolution.direction == Direction::d_weight
                                 ? p.n * p.p * p.q
                                 : (convolution.direction == Direction::forward ? p.c : p.k) / p.groups * p.r * p.s;
  const double variance = 8192 / std::sqrt(static_cast<double>(terms));  // of an integer: a product's deviation
  return std::clamp(static_cast<int>(std::sqrt(3 * variance)), 2, 128);
}

}  // namespace

Agreement::Agreement(Driver& driver, const Convolution& convolution)
    : driver_(driver),
      convolution_(convolution),
      own_(own_launch(convolution_)),
      expected_(driver, convolution_.operands.output.tensor().bytes()),
      output_(driver, convolution_.operands.output.tensor().bytes()),
      verdict_(driver, sizeof(std::int32_t)) {
  for (const ValueSpec& input : convolution_.operands.inputs) inputs_.emplace_back(driver, input.tensor().bytes());
}

std::string Agreement::differs(const Launch& launch) const {
  constexpr int few = 2;
  if (differs(launch, few, true)) return "it multiplies integers wrongly";
  if (differs(launch, largest_for_long_sums(convolution_), true)) return "it does not keep sums in f32";
  if (differs(launch, few, false)) return "it does not let infinity and NaN through";
  return {};
}

bool Agreement::differs(const Launch& launch, int largest, bool finite) const {
  const auto& values = convolution_.operands.inputs;
  const auto& result = convolution_.operands.output;
  std::vector<Memory> inputs;
  for (const Scratch& input : inputs_) inputs.push_back({input.data()});
  Arguments on_stream;
  on_stream.stream = &driver_;
  // What is not finite is in the tensor that has padding: zeros times the other are zeros.
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const std::int64_t count = values[i].shape.elements();
    enqueue(on_stream, blocks_for<Fill>(count),
            Fill{Sink<Any>(values[i], inputs[i], nullptr), count, 7919 * static_cast<std::uint32_t>(i), largest,
                 finite || i > 0});
  }
  const std::int64_t count = result.shape.elements();
  const auto run = [&](const Launch& by, const Scratch& output) {
    const Memory outputs[] = {{output.data()}};
    enqueue(on_stream, blocks_for<Poison>(count), Poison{Sink<Any>(result, outputs[0], nullptr), count});
    const Scratch workspace(driver_, by.workspace);
    Arguments arguments = on_stream;
    arguments.inputs = inputs;
    arguments.outputs = outputs;
    arguments.workspace = workspace.data();
    by.run(arguments);
    driver_.synchronize();
  };
  run(own_, expected_);
  run(launch, output_);
  driver_.clear(verdict_.data(), sizeof(std::int32_t));
  enqueue(on_stream, blocks_for<Compare>(count),
          Compare{Source<Any>(result, {expected_.data()}), Source<Any>(result, {output_.data()}), count,
                  static_cast<std::int32_t*>(verdict_.data())});
  const std::unique_ptr<void, std::function<void(void*)>> read(driver_.allocate_pinned(sizeof(std::int32_t)),
                                                               [&](void* p) { driver_.free_pinned(p); });
  driver_.copy_out(read.get(), verdict_.data(), sizeof(std::int32_t));
  driver_.synchronize();
  return *static_cast<const std::int32_t*>(read.get()) != 0;
}

}  // namespace halftone::cuda
