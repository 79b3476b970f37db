#pragma once
#include <optional>
#include <string>

#include "halftone/graph/graph.hpp"

namespace halftone {

/// A vertical and a horizontal extent; one number stands for both.
struct Extent {
  int h, w;
  constexpr Extent(int both) : h(both), w(both) {}  // NOLINT(google-explicit-constructor): 3 means 3x3
  constexpr Extent(int the_h, int the_w) : h(the_h), w(the_w) {}
  constexpr bool operator==(const Extent&) const = default;
};

struct Conv2dOptions {
  Extent stride = 1;
  /// Zeros on each side. By default as many in all as make h and w shrink by the stride alone, rounded up; where their
  /// number is odd, the odd one is at the bottom and right.
  std::optional<Extent> padding = {};
  Extent dilation = 1;
  int groups = 1;  ///< up to the number of channels (depthwise)
  bool bias = true;
  std::string name = {};                                  ///< by default conv1, conv2, ...
  std::optional<Initializer> weight_init = std::nullopt;  ///< by default uniform within 1/sqrt(fan in), the bias too
};

/// Cross-correlation of [n, h, w, c] with weights [k, r, s, c / groups] of its own: [n, p, q, k]. Throws Error for a
/// kernel larger than the padded input and for channels that the groups do not divide.
Value conv2d(Value x, int channels, Extent kernel, const Conv2dOptions& options = {});

/// The same with given weights and bias (or none).
Value conv2d(Value x, Value weight, Value bias, const Conv2dOptions& options = {});

/// What all three directions of a convolution share. p = (h + 2 padding + extra - dilation (r - 1) - 1) / stride + 1.
struct ConvAttributes {
  Extent stride = 1, padding = 0, dilation = 1;
  int groups = 1;
  Extent extra = 0;  ///< zeros at the bottom and right, besides the padding

  void check() const;  ///< throws Error where one is less than 1 (padding: 0) or so large that extents may overflow
};

/// [x, weight, optional bias] -> y, with an activation on the way out.
struct Conv2d final : Fusable<Conv2d> {
  ConvAttributes conv;
  explicit Conv2d(ConvAttributes the_conv) : conv(the_conv) {}
  std::string name() const override { return "conv2d"; }
  Arity arity() const override { return {2, 3}; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  double operations(std::span<const ValueSpec> inputs, std::span<const ValueSpec> outputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
};

/// [d_output, weight] -> d_input of extent (h, w).
struct Conv2dDInput final : Op {
  ConvAttributes conv;
  Extent extent;
  Conv2dDInput(ConvAttributes the_conv, Extent the_extent) : conv(the_conv), extent(the_extent) {}
  std::string name() const override { return "conv2d_d_input"; }
  Arity arity() const override { return 2; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  double operations(std::span<const ValueSpec> inputs, std::span<const ValueSpec> outputs) const override;
};

/// [x, d_output] -> d_weight of the given shape.
struct Conv2dDWeight final : Op {
  ConvAttributes conv;
  Shape shape;
  Conv2dDWeight(ConvAttributes the_conv, Shape the_shape) : conv(the_conv), shape(the_shape) {}
  std::string name() const override { return "conv2d_d_weight"; }
  Arity arity() const override { return 2; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  double operations(std::span<const ValueSpec> inputs, std::span<const ValueSpec> outputs) const override;
};

}  // namespace halftone
