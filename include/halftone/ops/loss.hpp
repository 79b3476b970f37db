#pragma once
#include <optional>
#include <vector>

#include "halftone/graph/graph.hpp"

namespace halftone {

struct CrossEntropyOptions {
  float label_smoothing = 0;                      ///< in [0, 1)
  std::optional<std::int32_t> ignore_label = {};  ///< images with it count for nothing; no class may have it
  std::vector<float> class_weights = {};          ///< one a class, above 0; none: all 1
};

/// Mean over the batch of -sum_j w_j t_j log softmax(logits)_j, where t gives 1 - smoothing to the label and spreads
/// smoothing over all classes; w are the class weights, and each image counts by its label's in the mean. logits [n, 1,
/// 1, classes], labels [n, 1, 1, 1] in i32. Computed in f32; a label out of range gives NaN, a batch of ignored labels
/// alone gives 0.
Value cross_entropy(Value logits, Value labels, const CrossEntropyOptions& options = {});

/// Mean over all numbers of (x - target)^2.
Value mean_squared_error(Value x, Value target);

/// Mean over all numbers of the cross entropy of sigmoid(x) and a target in [0, 1] of the same shape: max(x, 0) - x
/// target + log(1 + e^-|x|). The target has no gradient.
Value binary_cross_entropy(Value logits, Value target);

/// Share of images whose largest logit (the first of equals) is their label's; not differentiable.
Value accuracy(Value logits, Value labels);

struct SoftmaxCrossEntropy final : Op {
  CrossEntropyOptions options;
  explicit SoftmaxCrossEntropy(const CrossEntropyOptions& the_options) : options(the_options) {}
  std::string name() const override { return "softmax_cross_entropy"; }
  Arity arity() const override { return 2; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
};

/// [d_loss, logits, labels] -> d_logits = (sum_j w_j t_j softmax - w t) d_loss / n, where n adds up the weights of the
/// labels that are not ignored.
struct SoftmaxCrossEntropyGradient final : InputGradient {
  CrossEntropyOptions options;
  explicit SoftmaxCrossEntropyGradient(const CrossEntropyOptions& the_options) : options(the_options) {}
  std::string name() const override { return "softmax_cross_entropy_gradient"; }
  Arity arity() const override { return 3; }
};

struct MeanSquaredError final : Op {
  std::string name() const override { return "mean_squared_error"; }
  Arity arity() const override { return 2; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
};

/// [d_loss, x, target] -> d_x = 2 (x - target) d_loss / count.
struct MeanSquaredErrorGradient final : InputGradient {
  std::string name() const override { return "mean_squared_error_gradient"; }
  Arity arity() const override { return 3; }
};

struct BinaryCrossEntropy final : Op {
  std::string name() const override { return "binary_cross_entropy"; }
  Arity arity() const override { return 2; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
};

/// [d_loss, x, target] -> d_x = (sigmoid(x) - target) d_loss / count.
struct BinaryCrossEntropyGradient final : InputGradient {
  std::string name() const override { return "binary_cross_entropy_gradient"; }
  Arity arity() const override { return 3; }
};

struct Accuracy final : Op {
  std::string name() const override { return "accuracy"; }
  Arity arity() const override { return 2; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
};

}  // namespace halftone
