#include <cmath>

#include "halftone/graph/step_ops.hpp"
#include "kernels/cuda/chunks.hpp"
#include "kernels/cuda/table.hpp"

// A step's decisions are those of graph/step_state.hpp, taken by one thread each; gradients are looked at by one launch
// for all tensors.
namespace halftone::cuda {
namespace {

/// Calls f(state) in one thread.
template <class F>
struct Once {
  static constexpr unsigned threads = 1;
  using Shared = NoShared;
  StepState* state;
  F f;
  HALFTONE_DEVICE void operator()(Shared&) const { f(*state); }
};

template <class F>
void once(const Arguments& a, const F& f) {
  enqueue(a, 1, Once<F>{a.state, f});
}

struct Begin {
  HALFTONE_DEVICE void operator()(StepState& state) const { halftone::begin_micro_batch(state); }
};
struct Seed {
  Sink<Any> seed;
  HALFTONE_DEVICE void operator()(StepState& state) const { seed.write(0, state.gradient_scale()); }
};
struct Decide {
  StepPolicy policy;
  HALFTONE_DEVICE void operator()(StepState& state) const { decide(state, policy); }
};
struct Count {
  StepPolicy policy;
  HALFTONE_DEVICE void operator()(StepState& state) const { finish_step(state, policy); }
};

/// What was found in one chunk of gradients.
struct Found {
  double sum_of_squares;
  std::int64_t zeros, bad, first_bad;
};

HALFTONE_DEVICE void look(float gradient, float factor, std::int64_t i, Found& found) {
  const auto true_gradient = static_cast<double>(gradient * factor);
  found.sum_of_squares += true_gradient * true_gradient;
  found.zeros += gradient == 0;
  const bool bad = !(math::abs(gradient) <= F32::largest);
  if (bad && found.bad == 0) found.first_bad = i;
  found.bad += bad;
}

constexpr std::int64_t nowhere = std::int64_t{1} << 62;

template <unsigned threads>
struct FoundShared {
  double squares[threads / warp_lanes];
  std::int64_t counts[threads / warp_lanes], first[threads];
  float factor;
};

/// What a stored gradient is multiplied by to be the true one; every thread gets it.
template <unsigned threads>
HALFTONE_DEVICE float true_factor(const StepState& state, FoundShared<threads>& shared) {
  if (thread_index() == 0) shared.factor = 1 / state.gradient_scale();
  sync_block();
  return shared.factor;
}

/// What all threads of a block have found; every thread gets it.
template <unsigned threads>
HALFTONE_DEVICE Found together(Found found, FoundShared<threads>& shared) {
  found.sum_of_squares = block_sum<threads>(found.sum_of_squares, shared.squares);
  found.zeros = block_sum<threads>(found.zeros, shared.counts);
  shared.first[thread_index()] = found.first_bad;
  found.bad = block_sum<threads>(found.bad, shared.counts);  // its barriers also show `first` to all
  if (found.bad > 0)
    for (unsigned i = 0; i < threads; ++i)
      if (shared.first[i] < found.first_bad) found.first_bad = shared.first[i];
  sync_block();
  return found;
}

/// Looks at one chunk of gradients; or adds it, its scale divided out, to what earlier micro-batches have left in
/// `sums`, and looks at that.
template <class Tensor, bool accumulates>
struct Inspect {
  static constexpr unsigned threads = 256;
  using Shared = FoundShared<threads>;

  const Chunk* chunks;
  const Tensor* gradients;
  float* const* sums;
  const StepState* state;
  Found* found;

  HALFTONE_DEVICE void operator()(Shared& shared) const {
    const Chunk chunk = chunks[block_index()];
    const Tensor& gradient = gradients[chunk.tensor];
    const float factor = true_factor<threads>(*state, shared);
    Found own{0, 0, 0, nowhere};
    for (int at = static_cast<int>(thread_index()) * pack; at < chunk.count; at += static_cast<int>(threads) * pack) {
      const int n = static_cast<int>(chunk.count - at < pack ? chunk.count - at : pack);
      const std::int64_t first = chunk.first + at;
      float x[pack];
      read(gradient, first, n, x);
      if constexpr (accumulates) add(sums[chunk.tensor] + first, n, factor, x);
      for_each<pack>(n, [&](int i) { look(x[i], accumulates ? 1.0f : factor, first + i, own); });
    }
    own = together<threads>(own, shared);
    if (thread_index() == 0) found[block_index()] = own;
  }

