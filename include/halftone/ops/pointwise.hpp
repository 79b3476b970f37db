#pragma once
#include "halftone/graph/core_ops.hpp"
#include "halftone/graph/graph.hpp"

namespace halftone {

/// Applies one of the activations of numeric/pointwise.hpp: `activate(x, Silu{})`.
Value activate(Value x, const Activation& activation);

inline Value relu(Value x) { return activate(x, Relu{}); }
inline Value leaky_relu(Value x, float negative_slope = 0.01f) { return activate(x, LeakyRelu{negative_slope}); }
inline Value gelu(Value x) { return activate(x, Gelu{}); }
inline Value gelu_tanh(Value x) { return activate(x, GeluTanh{}); }
inline Value silu(Value x) { return activate(x, Silu{}); }
inline Value sigmoid(Value x) { return activate(x, Sigmoid{}); }
inline Value tanh(Value x) { return activate(x, Tanh{}); }
inline Value relu6(Value x) { return activate(x, Relu6{}); }
inline Value hard_sigmoid(Value x) { return activate(x, HardSigmoid{}); }
inline Value hard_swish(Value x) { return activate(x, HardSwish{}); }
inline Value hard_tanh(Value x) { return activate(x, HardTanh{}); }

/// Sum and product, number by number, of two tensors of one shape.
Value add(Value a, Value b);
Value multiply(Value a, Value b);
inline Value operator+(Value a, Value b) { return add(a, b); }
inline Value operator*(Value a, Value b) { return multiply(a, b); }

/// x times a constant.
Value scale(Value x, float factor);

/// The same numbers stored otherwise (and rounded).
Value cast(Value x, const Storage& storage);

/// Other extents over the same elements in the same order; n = -1 keeps the batch.
Value reshape(Value x, Shape shape);

/// [n, h, w, c] -> [n, 1, 1, h*w*c].
Value flatten(Value x);

/// Joins along the channels.
Value concat(std::span<const Value> parts);
inline Value concat(std::initializer_list<Value> parts) {
  return concat(std::span<const Value>(parts.begin(), parts.size()));
}

/// Channels [first, first + count). Throws Error where x has not so many.
Value slice(Value x, std::int64_t first, std::int64_t count);

/// In training each number is zeroed with probability `rate` and else divided by 1 - rate; in evaluation nothing
/// happens.
Value dropout(Value x, float rate);

/// (x / 255 for u8, else x, minus mean) / stddev, per channel; turns an input into an activation.
Value normalize(Value x, std::vector<float> mean, std::vector<float> stddev);

struct Activate final : Elementwise {
  Activation activation;
  explicit Activate(const Activation& the_activation) : activation(the_activation) {}
  std::string name() const override { return "activation"; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
  const Activation* as_activation() const override { return &activation; }
};

/// [d_output, or two whose sum that is, x or y as `slope_from_output` says] -> d_input.
struct ActivationGradient final : Elementwise {
  Activation activation;
  explicit ActivationGradient(const Activation& the_activation) : activation(the_activation) {}
  std::string name() const override { return "activation_gradient"; }
  Arity arity() const override { return {2, 3}; }
  const Activation* as_slope() const override { return &activation; }
  bool takes_sum() const override { return true; }
};

struct Multiply final : Elementwise {
  std::string name() const override { return "multiply"; }
  Arity arity() const override { return 2; }
  std::vector<Value> gradient(const GradientRequest& request) const override;
};

struct Scale final : Elementwise {
  float factor;
  explicit Scale(float the_factor) : factor(the_factor) {}
  std::string name() const override { return "scale"; }
  std::vector<Value> gradient(const GradientRequest& request) const override;
};

struct Concat final : Op {
  std::string name() const override { return "concat"; }
  Arity arity() const override { return {1, Arity::any}; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
};

/// Channels [first, first + count) of the input.
struct Slice final : Op {
  std::int64_t first, count;
  Slice(std::int64_t the_first, std::int64_t the_count) : first(the_first), count(the_count) {}
  std::string name() const override { return "slice"; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
  bool selects() const override { return true; }
};

/// Also its own gradient: the same mask and factor on the way back. The mask is uniform(seed, step, stream, element) >=
/// rate.
struct Dropout final : Elementwise {
  float rate;
  std::uint32_t stream;
  Dropout(float the_rate, std::uint32_t the_stream) : rate(the_rate), stream(the_stream) {}
  std::string name() const override { return "dropout"; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
  std::shared_ptr<const Op> inference() const override;
};

struct Normalize final : Op {
  std::vector<float> mean, stddev;
  Normalize(std::vector<float> the_mean, std::vector<float> the_stddev)
      : mean(std::move(the_mean)), stddev(std::move(the_stddev)) {}
  std::string name() const override { return "normalize"; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
};

}  // namespace halftone
