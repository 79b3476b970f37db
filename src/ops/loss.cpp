#include "halftone/ops/loss.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace halftone {
namespace {

void check_labels(std::span<const ValueSpec> inputs) {
  if (inputs[0].shape.h != 1 || inputs[0].shape.w != 1)
    fail(fmt::format("logits must be [n, 1, 1, classes], not {}", to_string(inputs[0].shape)));
  if (inputs[1].shape != Shape{inputs[0].shape.n, 1, 1, 1} || inputs[1].storage != Storage(DType::i32))
    fail(fmt::format("labels must be {} of i32, not {} of {}", to_string(Shape{inputs[0].shape.n, 1, 1, 1}),
                     to_string(inputs[1].shape), to_string(inputs[1].storage)));
}

void check_same(std::span<const ValueSpec> inputs) {
  if (inputs[0].shape != inputs[1].shape)
    fail(fmt::format("shapes {} and {} differ", to_string(inputs[0].shape), to_string(inputs[1].shape)));
}

std::vector<ValueSpec> number() { return {{Shape{}, DType::f32, Role::exact}}; }

}  // namespace

Value cross_entropy(Value logits, Value labels, const CrossEntropyOptions& given) {
  CrossEntropyOptions options = given;
  float largest = 0;
  for (const float weight : options.class_weights) largest = std::max(largest, weight);
  if (largest > 0 && std::isfinite(largest))  // a power of two changes nothing, and so no sum leaves f32's range
    for (float& weight : options.class_weights)
      if (weight > 0) weight = std::max(std::ldexp(weight, -std::ilogb(largest)), 0x1p-149f);
  return graph_of(logits).add_one(std::make_shared<SoftmaxCrossEntropy>(options), {logits, labels},
                                  graph_of(logits).numbered("cross_entropy"));
}
Value mean_squared_error(Value x, Value target) {
  return graph_of(x).add_one(std::make_shared<MeanSquaredError>(), {x, target});
}
Value binary_cross_entropy(Value logits, Value target) {
  return graph_of(logits).add_one(std::make_shared<BinaryCrossEntropy>(), {logits, target});
}
Value accuracy(Value logits, Value labels) {
  return graph_of(logits).add_one(std::make_shared<Accuracy>(), {logits, labels});
}

std::vector<ValueSpec> SoftmaxCrossEntropy::infer(std::span<const ValueSpec> inputs) const {
  check_labels(inputs);
  if (const float smoothing = options.label_smoothing; !(smoothing >= 0 && smoothing < 1))
    fail(fmt::format("a label smoothing of {} is not in [0, 1)", smoothing));
  if (options.ignore_label && *options.ignore_label >= 0 && *options.ignore_label < inputs[0].shape.c)
    fail(fmt::format("the label {} to ignore is a class", *options.ignore_label));
  const std::vector<float>& weights = options.class_weights;
  if (!weights.empty() && std::ssize(weights) != inputs[0].shape.c)
    fail(fmt::format("{} class weights for {} classes", weights.size(), inputs[0].shape.c));
  for (const float weight : weights)
    if (!(weight > 0 && std::isfinite(weight))) fail(fmt::format("a class weight of {} is not above 0", weight));
  return number();
}

std::vector<Value> SoftmaxCrossEntropy::gradient(const GradientRequest& request) const {
  return {graph_of(request.inputs[0])
              .add_one(std::make_shared<SoftmaxCrossEntropyGradient>(options),
                       {request.d_outputs[0], request.inputs[0], request.inputs[1]}),
          {}};
}

std::vector<ValueSpec> MeanSquaredError::infer(std::span<const ValueSpec> inputs) const {
  check_same(inputs);
  return number();
}

std::vector<ValueSpec> BinaryCrossEntropy::infer(std::span<const ValueSpec> inputs) const {
  check_same(inputs);
  return number();
}

std::vector<Value> BinaryCrossEntropy::gradient(const GradientRequest& request) const {
  if (request.wanted[1]) fail("the target has no gradient");
  return {graph_of(request.inputs[0])
              .add_one(std::make_shared<BinaryCrossEntropyGradient>(),
                       {request.d_outputs[0], request.inputs[0], request.inputs[1]}),
          {}};
}

std::vector<Value> MeanSquaredError::gradient(const GradientRequest& request) const {
  Graph g = graph_of(request.inputs[0]);
  std::vector<Value> d(2);
  for (std::size_t i : {0, 1})
    if (request.wanted[i])
      d[i] = g.add_one(std::make_shared<MeanSquaredErrorGradient>(),
                       {request.d_outputs[0], request.inputs[i], request.inputs[1 - i]});
  return d;
}

std::vector<ValueSpec> Accuracy::infer(std::span<const ValueSpec> inputs) const {
  check_labels(inputs);
  return number();
}

}  // namespace halftone
