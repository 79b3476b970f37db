#include "halftone/ops/norm.hpp"

#include <fmt/format.h>

#include "halftone/ops/initializers.hpp"

namespace halftone {
namespace {

struct Affine {
  Value gamma, beta;
};

std::string name_for(Graph& g, const NormOptions& options) {
  return options.name.empty() ? g.numbered("norm") : options.name;
}

Affine affine(Graph& g, const std::string& name, std::int64_t c, bool scale) {
  return {g.parameter(name + ".weight", Shape::vector(c), constant(1), 1, scale),
          g.parameter(name + ".bias", Shape::vector(c), constant(0), 1)};
}

void check_vectors(std::span<const ValueSpec> inputs, std::size_t first) {
  for (const auto& input : inputs.subspan(first))
    if (input.shape != Shape::vector(inputs[0].shape.c))
      fail(fmt::format("{} does not fit the channels of {}", to_string(input.shape), to_string(inputs[0].shape)));
}

/// One number a channel has no deviation: the layer would give zeros and no gradient.
void check_batch(const Value& x) {
  if (x.shape().rows() == 1) fail(fmt::format("in training {} is one value a channel", to_string(x.shape())));
}

Value group_norm_of(Value x, int groups, bool per_pixel, const NormOptions& options) {
  Graph g = graph_of(x);
  const std::string name = name_for(g, options);
  const auto op = std::make_shared<GroupNorm>(groups, per_pixel, options.epsilon);
  const ValueSpec vector{Shape::vector(x.shape().c)};
  naming(g.scoped(name), [&] {  // before parameters
    if (options.shift_based) fail("only batch norm can be shift-based");
    op->infer(std::vector<ValueSpec>{x.spec(), vector, vector});
  });
  const Affine parameters = affine(g, name, vector.shape.c, options.scale);
  return g.add_one(op, {x, parameters.gamma, parameters.beta}, name);
}

}  // namespace

Value batch_norm(Value x, const NormOptions& options) {
  Graph g = graph_of(x);
  const std::string name = name_for(g, options);
  const Shape vector = Shape::vector(x.shape().c);
  const Affine parameters = affine(g, name, vector.c, options.scale);
  const Value mean = g.statistic(name + ".running_mean", vector, 0),
              variance = g.statistic(name + ".running_var", vector, 1);
  return g.add(std::make_shared<BatchNorm>(options.epsilon, options.momentum, options.shift_based),
               {x, parameters.gamma, parameters.beta, mean, variance}, name)[0];
}

Value layer_norm(Value x, const NormOptions& options) { return group_norm_of(x, 1, true, options); }
Value group_norm(Value x, int groups, const NormOptions& options) { return group_norm_of(x, groups, false, options); }

std::vector<ValueSpec> BatchNorm::infer(std::span<const ValueSpec> inputs) const {
  check_vectors(inputs, 1);
  const Shape vector = Shape::vector(inputs[0].shape.c);
  return {{inputs[0].shape}, {vector, DType::f32, Role::exact}, {vector, DType::f32, Role::exact}};
}

std::vector<Value> BatchNorm::gradient(const GradientRequest& request) const {
  check_batch(request.inputs[0]);
  const auto d =
      graph_of(request.inputs[0])
          .add(std::make_shared<BatchNormGradient>(shift_based),
               {request.d_outputs[0], request.inputs[0], request.inputs[1], request.outputs[1], request.outputs[2]});
  return {d[0], d[1], d[2], {}, {}};
}

void BatchNorm::commit(std::span<const Value> inputs, std::span<const Value> outputs) const {
  check_batch(inputs[0]);
  graph_of(inputs[0]).add_writing(
      std::make_shared<UpdateRunningStatistics>(epsilon, momentum, inputs[0].shape().rows()), {outputs[1], outputs[2]},
      {inputs[3], inputs[4]});
}

std::shared_ptr<const Op> BatchNorm::inference() const {
  auto result = std::make_shared<BatchNormInference>(epsilon, shift_based);
  result->epilogue = epilogue;
  return result;
}

std::vector<ValueSpec> NormGradient::infer(std::span<const ValueSpec> inputs) const {
  return {{inputs[1].shape, DType::f32, Role::activation_gradient},
          {inputs[2].shape, DType::f32, Role::weight_gradient},
          {inputs[2].shape, DType::f32, Role::weight_gradient}};
}

std::vector<ValueSpec> BatchNormInference::infer(std::span<const ValueSpec> inputs) const {
  check_vectors(inputs, 1);
  return {{inputs[0].shape}};
}

std::vector<Value> BatchNormInference::gradient(const GradientRequest& request) const {
  if (request.wanted[1] || request.wanted[2]) fail("by running statistics gamma and beta have no gradients");
  const auto d_x = graph_of(request.inputs[0])
                       .add_one(std::make_shared<BatchNormInferenceGradient>(epsilon, shift_based),
                                {request.d_outputs[0], request.inputs[1], request.inputs[4]});
  return {d_x, {}, {}, {}, {}};
}

std::vector<ValueSpec> BatchNormInferenceGradient::infer(std::span<const ValueSpec> inputs) const {
  check_vectors(inputs, 1);
  return {{inputs[0].shape, DType::f32, Role::activation_gradient}};
}

std::vector<ValueSpec> GroupNorm::infer(std::span<const ValueSpec> inputs) const {
  check_vectors(inputs, 1);
  const Shape x = inputs[0].shape;
  if (groups < 1 || x.c % groups) fail(fmt::format("{} groups do not divide the channels of {}", groups, to_string(x)));
  return {{x}, {{per_pixel ? x.rows() : x.n, groups, 1, 2}, DType::f32, Role::exact}};
}

std::vector<Value> GroupNorm::gradient(const GradientRequest& request) const {
  return graph_of(request.inputs[0])
      .add(std::make_shared<GroupNormGradient>(groups, per_pixel),
           {request.d_outputs[0], request.inputs[0], request.inputs[1], request.outputs[1]});
}

}  // namespace halftone
