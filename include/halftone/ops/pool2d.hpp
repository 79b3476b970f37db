#pragma once
#include <optional>

#include "halftone/ops/conv2d.hpp"

namespace halftone {

struct PoolOptions {
  std::optional<Extent> stride = {};  ///< by default the window
  Extent padding = 0;                 ///< less than the window; never the maximum
  bool ceil_mode = false;             ///< windows may end behind the padding, if they begin before it
  bool count_include_pad = false;     ///< the padding counts in an average's divisor (what lies behind it never does)
};

/// The largest number of each window. NaN wins. The gradient goes to the first largest in row order.
Value max_pool2d(Value x, Extent window, const PoolOptions& options = {});

/// The mean of each window's numbers inside the image, or their sum over the window's extent within the padding.
Value avg_pool2d(Value x, Extent window, const PoolOptions& options = {});

/// [n, h, w, c] -> [n, 1, 1, c], the mean of each channel.
Value global_avg_pool(Value x);
/// [n, h, w, c] -> [n, 1, 1, c], the maximum of each channel.
Value global_max_pool(Value x);

struct PoolAttributes {
  Extent window, stride, padding;
  bool global = false;  ///< the window is the whole image
  bool ceil_mode = false, count_include_pad = false;
};

struct MaxPool2d final : Op {
  PoolAttributes pool;
  explicit MaxPool2d(PoolAttributes the_pool) : pool(the_pool) {}
  std::string name() const override { return "max_pool2d"; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
  bool selects() const override { return true; }
};

/// [d_output, x] -> d_input; times the slope of a relu at its output x where `rectified`.
struct MaxPool2dGradient final : InputGradient {
  PoolAttributes pool;
  bool rectified = false;
  explicit MaxPool2dGradient(PoolAttributes the_pool) : pool(the_pool) {}
  std::string name() const override { return "max_pool2d_gradient"; }
  Arity arity() const override { return 2; }
  std::shared_ptr<const Op> with_slope(const Activation& activation) const override;
};

struct AvgPool2d final : Op {
  PoolAttributes pool;
  explicit AvgPool2d(PoolAttributes the_pool) : pool(the_pool) {}
  std::string name() const override { return "avg_pool2d"; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
};

/// [d_output] -> d_input of extent (h, w).
struct AvgPool2dGradient final : Op {
  PoolAttributes pool;
  Extent extent;
  AvgPool2dGradient(PoolAttributes the_pool, Extent the_extent) : pool(the_pool), extent(the_extent) {}
  std::string name() const override { return "avg_pool2d_gradient"; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
};

}  // namespace halftone
