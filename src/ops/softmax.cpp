#include "halftone/ops/softmax.hpp"

namespace halftone {

Value softmax(Value x) { return graph_of(x).add_one(std::make_shared<Softmax>(), {x}); }

std::vector<ValueSpec> Softmax::infer(std::span<const ValueSpec> inputs) const { return {{inputs[0].shape}}; }

std::vector<Value> Softmax::gradient(const GradientRequest& request) const {
  return {graph_of(request.inputs[0])
              .add_one(std::make_shared<SoftmaxGradient>(), {request.d_outputs[0], request.outputs[0]})};
}

}  // namespace halftone
