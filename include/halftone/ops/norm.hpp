#pragma once
#include <cmath>
#include <string>

#include "halftone/graph/graph.hpp"
#include "halftone/graph/step_ops.hpp"
#include "halftone/numeric/math.hpp"

namespace halftone {

struct NormOptions {
  float epsilon = 1e-5f;
  float momentum = 0.1f;     ///< of batch norm's running statistics: share of the new batch
  std::string name = {};     ///< by default norm1, norm2, ...
  bool scale = true;         ///< whether gamma is trained; else it stays 1
  bool shift_based = false;  ///< of batch norm alone: all that it multiplies by is a power of two
};

/// gamma (x - mean) / sqrt(variance + epsilon) + beta with each channel's mean and (biased) variance over the batch; in
/// evaluation with the running ones, which take the unbiased variance as PyTorch does. Ioffe & Szegedy 2015.
/// `shift_based` is Courbariaux et al. 2016, algorithm 3, with `shift_factor` for AP2: AP2(gamma) AP2(1 / sqrt(variance
/// + epsilon)) (x - mean) + beta, where the variance is the mean of (x - mean) AP2(x - mean). Its gradient is the
/// other's, with these factors in their place.
Value batch_norm(Value x, const NormOptions& options = {});

/// The same over each row's channels; throws Error for `shift_based`. Ba et al. 2016.
Value layer_norm(Value x, const NormOptions& options = {});

/// The same over h, w and each group's channels of each image. Wu & He 2018. Throws Error where groups do not divide c,
/// and for `shift_based`.
Value group_norm(Value x, int groups, const NormOptions& options = {});

/// What a batch norm multiplies by where it has x: AP2(x), if it is `shift_based`.
HALFTONE_HD constexpr float shift_factor(float x, bool shift_based) {
  return math::select(shift_based, math::approximate_power_of_two(x), x);
}

/// What a batch norm in evaluation multiplies x - mean by.
struct NormFactor {
  float epsilon;
  bool shift_based;
  HALFTONE_HD float operator()(float gamma, float variance) const {
    const double deviation = std::sqrt(static_cast<double>(variance) + static_cast<double>(epsilon));
    if (!shift_based) return static_cast<float>(static_cast<double>(gamma) / deviation);
    return shift_factor(gamma, true) * shift_factor(static_cast<float>(1 / deviation), true);
  }
};

/// [x, gamma, beta, running mean, running variance] -> [y, mean, inverse deviation], the latter always as it is.
struct BatchNorm final : Fusable<BatchNorm> {
  float epsilon, momentum;
  bool shift_based;
  BatchNorm(float the_epsilon, float the_momentum, bool is_shift_based = false)
      : epsilon(the_epsilon), momentum(the_momentum), shift_based(is_shift_based) {}
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
  bool shift_based;
  explicit BatchNormGradient(bool is_shift_based = false) : shift_based(is_shift_based) {}
  std::string name() const override { return "batch_norm_gradient"; }
  Arity arity() const override { return 5; }
};

/// [x, gamma, beta, running mean, running variance] -> y. Only x has a gradient.
struct BatchNormInference final : Fusable<BatchNormInference> {
  float epsilon;
  bool shift_based;
  explicit BatchNormInference(float the_epsilon, bool is_shift_based = false)
      : epsilon(the_epsilon), shift_based(is_shift_based) {}
  NormFactor factor() const { return {epsilon, shift_based}; }
  std::string name() const override { return "batch_norm_inference"; }
  Arity arity() const override { return 5; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
};

/// [d_y, gamma, running variance] -> d_x.
struct BatchNormInferenceGradient final : Op {
  float epsilon;
  bool shift_based;
  explicit BatchNormInferenceGradient(float the_epsilon, bool is_shift_based = false)
      : epsilon(the_epsilon), shift_based(is_shift_based) {}
  NormFactor factor() const { return {epsilon, shift_based}; }
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
