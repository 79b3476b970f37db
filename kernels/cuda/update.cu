#include "halftone/graph/step_ops.hpp"
#include "kernels/cuda/chunks.hpp"
#include "kernels/cuda/table.hpp"

// What changes weights: the optimizers' rules, averages and lookahead, each by one launch for all tensors.
namespace halftone::cuda {
namespace {

/// One parameter in an update.
template <class Tensor>
struct Updated {
  Tensor gradient, truth, slots[2], compensation, copy;
  RangeState* range;               ///< of the truth, if any
  float weight_limit, slot_limit;  ///< the largest finite numbers of their storages
  int slot_count, run;
  bool compensated, has_copy;
};

/// What lasts stays finite. With a compensation the rule sees the weight together with what rounding has taken from it,
/// and what it takes now is kept (Kahan 1965).
template <class Tensor, class Rule>
struct Apply {
  static constexpr unsigned threads = 256;
  static constexpr int most = most_at_once<Tensor>;
  struct Shared {
    std::int64_t counts[threads / warp_lanes];
    typename Rule::Coefficients coefficients;
    float factor;
  };

  const Chunk* chunks;
  const Updated<Tensor>* parameters;
  StepState* state;
  Rule rule;
  StepPolicy policy;
  float rate;
  std::int64_t until;

  HALFTONE_DEVICE void operator()(Shared& shared) const {
    if (!state->commit) return;
    const Chunk chunk = chunks[block_index()];
    const Updated<Tensor>& p = parameters[chunk.tensor];
    if (thread_index() == 0) {
      shared.coefficients = rule.at(rate_of(*state, rate, until), state->steps + 1);
      shared.factor = update_factor(*state, policy);
    }
    sync_block();
    const auto coefficients = shared.coefficients;
    const float factor = shared.factor;
    std::int64_t unchanged = 0;
    const int count = static_cast<int>(chunk.count);
    for (int at = static_cast<int>(thread_index()) * p.run; at < count; at += static_cast<int>(threads) * p.run) {
      const int n = count - at < p.run ? count - at : p.run;
      unchanged += update(p, coefficients, factor, chunk.first + at, n);
    }
    unchanged = block_sum<threads>(unchanged, shared.counts);
    if (thread_index() != 0) return;
    atomic_add(&state->unchanged_weights, unchanged);
    const Chunk& done = chunks[block_index()];  // read again: no register holds it through the loop
    RangeState* const range = parameters[done.tensor].range;
    if (!range) return;
    atomic_add(&range->noticed.updated, done.count);
    atomic_add(&range->noticed.unchanged, unchanged);
  }

