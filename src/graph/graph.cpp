#include "halftone/graph/graph.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <iterator>

#include "halftone/graph/kernel.hpp"

namespace halftone {
namespace {

void check_extents(const Shape& s) {
  if (s.n < 1 || s.h < 1 || s.w < 1 || s.c < 1)
    fail(fmt::format("every extent of {} must be at least 1", to_string(s)));
}

std::vector<ValueSpec> infer(const Op& op, std::span<const ValueSpec> inputs, const std::string& name) {
  return naming(name, [&] {
    auto specs = op.infer(inputs);
    for (const ValueSpec& spec : specs) check_extents(spec.shape);
    return specs;
  });
}

bool fits(int rank, const Shape& s) {
  return rank == 4 || (rank == 2 && s.h == 1 && s.w == 1) || (rank == 1 && s == Shape::vector(s.c));
}

}  // namespace

const char* name_of(Role role) {
  constexpr const char* names[] = {"input", "activation", "activation_gradient", "weight", "weight_gradient", "exact"};
  return names[static_cast<int>(role)];
}

Role result_role(std::span<const ValueSpec> inputs) {
  const Role first = inputs[0].role;
  if (first == Role::activation_gradient || first == Role::weight_gradient) return first;
  const auto all = [&](auto&& is) { return std::all_of(inputs.begin(), inputs.end(), is); };
  if (all([](const ValueSpec& v) { return v.role == Role::weight; })) return Role::weight;
  if (all([](const ValueSpec& v) { return v.role == Role::exact && v.shape.elements() == 1; })) return Role::exact;
  return Role::activation;
}

Role gradient_role(const ValueSpec& value) {
  if (value.role == Role::weight) return Role::weight_gradient;
  return value.role == Role::exact && value.shape.elements() == 1 ? Role::exact : Role::activation_gradient;
}

const ValueSpec& Value::spec() const { return graph_of(*this).info(id).spec; }

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

Graph::Identity::Identity() {
  static std::atomic<std::uint64_t> last = 0;
  number = ++last;
}

std::vector<ValueSpec> Graph::specs(std::span<const int> ids) const {
  std::vector<ValueSpec> result;
  for (int id : ids) result.push_back(info(id).spec);
  return result;
}

Value Graph::new_value(ValueSpec spec, std::string name) {
  values.push_back({spec, std::move(name)});
  return {this, static_cast<int>(values.size()) - 1};
}

Value Graph::input(const std::string& name, Shape shape, DType dtype) {
  naming(scoped(name), [&] { check_extents(shape); });
  const Value value = new_value({shape, dtype, Role::input}, scoped(name));
  inputs.push_back(value.id);
  return value;
}

Value Graph::parameter(const std::string& name, Shape shape, Initializer initializer, int rank, bool trainable) {
  const std::string full = scoped(name);
  for (const auto& other : parameters)
    if (other.name == full) fail(fmt::format("parameter {}: the name is taken", full));
  naming("parameter " + full, [&] {
    check_extents(shape);
    if (!fits(rank, shape)) fail(fmt::format("{} has no rank {}", to_string(shape), rank));
  });
  const Value value = stored(full, {shape, DType::f32, Role::weight}, Store::weights);
  parameters.push_back({full, value.id, std::move(initializer), rank, trainable});
  return value;
}

Value Graph::statistic(const std::string& name, Shape shape, float initial) {
  const std::string full = scoped(name);
  for (const auto& other : statistics)
    if (other.name == full) fail(fmt::format("statistic {}: the name is taken", full));
  naming("statistic " + full, [&] {
    check_extents(shape);
    if (!fits(1, shape)) fail(to_string(shape) + " is not a vector");
  });
  const Value value = stored(full, {shape, DType::f32, Role::exact}, Store::statistics);
  statistics.push_back({full, value.id, initial});
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
  for (const ValueSpec& spec : infer(*node.op, specs, node.name)) {
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

void prune(Graph& graph, std::span<const int> outputs) {
  std::vector<bool> needed(graph.values.size(), false);
  const auto need = [&](int id) { needed[static_cast<std::size_t>(id)] = true; };
  std::for_each(outputs.begin(), outputs.end(), need);
  std::vector<Node> kept;
  for (auto node = graph.nodes.rbegin(); node != graph.nodes.rend(); ++node) {
    const auto& of_node = node->outputs;
    if (std::none_of(of_node.begin(), of_node.end(), [&](int id) { return needed[static_cast<std::size_t>(id)]; }))
      continue;
    std::for_each(node->inputs.begin(), node->inputs.end(), need);
    kept.push_back(std::move(*node));
  }
  graph.nodes.assign(std::make_move_iterator(kept.rbegin()), std::make_move_iterator(kept.rend()));
}

Graph with_batch(const Graph& graph, std::int64_t batch) {
  Graph result = graph;
  for (int id : result.inputs) result.info(id).spec.shape.n = batch;
  for (const Node& node : result.nodes) {
    const auto specs = infer(*node.op, result.specs(node.inputs), node.name);
    for (std::size_t i = 0; i < specs.size(); ++i) result.info(node.outputs[i]).spec = specs[i];
  }
  return result;
}

Graph for_inference(const Graph& graph, std::span<const int> outputs) {
  Graph result = graph;
  prune(result, outputs);
  for (Node& node : result.nodes)
    if (auto op = node.op->inference()) {
      node.op = std::move(op);
      node.outputs.resize(infer(*node.op, result.specs(node.inputs), node.name).size());
    }
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

Choice choose_kernel(const Graph& graph, const Node& node, const Device& device) {
  const auto inputs = graph.specs(node.inputs), outputs = graph.specs(node.outputs);
  return choose_kernel({*node.op, inputs, outputs, device});
}

}  // namespace halftone
