#include "halftone/ops/custom.hpp"

#include <algorithm>
#include <cmath>

#include "halftone/graph/kernel.hpp"

namespace halftone {
namespace {

/// Reads every input into f32, calls the body, stores what it wrote.
Launch host_launch(const Request& request, CustomBody body, std::uint32_t stream) {
  struct Side {
    std::vector<TensorSpec> specs;
    std::vector<std::vector<float>> numbers;
    std::vector<FloatTensor> tensors;
    explicit Side(std::span<const ValueSpec> values) {
      for (const auto& value : values) {
        specs.push_back(value.tensor());
        numbers.emplace_back(static_cast<std::size_t>(value.shape.elements()));
      }
      for (std::size_t i = 0; i < specs.size(); ++i) tensors.push_back({specs[i].shape, numbers[i]});
    }
  };
  auto inputs = std::make_shared<Side>(request.inputs), outputs = std::make_shared<Side>(request.outputs);
  Backend* backend = &request.device.backend();
  const bool forward = request.outputs[0].role == Role::activation;
  const auto run = [=, body = std::move(body)](const Arguments& a) {
    for (std::size_t i = 0; i < inputs->specs.size(); ++i) {
      const auto values = TensorView{inputs->specs[i], a.inputs[i].data, backend, a.inputs[i].range}.read();
      std::copy(values.begin(), values.end(), inputs->numbers[i].begin());
    }
    for (auto& numbers : outputs->numbers) std::fill(numbers.begin(), numbers.end(), 0.0f);
    StepState state;  // the host's copy
    backend->download(&state, a.state, sizeof state);
    body(inputs->tensors, outputs->tensors, {state.seed, state.steps, state.steps >= 0, state.key(stream)});
    for (std::size_t i = 0; i < outputs->specs.size(); ++i) {
      const auto& [data, range, stream, node] = a.outputs[i];
      const Storage& storage = outputs->specs[i].storage;
      const auto bad = [limit = storage.finite_limit()](float x) { return !(std::abs(x) <= limit); };
      if (forward && std::any_of(outputs->numbers[i].begin(), outputs->numbers[i].end(), bad)) {
        state.bad_node = std::min(state.bad_node, node);
        if (!storage.keeps_nonfinite()) state.hidden = 1;
        backend->upload(a.state, &state, sizeof state);
      }
      const bool notices = range && storage.noticed;
      Noticed noticed;
      TensorView{outputs->specs[i], data, backend, range}.write(outputs->numbers[i], state.key(stream),
                                                                notices ? &noticed : nullptr);
      if (!notices) continue;
      RangeState seen;
      backend->download(&seen, range, sizeof seen);
      seen.noticed.add(noticed);
      backend->upload(range, &seen, sizeof seen);
    }
  };
  return {.run = run, .on_host = true};
}

}  // namespace

Value custom(const std::vector<Value>& inputs, const CustomOptions& options) {
  if (inputs.empty() || !options.forward) fail(options.name + ": a custom operation needs an input and a forward body");
  Graph g = graph_of(inputs[0]);
  return g.add_one(std::make_shared<Custom>(options, g.new_stream()), inputs);
}

std::vector<ValueSpec> Custom::infer(std::span<const ValueSpec> inputs) const {
  std::vector<Shape> shapes;
  for (const auto& input : inputs) shapes.push_back(input.shape);
  return {{options.shape ? options.shape(shapes) : shapes[0], DType::f32, result_role(inputs)}};
}

std::vector<Value> Custom::gradient(const GradientRequest& request) const {
  if (!options.backward) fail("it has no backward body, yet its gradient is needed");
  std::vector<Value> inputs(request.inputs.begin(), request.inputs.end());
  inputs.push_back(request.outputs[0]);
  inputs.push_back(request.d_outputs[0]);
  return graph_of(inputs[0]).add(std::make_shared<CustomGradient>(options, stream, request.inputs.size()), inputs);
}

Launch Custom::lower(const Request& request) const { return host_launch(request, options.forward, stream); }

std::vector<ValueSpec> CustomGradient::infer(std::span<const ValueSpec> inputs) const {
  std::vector<ValueSpec> d;
  for (std::size_t i = 0; i < count; ++i) d.push_back({inputs[i].shape, DType::f32, Role::activation_gradient});
  return d;
}

Launch CustomGradient::lower(const Request& request) const { return host_launch(request, options.backward, stream); }

}  // namespace halftone