  HALFTONE_DEVICE std::int64_t update(const Updated<Tensor>& p, const typename Rule::Coefficients& coefficients,
                                      float factor, std::int64_t first, int n) const {
    float g[most] = {}, w[most] = {}, before[most], lost[most] = {}, slots[2][most] = {};
    read(p.gradient, first, n, g);
    read(p.truth, first, n, w);
    if (p.slot_count > 0) read(p.slots[0], first, n, slots[0]);
    if (p.slot_count > 1) read(p.slots[1], first, n, slots[1]);
    if (p.compensated) read(p.compensation, first, n, lost);
    for_each<most>(n, [&](int i) {
      before[i] = w[i];
      if (p.compensated) w[i] += lost[i];
      const float from = w[i], from0 = slots[0][i], from1 = slots[1][i];
      w[i] =
          math::saturate(rule.apply(coefficients, from, g[i] * factor, slots[0][i], slots[1][i]), p.weight_limit, from);
      slots[0][i] = math::saturate(slots[0][i], p.slot_limit, from0);
      slots[1][i] = math::saturate(slots[1][i], p.slot_limit, from1);
    });
    write(p.truth, first, n, w);
    if (p.slot_count > 0) write(p.slots[0], first, n, slots[0]);
    if (p.slot_count > 1) write(p.slots[1], first, n, slots[1]);
    std::int64_t unchanged = 0;
    for_each<most>(n, [&](int i) {
      const float stored = p.truth.read_back(first + i);
      lost[i] = w[i] - stored;
      w[i] = stored;
      unchanged += stored == before[i];
    });
    if (p.compensated) write(p.compensation, first, n, lost);
    if (p.has_copy) write(p.copy, first, n, w);
    return unchanged;
  }
};

template <class Tensor>
struct Average {
  static constexpr unsigned threads = 256;
  using Shared = NoShared;
  const Chunk* chunks;
  const Tensor* truths;
  float* const* averages;
  const StepState* state;
  float decay;
  HALFTONE_DEVICE void operator()(Shared&) const {
    if (!state->commit) return;
    const Chunk chunk = chunks[block_index()];
    const float kept = kept_average(*state, decay);
    float* average = averages[chunk.tensor] + chunk.first;
    for (int i = static_cast<int>(thread_index()); i < chunk.count; i += static_cast<int>(threads))
      average[i] = blended(average[i], truths[chunk.tensor][chunk.first + i], kept);
  }
};

/// One parameter or statistic that lookahead moves.
template <class Tensor>
struct Followed {
  Tensor truth, copy;
  float* average;
  int run;
  bool has_copy;
};

template <class Tensor>
struct LookAhead {
  static constexpr unsigned threads = 256;
  static constexpr int most = most_at_once<Tensor>;
  using Shared = NoShared;
  const Chunk* chunks;
  const Followed<Tensor>* parameters;
  const StepState* state;
  float decay;
  std::int32_t interval;
  std::int64_t total;
  HALFTONE_DEVICE void operator()(Shared&) const {
    const float kept = kept_average(*state, decay, interval, total);
    if (!state->commit || kept == 1) return;
    const Chunk chunk = chunks[block_index()];
    const Followed<Tensor>& p = parameters[chunk.tensor];
    const int count = static_cast<int>(chunk.count);
    for (int at = static_cast<int>(thread_index()) * p.run; at < count; at += static_cast<int>(threads) * p.run) {
      const int n = count - at < p.run ? count - at : p.run;
      const std::int64_t first = chunk.first + at;
      float* average = p.average + first;
      float w[most] = {};
      read(p.truth, first, n, w);
      for_each<most>(n, [&](int i) { w[i] = average[i] = blended(average[i], w[i], kept); });
      write(p.truth, first, n, w);
      for_each<most>(n, [&](int i) { w[i] = p.truth.read_back(first + i); });
      if (p.has_copy) write(p.copy, first, n, w);
    }
  }
};

/// The parameters of an update, bound to memory.
template <class Tensor>
std::vector<Updated<Tensor>> updated(const Update& op, int slot_count, const Operands& values, const Arguments& a) {
  std::vector<Updated<Tensor>> result;
  std::size_t output = 0;
  for (std::size_t i = 0; i < op.parameters.size(); ++i) {
    Updated<Tensor> p{};
    p.run = pack;
    const auto next = [&] {
      p.run = std::max(p.run, run_of(values.outputs[output].storage));
      const Tensor tensor(values.outputs[output], a.outputs[output], a.state);
      ++output;
      return tensor;
    };
    p.gradient = Tensor(values.inputs[i], a.inputs[i], a.state);
    p.weight_limit = std::min(op.limit, values.outputs[output].storage.largest_update());
    p.range = a.outputs[output].range;
    p.truth = next();
    p.slot_count = slot_count;
    p.slot_limit = (slot_count > 0 ? values.outputs[output].storage : Storage()).largest_update();
    for (int slot = 0; slot < slot_count; ++slot) p.slots[slot] = next();
    p.compensated = op.parameters[i].compensated;
    if (p.compensated) p.compensation = next();
    p.has_copy = op.parameters[i].has_copy;
    if (p.has_copy) p.copy = next();
    result.push_back(p);
  }
  return result;
}

}  // namespace

std::string decline_update(const Request& request) {
  for (const ValueSpec& output : request.outputs)
    if (Chunk::most % run_of(output.storage) != 0 || run_of(output.storage) > most_at_once<Stored>)
      return "blocks whose length is no power of two up to 64";
  return {};
}

Launch update(const Request& request) {
  const auto& op = request.attributes<Update>();
  return with_tensor(request, [&](auto type) {
    using Tensor = decltype(type);
    return std::visit(
        [&](const auto& rule) -> Launch {
          using Rule = std::decay_t<decltype(rule)>;
          const Operands values(request);
          const Chunks chunks(request.device, request.inputs);
          const Constants<Updated<Tensor>> parameters(request.device, op.parameters.size());
          const auto prepare = [=](const Arguments& a) {
            chunks.upload();
            parameters.upload(updated<Tensor>(op, rule.slot_count(), values, a));
          };
          const auto run = [=, policy = op.policy, rate = op.learning_rate, until = op.until](const Arguments& a) {
            enqueue(a, chunks.size(),
                    Apply<Tensor, Rule>{chunks.data(), parameters.data(), a.state, rule, policy, rate, until});
          };
          return {.run = run, .prepare = prepare};
        },
        op.rule);
  });
}

Launch average_weights(const Request& request) {
  return with_tensor(request, [&](auto type) {
    using Tensor = decltype(type);
    const Operands values(request);
    const Chunks chunks(request.device, request.inputs);
    const Constants<Tensor> truths(request.device, request.inputs.size());
    const Constants<float*> averages(request.device, request.inputs.size());
    const auto prepare = [=](const Arguments& a) {
      chunks.upload();
      truths.upload(bound<Tensor>(values.inputs, a.inputs, a.state));
      averages.upload(addresses(a.outputs, values.inputs.size()));
    };
    const auto run = [=, decay = request.attributes<AverageWeights>().decay](const Arguments& a) {
      enqueue(a, chunks.size(), Average<Tensor>{chunks.data(), truths.data(), averages.data(), a.state, decay});
    };
    return Launch{.run = run, .prepare = prepare};
  });
}

Launch lookahead(const Request& request) {
  return with_tensor(request, [&](auto type) {
    using Tensor = decltype(type);
    const Operands values(request);
    const Chunks chunks(request.device, request.inputs);
    const Constants<Followed<Tensor>> parameters(request.device, request.inputs.size());
    const auto prepare = [=, has_copy = request.attributes<Lookahead>().has_copy](const Arguments& a) {
      chunks.upload();
      std::vector<Followed<Tensor>> all;
      std::size_t output = 0;
      for (const bool copy : has_copy) {
        Followed<Tensor> p{};
        p.run = pack;
        p.average = static_cast<float*>(a.outputs[output++].data);
        const auto next = [&] {
          p.run = std::max(p.run, run_of(values.outputs[output].storage));
          const Tensor tensor(values.outputs[output], a.outputs[output], a.state);
          ++output;
          return tensor;
        };
        p.truth = next();
        p.has_copy = copy;
        if (copy) p.copy = next();
        all.push_back(p);
      }
      parameters.upload(all);
    };
    const auto run = [=, op = request.attributes<Lookahead>()](const Arguments& a) {
      enqueue(a, chunks.size(),
              LookAhead<Tensor>{chunks.data(), parameters.data(), a.state, op.decay, op.interval, op.total});
    };
    return Launch{.run = run, .prepare = prepare};
  });
}

}  // namespace halftone::cuda
