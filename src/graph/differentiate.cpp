#include "halftone/graph/differentiate.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "halftone/graph/core_ops.hpp"
#include "halftone/tensor/text.hpp"

namespace halftone {
namespace {

/// Which values have a trainable parameter, or one of `also`, behind them.
std::vector<bool> depends(const Graph& graph, std::span<const Value> also) {
  std::vector<bool> result(graph->values.size(), false);
  for (const auto& parameter : graph->parameters) result[at(parameter.value)] = parameter.trainable;
  for (const Value& value : also) result[at(value.id())] = true;
  for (const Node& node : graph->nodes) {
    bool any = false;
    for (int id : node.inputs) any = any || result[at(id)];
    for (int id : node.outputs) result[at(id)] = result[at(id)] || any;
  }
  return result;
}

std::vector<Value> values_of(Graph& graph, const std::vector<int>& ids) {
  std::vector<Value> values;
  for (int id : ids) values.push_back(graph.value(id));
  return values;
}

}  // namespace

void freeze(Graph& graph, std::span<const std::string> scopes) {
  std::vector<bool> frozen(graph->values.size(), false);
  for (const std::string& scope : scopes) {
    bool any = false;
    for (const auto& parameter : graph->parameters)
      if (in_scope(parameter.name, scope)) any = frozen[at(parameter.value)] = true;
    if (!any) fail(fmt::format("freeze \"{}\": no parameter lies in it", scope));
  }
  for (auto& parameter : graph->parameters)
    if (frozen[at(parameter.value)]) parameter.trainable = false;
  for (Node& node : graph->nodes) {
    const auto lies_in = [&](const std::string& scope) { return in_scope(node.name, scope); };
    bool reads_frozen = false, reads_others = false;
    for (int id : node.inputs) {
      reads_frozen = reads_frozen || frozen[at(id)];
      reads_others = reads_others || (graph.info(id).store == Store::weights && !frozen[at(id)]);
    }
    if (reads_others || !(reads_frozen || std::any_of(scopes.begin(), scopes.end(), lies_in))) continue;
    if (auto op = node.op->inference()) {
      node.op = std::move(op);
      node.outputs.resize(node.op->infer(graph.specs(node.inputs)).size());
    }
  }
}

std::vector<Value> differentiate(Graph& graph, Value loss, std::span<const Value> also) {
  if (graph_of(loss) != graph) fail("the loss belongs to another graph");
  for (const Value& value : also)
    if (graph_of(value) != graph) fail("a value whose gradient is wanted belongs to another graph");
  if (loss.shape().elements() != 1) fail("the loss must be a single number, not " + to_string(loss.shape()));
  graph.info(loss.id()).spec.role = Role::exact;  // f32, unless a cast or a view made it
  const std::vector<bool> wanted = depends(graph, also);
  const Scope scope(graph, {});  // gives the graph its own back, also when something is thrown
  std::vector<Value> gradients(graph->values.size());
  graph->scope = {};
  gradients[at(loss.id())] = graph.add_one(std::make_shared<SeedGradient>(), {graph.state()}, "seed_gradient");

  for (std::size_t n = graph->nodes.size(); n-- > 0;) {
    const Node node = graph->nodes[n];
    GradientRequest request;
    const auto inputs = values_of(graph, node.inputs), outputs = values_of(graph, node.outputs);
    std::vector<Value> d_outputs;
    bool flows = false, needed = false;
    for (int id : node.outputs) {
      d_outputs.push_back(at(id) < gradients.size() ? gradients[at(id)] : Value{});
      flows = flows || d_outputs.back();
    }
    for (int id : node.inputs) {
      request.wanted.push_back(wanted[at(id)]);
      needed = needed || wanted[at(id)];
    }
    if (!flows || !needed) continue;
    request.inputs = inputs, request.outputs = outputs, request.d_outputs = d_outputs;
    graph->scope = node.name + ".";
    const std::size_t before = graph->values.size();
    const std::vector<Value> d_inputs = naming(node.name, [&] {
      if (node.op->is_fused()) fail("an activation is joined to it: fuse comes after differentiate");
      return node.op->gradient(request);
    });
    for (std::size_t id = before; id < graph->values.size(); ++id)
      if (Role& role = graph.info(static_cast<int>(id)).spec.role; role == Role::activation)
        role = Role::activation_gradient;
    for (std::size_t i = 0; i < d_inputs.size(); ++i) {
      if (!d_inputs[i] || !request.wanted[i]) continue;
      if (d_inputs[i].shape() != inputs[i].shape())
        fail(fmt::format("{}: the gradient of {} is {}", node.name, to_string(inputs[i].shape()),
                         to_string(d_inputs[i].shape())));
      if (at(d_inputs[i].id()) >= before)  // a value of its own, not one passed on
        graph.info(d_inputs[i].id()).spec.role = gradient_role(graph.info(node.inputs[i]).spec);
      Value& total = gradients[at(node.inputs[i])];
      total = total ? graph.add_one(std::make_shared<Add>(), {total, d_inputs[i]}) : d_inputs[i];
    }
  }

  graph->scope = {};
  std::vector<bool> shared(graph->values.size(),
                           false);  // whose memory is another value's, or already a parameter's gradient
  for (const Node& node : graph->nodes)
    if (node.op->is_view()) shared[at(node.inputs[0])] = shared[at(node.outputs[0])] = true;
  for (auto& parameter : graph->parameters) {
    Value gradient = gradients[at(parameter.value)];
    if (!parameter.trainable || !gradient) continue;
    // A gradient that others read too (an activation's, the seed) keeps its own role and format.
    if (shared[at(gradient.id())] || graph.info(gradient.id()).spec.role != Role::weight_gradient)
      gradient = graph.add_one(std::make_shared<Cast>(Role::weight_gradient), {gradient});
    else
      shared[at(gradient.id())] = true;
    graph.info(gradient.id()).spec.role = Role::weight_gradient;
    graph.info(gradient.id()).name = "gradient of " + parameter.name;  // as `name_in` has it
    parameter.gradient = gradient.id();
  }
  std::vector<Value> result;
  for (const Value& value : also) result.push_back(gradients[at(value.id())]);
  return result;
}

void add_commits(Graph& graph) {
  const std::size_t count = graph->nodes.size();
  const Scope scope(graph, {});  // gives the graph its own back, also when something is thrown
  for (std::size_t n = 0; n < count; ++n) {
    const Node node = graph->nodes[n];
    graph->scope = node.name + ".";
    naming(node.name, [&] { node.op->commit(values_of(graph, node.inputs), values_of(graph, node.outputs)); });
  }
}

}  // namespace halftone
