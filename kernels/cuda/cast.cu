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

}  // namespace

std::string decline_cast(const Request& request) {
  return run_of(request.outputs[0].storage) > Converted::most ? "blocks of more than 64 numbers" : "";
}

Launch cast(const Request& request) {
  const ValueSpec from = request.inputs[0], to = request.outputs[0];
  if (is_known(from.storage) && is_compiled(to.storage)) return known_cast(request);
  const int run = run_of(to.storage);
  const auto launch = [=](const Arguments& a) {
    const std::int64_t count = to.shape.elements();
    enqueue(a, blocks_for<Converted>(count, run),
            Converted{{from, a.inputs[0], a.state}, {to, a.outputs[0], a.state}, run});
  };
  return {launch, 0, from.storage == to.storage && from.storage.block == 0 ? 0 : -1};
}

}  // namespace halftone::cuda
