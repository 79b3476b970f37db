#include "halftone/ops/quantize.hpp"

#include <algorithm>

#include "halftone/ops/custom.hpp"

namespace halftone {

Value quantize(Value x, std::function<float(float)> f, const std::string& name) {
  CustomOptions options{.name = name};
  options.forward = [f = std::move(f)](std::span<const FloatTensor> in, std::span<const FloatTensor> out) {
    for (std::size_t i = 0; i < in[0].values.size(); ++i) out[0].values[i] = f(in[0].values[i]);
  };
  options.backward = [](std::span<const FloatTensor> in, std::span<const FloatTensor> out) {
    std::copy(in[2].values.begin(), in[2].values.end(), out[0].values.begin());
  };
  return custom({x}, options);
}

Value quantize(Value x, const Grid& grid) {
  return graph_of(x).add_one(std::make_shared<Quantize>(grid, graph_of(x).new_stream()), {x});
}

std::vector<Value> Quantize::gradient(const GradientRequest& request) const { return {request.d_outputs[0]}; }

}  // namespace halftone
