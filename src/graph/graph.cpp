#include "halftone/graph/graph.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "halftone/graph/kernel.hpp"

namespace halftone {
namespace {

std::vector<ValueSpec> specs_of(const Graph& graph, std::span<const int> ids) {
  std::vector<ValueSpec> specs;
  for (int id : ids) specs.push_back(graph.values[static_cast<std::size_t>(id)].spec);
  return specs;
}

void check_extents(const std::string& name, const Shape& s) {
  if (s.n < 1 || s.h < 1 || s.w < 1 || s.c < 1)
    fail(fmt::format("{}: every extent of {} must be at least 1", name, to_string(s)));
}

std::vector<ValueSpec> infer_named(const Op& op, std::span<const ValueSpec> inputs, const std::string& name) {
  try {
    return op.infer(inputs);
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", name, error.what()));
  }
}

}  // namespace

const char* name_of(Role role) {
  constexpr const char* names[] = {"input", "activation", "activation_gradient", "weight", "weight_gradient", "exact"};
  return names[static_cast<int>(role)];
}

const ValueSpec& Value::spec() const { return graph_of(*this).values[static_cast<std::size_t>(id)].spec; }

Graph& graph_of(const Value& value) {
  if (!value.graph) fail("a value that belongs to no graph was used");
  return *value.graph;
}

std::vector<Value> Op::gradient(const GradientRequest&) const {
  fail(name() + " has no gradient, yet the loss depends on it");
}
void Op::commit(std::span<const Value>, std::span<const Value>) const {}
std::shared_ptr<const Op> Op::with_epilogue(const Activation&) const { return nullptr; }
Launch Op::lower(const Request&) const { return {}; }

Value Graph::new_value(ValueSpec spec, std::string name) {
  values.push_back({spec, std::move(name)});
  return {this, static_cast<int>(values.size()) - 1};
}

Value Graph::input(const std::string& name, Shape shape, DType dtype) {
  check_extents(scoped(name), shape);
  const Value value = new_value({shape, dtype, Role::input}, scoped(name));
  inputs.push_back(value.id);
  return value;
}

Value Graph::parameter(const std::string& name, Shape shape, Initializer initializer, int rank, bool trainable) {
  const std::string full = scoped(name);
  for (const auto& other : parameters)
    if (other.name == full) fail(fmt::format("parameter {}: the name is taken", full));
  check_extents(full, shape);
  const Value value = stored(full, {shape, DType::f32, Role::weight}, Store::weights);
  parameters.push_back({full, value.id, std::move(initializer), rank, trainable});
  return value;
}

Value Graph::statistic(const std::string& name, Shape shape, float initial) {
  check_extents(scoped(name), shape);
  for (const auto& other : statistics)
    if (other.name == scoped(name)) fail(fmt::format("statistic {}: the name is taken", scoped(name)));
  const Value value = stored(scoped(name), {shape, DType::f32, Role::exact}, Store::statistics);
  statistics.push_back({scoped(name), value.id, initial});
  return value;
}

Value Graph::stored(const std::string& name, ValueSpec spec, Store store, std::size_t offset) {
  const Value value = new_value(spec, name);
  values.back().store = store;
  values.back().offset = offset;
  return value;
}

std::vector<Value> Graph::add(std::shared_ptr<const Op> op, const std::vector<Value>& inputs,
                              const std::string& label) {
  Node node{std::move(op), {}, {}, {}};
  node.name = scoped(label.empty() ? numbered(node.op->name()) : label);
  std::vector<ValueSpec> specs;
  for (const Value& input : inputs) {
    if (input.graph != this) fail(fmt::format("{}: an input belongs to another graph", node.name));
    node.inputs.push_back(input.id);
    specs.push_back(input.spec());
  }
  std::vector<Value> outputs;
  for (const ValueSpec& spec : infer_named(*node.op, specs, node.name)) {
    outputs.push_back(new_value(spec, outputs.empty() ? node.name : fmt::format("{}:{}", node.name, outputs.size())));
    node.outputs.push_back(outputs.back().id);
  }
  nodes.push_back(std::move(node));
  return outputs;
}

Value Graph::add_one(std::shared_ptr<const Op> op, const std::vector<Value>& inputs, const std::string& label) {
  return add(std::move(op), inputs, label).front();
}

void Graph::add_writing(std::shared_ptr<const Op> op, const std::vector<Value>& inputs,
                        const std::vector<Value>& outputs, const std::string& label) {
  Node node{std::move(op), {}, {}, {}};
  node.name = scoped(label.empty() ? numbered(node.op->name()) : label);
  for (const Value& input : inputs) node.inputs.push_back(input.id);
  for (const Value& output : outputs) node.outputs.push_back(output.id);
  nodes.push_back(std::move(node));
}

std::string Graph::scoped(const std::string& name) const { return scope + name; }

std::string Graph::numbered(const std::string& base) { return fmt::format("{}{}", base, ++counters_[scoped(base)]); }

bool in_scope(const std::string& name, const std::string& scope) {
  return name.starts_with(scope) &&
         (scope.empty() || scope.back() == '.' || name.size() == scope.size() || name[scope.size()] == '.');
}

std::vector<std::vector<int>> readers(const Graph& graph) {
  std::vector<std::vector<int>> result(graph.values.size());
  for (std::size_t n = 0; n < graph.nodes.size(); ++n)
    for (int id : graph.nodes[n].inputs) result[static_cast<std::size_t>(id)].push_back(static_cast<int>(n));
  return result;
}

Graph with_batch(const Graph& graph, std::int64_t batch) {
  Graph result = graph;
  for (int id : result.inputs) result.values[static_cast<std::size_t>(id)].spec.shape.n = batch;
  for (const Node& node : result.nodes) {
    const auto specs = infer_named(*node.op, specs_of(result, node.inputs), node.name);
    for (std::size_t i = 0; i < specs.size(); ++i)
      result.values[static_cast<std::size_t>(node.outputs[i])].spec = specs[i];
  }
  return result;
}

Graph for_inference(const Graph& graph, std::span<const int> outputs) {
  Graph result = graph;
  std::vector<bool> needed(graph.values.size(), false);
  for (int id : outputs) needed[static_cast<std::size_t>(id)] = true;
  std::vector<Node> kept;
  for (auto node = graph.nodes.rbegin(); node != graph.nodes.rend(); ++node) {
    if (std::none_of(node->outputs.begin(), node->outputs.end(),
                     [&](int id) { return needed[static_cast<std::size_t>(id)]; }))
      continue;
    kept.push_back(*node);
    if (auto op = node->op->inference()) {
      kept.back().op = std::move(op);
      const auto count = infer_named(*kept.back().op, specs_of(graph, node->inputs), node->name).size();
      kept.back().outputs.resize(count);
    }
    for (int id : node->inputs) needed[static_cast<std::size_t>(id)] = true;
  }
  std::reverse(kept.begin(), kept.end());
  result.nodes = std::move(kept);
  return result;
}

std::span<const Kernel> KernelTable::find(const std::string& operation) const {
  const auto found = kernels_.find(operation);
  return found == kernels_.end() ? std::span<const Kernel>() : std::span<const Kernel>(found->second);
}

Choice choose_kernel(const Request& request) {
  const std::string operation = request.op.name();
  Choice choice;
  if (Launch own = request.op.lower(request); own.run) return {operation + "/own", std::move(own), {}};
  for (const Kernel& kernel : request.device.backend().kernels().find(operation)) {
    Offer offer = kernel.make(request);
    if (auto* launch = std::get_if<Launch>(&offer)) {
      choice.kernel = operation + "/" + kernel.name;
      choice.launch = std::move(*launch);
      return choice;
    }
    choice.declined.push_back(fmt::format("{}/{}: {}", operation, kernel.name, std::get<Declined>(offer).reason));
  }
  return choice;
}

}  // namespace halftone
