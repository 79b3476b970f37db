#pragma once
#include <functional>

#include "halftone/graph/graph.hpp"

namespace halftone {

/// A tensor as a `custom` body sees it: f32, whatever it is stored in.
struct FloatTensor {
  Shape shape;
  std::span<float> values;
};

using CustomBody = std::function<void(std::span<const FloatTensor> inputs, std::span<const FloatTensor> outputs)>;

/// An operation of the user's own, run by the host. `forward` gets the inputs and fills one output of the shape that
/// `shape` tells from the inputs' shapes. `backward`, where given, gets the inputs, then the output, then its gradient,
/// and fills one gradient per input. What they fill is zero at first.
struct CustomOptions {
  std::string name = "custom";
  std::function<Shape(std::span<const Shape>)> shape = {};  ///< by default the first input's shape
  CustomBody forward = {}, backward = {};
};
Value custom(const std::vector<Value>& inputs, const CustomOptions& options);

struct Custom final : Op {
  CustomOptions options;
  explicit Custom(CustomOptions the_options) : options(std::move(the_options)) {}
  std::string name() const override { return options.name; }
  Arity arity() const override { return {1, Arity::any}; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
  Launch lower(const Request& request) const override;
};

/// [inputs..., output, d_output] -> one gradient per input.
struct CustomGradient final : Op {
  CustomOptions options;
  std::size_t count;
  CustomGradient(CustomOptions the_options, std::size_t the_count)
      : options(std::move(the_options)), count(the_count) {}
  std::string name() const override { return options.name + "_gradient"; }
  Arity arity() const override { return {2, Arity::any}; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  Launch lower(const Request& request) const override;
};

}  // namespace halftone
