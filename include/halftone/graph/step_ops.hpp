#pragma once
#include <vector>

#include "halftone/graph/op.hpp"
#include "halftone/graph/step_state.hpp"
#include "halftone/numeric/range.hpp"
#include "halftone/numeric/update_rules.hpp"

namespace halftone {

// A training step begins with `BeginMicroBatch` and ends with check, (accumulate,) advance, (move ranges,) update,
// (settle ranges,) the commits of operations, (average,) finish. They name all that they read and write in stores as
// their inputs and outputs, the step's state too; what lasts is written behind the state's flags alone.

/// Operations without inferred outputs: theirs exist already.
struct StepOp : Op {
  Arity arity() const override { return {0, Arity::any}; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec>) const override { return {}; }
};

/// -> [state]: `begin_micro_batch`.
struct BeginMicroBatch final : StepOp {
  std::string name() const override { return "begin_micro_batch"; }
};

/// [loss, gradients...] -> [state]: looks for zeros and non-finite numbers, sums the squares of the gradients divided
/// by their scale, and judges the micro-batch (`judge_micro_batch`). `parameters` has the number of each gradient's.
struct CheckGradients final : StepOp {
  std::vector<int> parameters;
  explicit CheckGradients(std::vector<int> the_parameters) : parameters(std::move(the_parameters)) {}
  std::string name() const override { return "check_gradients"; }
};

/// [gradients...] -> [accumulated..., state]: adds the gradients divided by their scale where they are good (or sets,
/// in the first good micro-batch) and sums the squares of the result.
struct AccumulateGradients final : StepOp {
  std::string name() const override { return "accumulate_gradients"; }
};

/// -> [state]: the decisions of a step (`decide`).
struct Advance final : StepOp {
  StepPolicy policy;
  explicit Advance(const StepPolicy& the_policy) : policy(the_policy) {}
  std::string name() const override { return "advance"; }
};

/// [state] -> [ranges]: `move_range` for each of them in order, after the last micro-batch.
struct MoveRanges final : StepOp {
  struct Range {
    RangeController controller;
    bool moves;  ///< else it was only noticed
    bool lasts;
  };
  std::vector<Range> ranges;
  std::string name() const override { return "move_ranges"; }
};

/// [statistics...] -> [kept...] before the commits of a step's first micro-batch, or back after those of its last one
/// where the step is skipped.
struct KeepStatistics final : StepOp {
  bool back;
  explicit KeepStatistics(bool brings_back) : back(brings_back) {}
  std::string name() const override { return back ? "bring_back_statistics" : "keep_statistics"; }
};

/// [gradients or accumulated...] -> [for each: truth, slots..., compensation if there is one, weight if it is not the
/// truth, ...; state]: one optimizer rule, where `commit` is set.
struct Update final : StepOp {
  UpdateRule rule;
  StepPolicy policy;
  float learning_rate = 1;     ///< factor on the schedule's
  float limit = F32::largest;  ///< magnitude that no weight exceeds
  std::int64_t until = never;  ///< committed steps after which it leaves the weights as they are
  struct Updated {
    bool compensated = false, has_copy = false;
  };
  std::vector<Updated> parameters;
  std::string name() const override { return "update"; }
};

/// [truths and statistics...] -> [averages...]: average = d * average + (1 - d) * truth where `commit` is set; after n
/// steps d = min(decay, (1 + n) / (10 + n)), so that an average of few steps forgets what they began with.
struct AverageWeights final : StepOp {
  float decay;
  explicit AverageWeights(float the_decay) : decay(the_decay) {}
  std::string name() const override { return "average_weights"; }
};

/// [truths and statistics...] -> [for each: average, the same truth, weight if it is not the truth, ...]: where
/// `commit` is set, and in every `interval`-th step alone, the average moves as `kept_average` says, and the truth
/// becomes it.
struct Lookahead final : StepOp {
  float decay;
  std::int32_t interval;
  std::int64_t total;
  std::vector<bool> has_copy = {};
  Lookahead(float the_decay, std::int32_t the_interval, std::int64_t the_total)
      : decay(the_decay), interval(the_interval), total(the_total) {}
  std::string name() const override { return "lookahead"; }
};

/// -> [ranges]: from now on numbers are read by the scale that the update has written them with.
struct SettleRanges final : StepOp {
  std::string name() const override { return "settle_ranges"; }
};

/// -> [state]: counts the step (`finish_step`).
struct Finish final : StepOp {
  StepPolicy policy;
  explicit Finish(const StepPolicy& the_policy) : policy(the_policy) {}
  std::string name() const override { return "finish"; }
};

}  // namespace halftone
