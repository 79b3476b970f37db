#pragma once
#include <vector>

#include "halftone/graph/parameters.hpp"
#include "halftone/numeric/update_rules.hpp"

namespace halftone {

// The end of a training step: check, (accumulate,) advance, update, average, finish. These nodes work on whole stores
// and on the step's state; only the last four write what lasts, and only behind the state's flags.

/// A stretch of the flat stores that is treated alike.
struct Segment {
  std::int64_t offset = 0, count = 0;  ///< elements of the f32 stores
  DType weight_dtype = DType::f32, gradient_dtype = DType::f32;
  std::size_t weight_offset = 0, gradient_offset = 0;  ///< bytes
  int parameter = 0;
};

/// All trainable parameters, or those of `group`, as segments.
std::vector<Segment> segments_of(const Parameters& parameters, std::span<const int> group = {});

/// Ops without inferred outputs: their outputs are stores.
struct StepOp : Op {
  std::vector<ValueSpec> infer(std::span<const ValueSpec>) const override { return {}; }
};

/// [gradients, loss]: looks for zeros and non-finite numbers, sums the squares of the gradients divided by their scale,
/// and judges the micro-batch (`judge_micro_batch`).
struct CheckGradients final : StepOp {
  std::vector<Segment> segments;
  explicit CheckGradients(std::vector<Segment> segments) : segments(std::move(segments)) {}
  std::string name() const override { return "check_gradients"; }
};

/// [gradients] -> accumulated: adds the gradients divided by their scale where they are good (or sets, in the first
/// good micro-batch) and sums the squares of the result.
struct AccumulateGradients final : StepOp {
  std::vector<Segment> segments;
  explicit AccumulateGradients(std::vector<Segment> segments) : segments(std::move(segments)) {}
  std::string name() const override { return "accumulate_gradients"; }
};

/// The decisions of a step, on the state alone (`decide`).
struct Advance final : StepOp {
  StepPolicy policy;
  explicit Advance(const StepPolicy& policy) : policy(policy) {}
  std::string name() const override { return "advance"; }
};

/// [gradients or accumulated] -> [masters, weights, slot 0, slot 1]: one optimizer rule over its segments where
/// `commit` is set; without `masters` the weights themselves are f32 and updated.
struct Update final : StepOp {
  UpdateRule rule;
  std::vector<Segment> segments;
  StepPolicy policy;
  float learning_rate = 1;  ///< factor on the schedule's
  bool masters = false;
  std::string name() const override { return "update"; }
};

/// [masters or weights] -> average = decay * average + (1 - decay) * masters where `commit` is set.
struct AverageWeights final : StepOp {
  float decay;
  std::vector<Segment> segments;
  bool masters = false;
  AverageWeights(float decay, std::vector<Segment> segments, bool masters)
      : decay(decay), segments(std::move(segments)), masters(masters) {}
  std::string name() const override { return "average_weights"; }
};

/// Counts the step (`finish_step`).
struct Finish final : StepOp {
  StepPolicy policy;
  explicit Finish(const StepPolicy& policy) : policy(policy) {}
  std::string name() const override { return "finish"; }
};

}  // namespace halftone
