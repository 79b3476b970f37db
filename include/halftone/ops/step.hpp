#pragma once
#include <vector>

#include "halftone/graph/parameters.hpp"
#include "halftone/numeric/loss_scale.hpp"
#include "halftone/numeric/schedule.hpp"
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

/// [gradients, loss]: counts zeros and non-finite numbers, notes the first bad one, sums the squares of the gradients
/// divided by the seed, sets `good`.
struct CheckGradients final : StepOp {
  std::vector<Segment> segments;
  explicit CheckGradients(std::vector<Segment> segments) : segments(std::move(segments)) {}
  std::string name() const override { return "check_gradients"; }
};

/// [gradients] -> accumulated: adds the gradients divided by the seed where they are good (or sets, in the first good
/// micro-batch) and sums the squares of the result.
struct AccumulateGradients final : StepOp {
  std::vector<Segment> segments;
  explicit AccumulateGradients(std::vector<Segment> segments) : segments(std::move(segments)) {}
  std::string name() const override { return "accumulate_gradients"; }
};

/// The decisions of a step, on the state alone: scale, clip factor, learning rate, commit or skip.
struct Advance final : StepOp {
  LossScale loss_scale;
  Schedule schedule;
  float clip_norm = 0;  ///< 0: no clipping
  int accumulate = 1;
  std::string name() const override { return "advance"; }
};

/// [gradients or accumulated] -> [masters, weights, slot 0, slot 1]: one optimizer rule over its segments where
/// `commit` is set; without `masters` the weights themselves are f32 and updated.
struct Update final : StepOp {
  UpdateRule rule;
  std::vector<Segment> segments;
  float learning_rate = 1;  ///< factor on the schedule's
  int accumulate = 1;
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

/// Counts the step; `weights` is the number of trainable ones.
struct Finish final : StepOp {
  int accumulate = 1;
  std::int64_t weights = 1;
  std::string name() const override { return "finish"; }
};

}  // namespace halftone
