#include "halftone/graph/op.hpp"

#include "halftone/graph/kernel.hpp"

namespace halftone {

std::vector<Value> Op::gradient(const GradientRequest&) const {
  fail(name() + " has no gradient, yet the loss depends on it");
}
void Op::commit(std::span<const Value>, std::span<const Value>) const {}
std::shared_ptr<const Op> Op::with_epilogue(const Activation&) const { return nullptr; }
Launch Op::lower(const Request&) const { return {}; }

}  // namespace halftone
