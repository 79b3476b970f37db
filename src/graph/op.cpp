#include "halftone/graph/op.hpp"

#include <fmt/format.h>

#include "halftone/graph/kernel.hpp"

namespace halftone {

std::vector<Value> Op::gradient(const GradientRequest&) const {
  fail(name() + " has no gradient, yet the loss depends on it");
}
void Op::commit(std::span<const Value>, std::span<const Value>) const {}
std::shared_ptr<const Op> Op::with_epilogue(const Activation&) const { return nullptr; }
std::shared_ptr<const Op> Op::with_slope(const Activation&) const { return nullptr; }
double Op::operations(std::span<const ValueSpec>, std::span<const ValueSpec>) const { return 0; }
Launch Op::lower(const Request&) const { return {}; }

std::vector<ValueSpec> Elementwise::infer(std::span<const ValueSpec> inputs) const {
  for (const ValueSpec& input : inputs)
    if (input.shape != inputs[0].shape)
      fail(fmt::format("shapes {} and {} differ", to_string(inputs[0].shape), to_string(input.shape)));
  return {{inputs[0].shape, DType::f32, result_role(inputs)}};
}

std::vector<ValueSpec> InputGradient::infer(std::span<const ValueSpec> inputs) const {
  return {{inputs[1].shape, DType::f32, Role::activation_gradient}};
}

}  // namespace halftone
