#include "kernels/cuda/stored.hpp"
#include "kernels/cuda/table.hpp"

namespace halftone::cuda {
namespace {

/// Any storage into any other: a thread has a run of numbers that y allows.
struct Converted {
  static constexpr unsigned threads = 256;
  static constexpr int most = 64;
  using Shared = NoShared;

  Stored x, y;
  int run;  ///< at most `most`

  HALFTONE_DEVICE void operator()(Shared&) const {
    const std::int64_t first = thread_number<Converted>() * run;
    if (first >= y.count) return;
    const std::int64_t n = run < y.count - first ? run : y.count - first;
    float values[most];
    for (std::int64_t i = 0; i < n; ++i) values[i] = x[first + i];
    y.write(first, n, values);
  }
};

/// The bits of the largest magnitude, which NaN's lie behind, of all numbers into a word that was zero.
struct LargestBits {
  static constexpr unsigned threads = 256;
  static constexpr int run = 16;
  using Shared = NoShared;

  Stored x;
  float* largest;

  HALFTONE_DEVICE void operator()(Shared&) const {
    const std::int64_t first = thread_number<LargestBits>() * run;
    std::int32_t bits = 0;
    for (std::int64_t i = first; i < first + run && i < x.count; ++i) {
      const auto own = bit_cast<std::int32_t>(math::abs(x[i]));
      if (own > bits) bits = own;
    }
    if (bits > 0) atomic_max(largest, bit_cast<float>(bits));
  }
};

struct Clear {
  static constexpr unsigned threads = 1;
  using Shared = NoShared;
  float* largest;
  HALFTONE_DEVICE void operator()(Shared&) const { *largest = 0; }
};

/// The scale of a `Scaling::tensor`.
struct SettleScale {
  static constexpr unsigned threads = 1;
  using Shared = NoShared;
  Stored y;
  const float* largest;
  HALFTONE_DEVICE void operator()(Shared&) const { put_tensor_scale(y.storage, y.data, y.count, *largest); }
};

}  // namespace

std::string decline_cast(const Request& request) {
  return run_of(request.outputs[0].storage) > Converted::most ? "blocks of more than 64 numbers" : "";
}

Launch cast(const Request& request) {
  const ValueSpec from = request.inputs[0], to = request.outputs[0];
  if (is_known(from.storage) && is_compiled(to.storage)) return known_cast(request);
  const int run = run_of(to.storage);
  const bool whole = to.storage.scaling == Scaling::tensor;
  const auto launch = [=](const Arguments& a) {
    const std::int64_t count = to.shape.elements();
    if (whole) {
      auto* largest = static_cast<float*>(a.workspace);
      enqueue(a, 1, Clear{largest});
      enqueue(a, blocks_for<LargestBits>(count, LargestBits::run), LargestBits{{from, a.inputs[0], a.state}, largest});
      enqueue(a, 1, SettleScale{{to, a.outputs[0], a.state}, largest});
    }
    enqueue(a, blocks_for<Converted>(count, run),
            Converted{{from, a.inputs[0], a.state}, {to, a.outputs[0], a.state}, run});
  };
  return {launch, whole ? sizeof(float) : 0, from.storage == to.storage && same_places(from, to) ? 0 : -1};
}

}  // namespace halftone::cuda
