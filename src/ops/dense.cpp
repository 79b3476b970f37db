#include "halftone/ops/dense.hpp"

#include <fmt/format.h>

#include <cmath>

#include "halftone/ops/initializers.hpp"
#include "halftone/ops/sum_rows.hpp"

namespace halftone {
namespace {

/// The value whose numbers `id` holds, reshaped or changed one by one since.
int origin(const Graph& g, int id) {
  for (auto node = g->nodes.rbegin(); node != g->nodes.rend(); ++node)
    if (node->outputs[0] == id && (node->op->is_view() || dynamic_cast<const Elementwise*>(node->op.get())))
      id = node->inputs[0];
  return id;
}

Value add_dense(const std::vector<Value>& inputs, const std::string& label = {}) {
  Graph g = graph_of(inputs[0]);
  const Value y = g.add_one(std::make_shared<Dense>(), inputs, label);
  Shape image = g.info(origin(g, inputs[0].id())).spec.shape;
  if (image.features() != inputs[1].shape().c) image = inputs[0].shape();  // reshaped across images
  const int weight = origin(g, inputs[1].id());
  for (ParameterInfo& parameter : g->parameters)
    if (parameter.value == weight && image.h * image.w > 1) parameter.flattened = {1, image.h, image.w, image.c};
  return y;
}

}  // namespace

Value dense(Value x, int units, const DenseOptions& options) {
  Graph g = graph_of(x);
  const std::string name = options.name.empty() ? g.numbered("dense") : options.name;
  if (units < 1) fail(fmt::format("{}: {} units", g.scoped(name), units));
  const std::int64_t features = x.shape().features();
  const float bound = 1 / std::sqrt(static_cast<float>(features));
  const Value weight =
      g.parameter(name + ".weight", Shape::matrix(units, features), options.weight_init.value_or(uniform(bound)), 2);
  std::vector<Value> inputs{x, weight};
  if (options.bias) inputs.push_back(g.parameter(name + ".bias", Shape::vector(units), uniform(bound), 1));
  return add_dense(inputs, name);
}

Value dense(Value x, Value weight, Value bias) {
  std::vector<Value> inputs{x, weight};
  if (bias) inputs.push_back(bias);
  return add_dense(inputs);
}

std::vector<ValueSpec> Dense::infer(std::span<const ValueSpec> inputs) const {
  const Shape x = inputs[0].shape, w = inputs[1].shape;
  if (w.h != 1 || w.w != 1 || x.features() != w.c)
    fail(fmt::format("input {} with {} features does not fit weights {}", to_string(x), x.features(), to_string(w)));
  if (inputs.size() > 2 && inputs[2].shape != Shape::vector(w.n))
    fail(fmt::format("bias {} does not fit {} units", to_string(inputs[2].shape), w.n));
  return {{Shape::matrix(x.n, w.n)}};
}

std::vector<Value> Dense::gradient(const GradientRequest& request) const {
  const Value &x = request.inputs[0], &w = request.inputs[1], &d_y = request.d_outputs[0];
  Graph g = graph_of(x);
  std::vector<Value> d(request.inputs.size());
  if (request.wanted[1]) d[1] = g.add_one(std::make_shared<DenseDWeight>(), {x, d_y});
  if (d.size() > 2 && request.wanted[2]) d[2] = g.add_one(std::make_shared<SumRows>(), {d_y});
  if (request.wanted[0]) d[0] = g.add_one(std::make_shared<DenseDInput>(x.shape()), {d_y, w});
  return d;
}

std::vector<ValueSpec> DenseDInput::infer(std::span<const ValueSpec> inputs) const {
  return {{{inputs[0].shape.n, image.h, image.w, image.c}, DType::f32, Role::activation_gradient}};
}

std::vector<ValueSpec> DenseDWeight::infer(std::span<const ValueSpec> inputs) const {
  return {{Shape::matrix(inputs[1].shape.c, inputs[0].shape.features()), DType::f32, Role::weight_gradient}};
}

double Dense::operations(std::span<const ValueSpec> inputs, std::span<const ValueSpec> outputs) const {
  return 2.0 * static_cast<double>(outputs[0].shape.elements() * inputs[0].shape.features());
}

double DenseDInput::operations(std::span<const ValueSpec> inputs, std::span<const ValueSpec>) const {
  return 2.0 * static_cast<double>(inputs[0].shape.elements() * inputs[1].shape.features());
}

double DenseDWeight::operations(std::span<const ValueSpec> inputs, std::span<const ValueSpec>) const {
  return 2.0 * static_cast<double>(inputs[1].shape.elements() * inputs[0].shape.features());
}

}  // namespace halftone
