#pragma once
#include <functional>
#include <type_traits>

#include "halftone/graph/graph.hpp"
#include "halftone/numeric/philox.hpp"

namespace halftone {

/// A tensor as a `custom` body sees it: f32, whatever it is stored in.
struct FloatTensor {
  Shape shape;
  std::span<float> values;
};

/// The run that a `custom` body takes part in.
struct CustomRun {
  std::uint64_t seed = 1;  ///< of the training
  std::int64_t step = 0;   ///< steps committed so far
  bool training = true;    ///< false in evaluation, where `step` is meaningless
  /// Random numbers of the operation's own (`bits`): others for each micro-batch, the same for forward and backward.
  RandomKey key = {};
};

/// A function (inputs, outputs) or (inputs, outputs, run).
class CustomBody {
 public:
  using Tensors = std::span<const FloatTensor>;
  CustomBody() = default;
  template <class F>
  CustomBody(F body) {  // NOLINT(google-explicit-constructor): a body is written where one is wanted
    if constexpr (requires { body == nullptr; })
      if (body == nullptr) return;
    if constexpr (std::is_invocable_v<F, Tensors, Tensors, const CustomRun&>)
      body_ = std::move(body);
    else
      body_ = [body = std::move(body)](Tensors in, Tensors out, const CustomRun&) { body(in, out); };
  }
  explicit operator bool() const { return body_ != nullptr; }
  void operator()(Tensors inputs, Tensors outputs, const CustomRun& run) const { body_(inputs, outputs, run); }

 private:
  std::function<void(Tensors, Tensors, const CustomRun&)> body_;
};

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
  std::uint32_t stream;
  Custom(CustomOptions the_options, std::uint32_t the_stream) : options(std::move(the_options)), stream(the_stream) {}
  std::string name() const override { return options.name; }
  Arity arity() const override { return {1, Arity::any}; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
  Launch lower(const Request& request) const override;
};

/// [inputs..., output, d_output] -> one gradient per input.
struct CustomGradient final : Op {
  CustomOptions options;
  std::uint32_t stream;
  std::size_t count;
  CustomGradient(CustomOptions the_options, std::uint32_t the_stream, std::size_t the_count)
      : options(std::move(the_options)), stream(the_stream), count(the_count) {}
  std::string name() const override { return options.name + "_gradient"; }
  Arity arity() const override { return {2, Arity::any}; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  Launch lower(const Request& request) const override;
};

}  // namespace halftone