  HALFTONE_DEVICE void add(float* sum, int n, float factor, float (&x)[pack]) const {
    const bool good = state->good != 0, begins = state->good_micro_batches == 1;
    for_each<pack>(n, [&](int i) {
      if (good) sum[i] = x[i] * factor + (begins ? 0.0f : sum[i]);
      x[i] = sum[i];
    });
  }
};

/// Adds up what the chunks had, in a fixed order, and judges by it: check_gradients with a loss, else the sum of
/// micro-batches.
template <class Tensor>
struct Judge {
  static constexpr unsigned threads = 256;
  using Shared = FoundShared<threads>;

  const Chunk* chunks;
  const Found* found;
  std::int64_t count;
  StepState* state;
  bool of_sum;
  Tensor loss;
  const std::int32_t* parameters;

  HALFTONE_DEVICE void operator()(Shared& shared) const {
    Found all{0, 0, 0, nowhere};  // first_bad: a chunk
    for (std::int64_t i = thread_index(); i < count; i += threads) {
      all.sum_of_squares += found[i].sum_of_squares;
      all.zeros += found[i].zeros;
      all.bad += found[i].bad;
      if (found[i].bad > 0 && i < all.first_bad) all.first_bad = i;
    }
    all = together<threads>(all, shared);
    if (thread_index() > 0) return;
    if (of_sum) return judge_sum(*state, state->good_micro_batches > 0 ? all.sum_of_squares : 0.0);
    GradientFindings findings;
    findings.sum_of_squares = all.sum_of_squares;
    findings.zeros = all.zeros;
    findings.nonfinite = all.bad;
    if (all.bad > 0) {
      findings.first_bad_parameter = parameters[chunks[all.first_bad].tensor];
      findings.first_bad_element = found[all.first_bad].first_bad;
    }
    judge_micro_batch(*state, loss[0], findings);
  }
};

struct Move {
  static constexpr unsigned threads = 256;
  using Shared = NoShared;
  const MoveRanges::Range* moves;
  RangeState* ranges;
  std::int64_t count;
  const StepState* state;
  HALFTONE_DEVICE void operator()(Shared&) const {
    if (!state->last_micro_batch) return;
    const bool commit = moves_ranges(*state);
    const std::int64_t i = thread_number<Move>();
    if (i < count) move_range(moves[i].controller, ranges[i], commit, moves[i].moves, moves[i].lasts);
  }
};

struct Settle {
  static constexpr unsigned threads = 256;
  using Shared = NoShared;
  RangeState* ranges;
  std::int64_t count;
  HALFTONE_DEVICE void operator()(Shared&) const {
    const std::int64_t i = thread_number<Settle>();
    if (i < count) ranges[i].scale = ranges[i].next;
  }
};

struct Pair {
  const std::byte* from;
  std::byte* to;
};

/// Copies statistics away before a step's first micro-batch or, `back`, back where the step is skipped.
struct Keep {
  static constexpr unsigned threads = 256;
  using Shared = NoShared;
  const Chunk* chunks;  ///< of bytes
  const Pair* pairs;
  const StepState* state;
  bool back;
  HALFTONE_DEVICE void operator()(Shared&) const {
    if (!copies_statistics(*state, back)) return;
    const Chunk chunk = chunks[block_index()];
    const Pair& pair = pairs[chunk.tensor];
    for (int i = static_cast<int>(thread_index()); i < chunk.count; i += static_cast<int>(threads))
      pair.to[chunk.first + i] = pair.from[chunk.first + i];
  }
};

}  // namespace

Launch begin_micro_batch(const Request&) {
  return {[](const Arguments& a) { once(a, Begin{}); }};
}

Launch seed_gradient(const Request& request) {
  return {[values = Operands(request)](const Arguments& a) { once(a, Seed{values.out(a, 0)}); }};
}

Launch advance(const Request& request) {
  return {[policy = request.attributes<Advance>().policy](const Arguments& a) { once(a, Decide{policy}); }};
}

Launch finish(const Request& request) {
  return {[policy = request.attributes<Finish>().policy](const Arguments& a) { once(a, Count{policy}); }};
}

Launch check_gradients(const Request& request) {
  return with_tensor(request, [&](auto type) {
    using Tensor = decltype(type);
    const Operands values(request);
    const auto& numbers = request.attributes<CheckGradients>().parameters;
    const Chunks chunks(request.device, request.inputs.subspan(1));
    const Constants<Tensor> gradients(request.device, request.inputs.size() - 1);
    const Constants<std::int32_t> parameters(request.device, numbers.size());
    const auto prepare = [=](const Arguments& a) {
      chunks.upload();
      gradients.upload(bound<Tensor>(values.inputs, a.inputs, a.state, 1));
      parameters.upload({numbers.begin(), numbers.end()});
    };
    const auto run = [=](const Arguments& a) {
      auto* found = static_cast<Found*>(a.workspace);
      enqueue(a, chunks.size(), Inspect<Tensor, false>{chunks.data(), gradients.data(), nullptr, a.state, found});
      enqueue(a, 1,
              Judge<Tensor>{chunks.data(),
                            found,
                            chunks.size(),
                            a.state,
                            false,
                            {values.inputs[0], a.inputs[0], a.state},
                            parameters.data()});
    };
    return Launch{.run = run, .workspace = static_cast<std::size_t>(chunks.size()) * sizeof(Found), .prepare = prepare};
  });
}

Launch accumulate_gradients(const Request& request) {
  return with_tensor(request, [&](auto type) {
    using Tensor = decltype(type);
    const Operands values(request);
    const Chunks chunks(request.device, request.inputs);
    const Constants<Tensor> gradients(request.device, request.inputs.size());
    const Constants<float*> sums(request.device, request.inputs.size());
    const auto prepare = [=](const Arguments& a) {
      chunks.upload();
      gradients.upload(bound<Tensor>(values.inputs, a.inputs, a.state));
      sums.upload(addresses(a.outputs, values.inputs.size()));
    };
    const auto run = [=](const Arguments& a) {
      auto* found = static_cast<Found*>(a.workspace);
      enqueue(a, chunks.size(), Inspect<Tensor, true>{chunks.data(), gradients.data(), sums.data(), a.state, found});
      enqueue(a, 1, Judge<Tensor>{chunks.data(), found, chunks.size(), a.state, true, {}, nullptr});
    };
    return Launch{.run = run, .workspace = static_cast<std::size_t>(chunks.size()) * sizeof(Found), .prepare = prepare};
  });
}

Launch move_ranges(const Request& request) {
  const auto& op = request.attributes<MoveRanges>();
  const Constants<MoveRanges::Range> moves(request.device, op.ranges.size());
  return {
      .run =
          [=](const Arguments& a) {
            enqueue(a, blocks_for<Move>(moves.size()), Move{moves.data(), a.out<RangeState>(0), moves.size(), a.state});
          },
      .prepare = [=, ranges = op.ranges](const Arguments&) { moves.upload(ranges); }};
}

Launch settle_ranges(const Request& request) {
  const auto count = static_cast<std::int64_t>(request.outputs[0].tensor().bytes() / sizeof(RangeState));
  return {[count](const Arguments& a) { enqueue(a, blocks_for<Settle>(count), Settle{a.out<RangeState>(0), count}); }};
}

Launch keep_statistics(const Request& request) {
  const auto& op = request.attributes<KeepStatistics>();
  std::vector<TensorSpec> bytes;
  for (const ValueSpec& value : request.inputs)
    bytes.push_back({{1, 1, 1, static_cast<std::int64_t>(value.tensor().bytes())}, DType::u8});
  const Chunks chunks(request.device, bytes);
  const Constants<Pair> pairs(request.device, bytes.size());
  const auto prepare = [=, count = bytes.size()](const Arguments& a) {
    chunks.upload();
    std::vector<Pair> all;
    for (std::size_t i = 0; i < count; ++i)
      all.push_back({static_cast<const std::byte*>(a.inputs[i].data), static_cast<std::byte*>(a.outputs[i].data)});
    pairs.upload(all);
  };
  const auto run = [=, back = op.back](const Arguments& a) {
    enqueue(a, chunks.size(), Keep{chunks.data(), pairs.data(), a.state, back});
  };
  return {.run = run, .prepare = prepare};
}

}  // namespace halftone::cuda
