#pragma once
#include <string>

#include "halftone/graph/graph.hpp"
#include "halftone/graph/step_ops.hpp"

namespace halftone {

struct NormOptions {
  float epsilon = 1e-5f;
  float momentum = 0.1f;  ///< of batch norm's running statistics: share of the new batch
  std::string name = {};  ///< by default norm1, norm2, ...
  bool scale = true;      ///< whether gamma is trained; else it stays 1
};

/// gamma (x - mean) / sqrt(variance + epsilon) + beta with each channel's mean and (biased) variance over the batch; in
/// evaluation with the running ones, which take the unbiased variance as PyTorch does. Ioffe & Szegedy 2015.
Value batch_norm(Value x, const NormOptions& options = {});

/// The same over each row's channels. Ba et al. 2016.
Value layer_norm(Value x, const NormOptions& options = {});

/// The same over h, w and each group's channels of each image. Wu & He 2018. Throws Error where groups do not divide c.
Value group_norm(Value x, int groups, const NormOptions& options = {});

/// [x, gamma, beta, running mean, running variance] -> [y, mean, inverse deviation].
struct BatchNorm final : Fusable<BatchNorm> {
  float epsilon, momentum;
  BatchNorm(float the_epsilon, float the_momentum) : epsilon(the_epsilon), momentum(the_momentum) {}
  std::string name() const override { return "batch_norm"; }
  Arity arity() const override { return 5; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
  void commit(std::span<const Value> inputs, std::span<const Value> outputs) const override;
  std::shared_ptr<const Op> inference() const override;
};

/// [d_y, x, gamma, ...] -> [d_x, d_gamma, d_beta].
struct NormGradient : Op {
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
};

/// [d_y, x, gamma, mean, inverse deviation] -> [d_x, d_gamma, d_beta].
struct BatchNormGradient final : NormGradient {
  std::string name() const override { return "batch_norm_gradient"; }
  Arity arity() const override { return 5; }
};

/// [x, gamma, beta, running mean, running variance] -> y. Only x has a gradient.
struct BatchNormInference final : Fusable<BatchNormInference> {
  float epsilon;
  explicit BatchNormInference(float the_epsilon) : epsilon(the_epsilon) {}
  std::string name() const override { return "batch_norm_inference"; }
  Arity arity() const override { return 5; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
};

/// [d_y, gamma, running variance] -> d_x.
struct BatchNormInferenceGradient final : Op {
  float epsilon;
  explicit BatchNormInferenceGradient(float the_epsilon) : epsilon(the_epsilon) {}
  std::string name() const override { return "batch_norm_inference_gradient"; }
  Arity arity() const override { return 3; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
};

/// [batch mean, inverse deviation] -> running mean and variance, written in place behind the `good` flag; `rows`
/// numbers were averaged per channel.
struct UpdateRunningStatistics final : StepOp {
  float epsilon, momentum;
  std::int64_t rows;
  UpdateRunningStatistics(float the_epsilon, float the_momentum, std::int64_t the_rows)
      : epsilon(the_epsilon), momentum(the_momentum), rows(the_rows) {}
  std::string name() const override { return "update_running_statistics"; }
  Arity arity() const override { return 2; }
};

/// [x, gamma, beta] -> [y, mean and inverse deviation as [samples, groups, 1, 2]]; a sample is an image or,
/// `per_pixel`, a row.
struct GroupNorm final : Op {
  int groups;
  bool per_pixel;
  float epsilon;
  GroupNorm(int the_groups, bool the_per_pixel, float the_epsilon)
      : groups(the_groups), per_pixel(the_per_pixel), epsilon(the_epsilon) {}
  std::string name() const override { return "group_norm"; }
  Arity arity() const override { return 3; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
};

/// [d_y, x, gamma, statistics] -> [d_x, d_gamma, d_beta].
struct GroupNormGradient final : NormGradient {
  int groups;
  bool per_pixel;
  GroupNormGradient(int the_groups, bool the_per_pixel) : groups(the_groups), per_pixel(the_per_pixel) {}
  std::string name() const override { return "group_norm_gradient"; }
  Arity arity() const override { return 4; }
};

}  // namespace halftone
