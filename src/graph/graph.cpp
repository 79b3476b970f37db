#include "halftone/graph/graph.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <utility>

#include "halftone/graph/step_state.hpp"

namespace halftone {
namespace {

std::uint64_t next_identity() {
  static std::atomic<std::uint64_t> last = 0;
  return ++last;
}

/// No count of elements, nor of their bytes, overflows.
void check_extents(const Shape& s) {
  constexpr std::int64_t most = std::int64_t{1} << 48;
  std::int64_t elements = 1;
  for (const std::int64_t extent : {s.n, s.h, s.w, s.c}) {
    if (extent < 1) fail(fmt::format("every extent of {} must be at least 1", to_string(s)));
    if (extent > most / elements) fail(fmt::format("{} has more than 2^48 elements", to_string(s)));
    elements *= extent;
  }
}

void check_arity(const Op& op, std::size_t inputs, const std::string& name) {
  const auto [least, most] = op.arity();
  if (!std::cmp_less(inputs, least) && !std::cmp_greater(inputs, most)) return;
  const std::string wanted = least == most        ? fmt::format("{}", least)
                             : most == Arity::any ? fmt::format("at least {}", least)
                                                  : fmt::format("{} to {}", least, most);
  fail(fmt::format("{}: {} takes {} inputs, not {}", name, op.name(), wanted, inputs));
}

std::vector<ValueSpec> infer(const Op& op, std::span<const ValueSpec> inputs, const std::string& name) {
  check_arity(op, inputs.size(), name);
  return naming(name, [&] {
    auto specs = op.infer(inputs);
    for (const ValueSpec& spec : specs) check_extents(spec.shape);
    return specs;
  });
}

Node new_node(Graph& graph, std::shared_ptr<const Op> op, const std::string& label) {
  std::string name = graph.scoped(label.empty() ? graph.numbered(op->name()) : label);
  return {std::move(op), {}, {}, std::move(name)};
}

bool fits(int rank, const Shape& s) {
  return rank == 4 || (rank == 2 && s.h == 1 && s.w == 1) || (rank == 1 && s == Shape::vector(s.c));
}

}  // namespace

const char* name_of(Store store) {
  constexpr const char* names[] = {
      "none",         "weights", "masters",    "gradients",           "accumulated",     "slot0", "slot1",
      "compensation", "average", "statistics", "averaged_statistics", "kept_statistics", "state", "ranges"};
  static_assert(std::size(names) == store_count);
  return names[at(store)];
}

Graph::Graph() : body_(std::make_shared<GraphBody>()) { body_->identity = next_identity(); }

Graph Graph::clone() const {
  Graph copy(std::make_shared<GraphBody>(*body_));
  copy->identity = next_identity();
  return copy;
}

std::vector<ValueSpec> Graph::specs(std::span<const int> ids) const {
  std::vector<ValueSpec> result;
  for (int id : ids) result.push_back(info(id).spec);
  return result;
}

Value Graph::new_value(ValueSpec spec, std::string name) {
  body_->values.push_back({spec, std::move(name)});
  return {body_, static_cast<int>(body_->values.size()) - 1};
}

Value Graph::input(const std::string& name, Shape shape, DType dtype) {
  naming(scoped(name), [&] { check_extents(shape); });
  const Value value = new_value({shape, dtype, Role::input}, scoped(name));
  body_->inputs.push_back(value.id());
  return value;
}

Value Graph::parameter(const std::string& name, Shape shape, Initializer initializer, int rank, bool trainable) {
  const std::string full = scoped(name);
  for (const auto& other : body_->parameters)
    if (other.name == full) fail(fmt::format("parameter {}: the name is taken", full));
  naming("parameter " + full, [&] {
    check_extents(shape);
    if (!fits(rank, shape)) fail(fmt::format("{} has no rank {}", to_string(shape), rank));
  });
  const int number = static_cast<int>(body_->parameters.size());
  const Value value = stored(full, {shape, DType::f32, Role::weight}, Store::weights, number);
  body_->parameters.push_back({full, value.id(), std::move(initializer), rank, trainable});
  return value;
}

Value Graph::statistic(const std::string& name, Shape shape, float initial) {
  const std::string full = scoped(name);
  for (const auto& other : body_->statistics)
    if (other.name == full) fail(fmt::format("statistic {}: the name is taken", full));
  naming("statistic " + full, [&] {
    check_extents(shape);
    if (!fits(1, shape)) fail(to_string(shape) + " is not a vector");
  });
  const int number = static_cast<int>(body_->statistics.size());
  const Value value = stored(full, {shape, DType::f32, Role::exact}, Store::statistics, number);
  body_->statistics.push_back({full, value.id(), initial});
  return value;
}

Value Graph::stored(const std::string& name, ValueSpec spec, Store store, int owner) {
  const Value value = new_value(spec, name);
  info(value.id()).store = store;
  info(value.id()).owner = owner;
  return value;
}

Value Graph::state() {
  for (std::size_t id = 0; id < body_->values.size(); ++id)
    if (body_->values[id].store == Store::state) return value(static_cast<int>(id));
  return stored("state", {Shape::vector(sizeof(StepState)), DType::u8, Role::exact}, Store::state);
}

std::vector<int> Graph::numbers_of(const Node& node, const std::vector<Value>& values) const {
  std::vector<int> numbers;
  for (const Value& value : values) {
    if (value.body_ != body_)
      fail(fmt::format("{}: {}", node.name, value ? "a value belongs to another graph" : "a value is missing"));
    numbers.push_back(value.id());
  }
  return numbers;
}

std::vector<Value> Graph::add(std::shared_ptr<const Op> op, const std::vector<Value>& inputs,
                              const std::string& label) {
  Node node = new_node(*this, std::move(op), label);
  node.inputs = numbers_of(node, inputs);
  std::vector<Value> outputs;
  for (const ValueSpec& spec : infer(*node.op, specs(node.inputs), node.name)) {
    outputs.push_back(new_value(spec, outputs.empty() ? node.name : fmt::format("{}:{}", node.name, outputs.size())));
    node.outputs.push_back(outputs.back().id());
  }
  body_->nodes.push_back(std::move(node));
  return outputs;
}

Value Graph::add_one(std::shared_ptr<const Op> op, const std::vector<Value>& inputs, const std::string& label) {
  return add(std::move(op), inputs, label).front();
}

void Graph::add_writing(std::shared_ptr<const Op> op, const std::vector<Value>& inputs,
                        const std::vector<Value>& outputs, const std::string& label) {
  Node node = new_node(*this, std::move(op), label);
  node.inputs = numbers_of(node, inputs);
  node.outputs = numbers_of(node, outputs);
  check_arity(*node.op, node.inputs.size(), node.name);
  body_->nodes.push_back(std::move(node));
}

std::string Graph::scoped(const std::string& name) const { return body_->scope + name; }

std::string Graph::numbered(const std::string& base) {
  return fmt::format("{}{}", base, ++body_->counters[scoped(base)]);
}

bool in_scope(const std::string& name, const std::string& scope) {
  return name.starts_with(scope) &&
         (scope.empty() || scope.back() == '.' || name.size() == scope.size() || name[scope.size()] == '.');
}

std::vector<std::vector<int>> readers(const Graph& graph) {
  std::vector<std::vector<int>> result(graph->values.size());
  for (std::size_t n = 0; n < graph->nodes.size(); ++n)
    for (int id : graph->nodes[n].inputs) result[at(id)].push_back(static_cast<int>(n));
  return result;
}

void prune(Graph& graph, std::span<const int> outputs) {
  std::vector<bool> needed(graph->values.size(), false);
  const auto need = [&](int id) { needed[at(id)] = true; };
  std::for_each(outputs.begin(), outputs.end(), need);
  std::vector<Node> kept;
  for (auto node = graph->nodes.rbegin(); node != graph->nodes.rend(); ++node) {
    const auto& of_node = node->outputs;
    if (std::none_of(of_node.begin(), of_node.end(), [&](int id) { return needed[at(id)]; })) continue;
    std::for_each(node->inputs.begin(), node->inputs.end(), need);
    kept.push_back(std::move(*node));
  }
  graph->nodes.assign(std::make_move_iterator(kept.rbegin()), std::make_move_iterator(kept.rend()));
}

Graph with_batch(const Graph& graph, std::int64_t batch) {
  Graph result = graph.clone();
  for (int id : result->inputs) {
    ValueInfo& input = result.info(id);
    input.spec.shape.n = batch;
    naming(input.name, [&] { check_extents(input.spec.shape); });
  }
  for (const Node& node : result->nodes) {
    const auto specs = infer(*node.op, result.specs(node.inputs), node.name);
    for (std::size_t i = 0; i < specs.size(); ++i) result.info(node.outputs[i]).spec = specs[i];
  }
  return result;
}

Graph for_inference(const Graph& graph, std::span<const int> outputs) {
  Graph result = graph.clone();
  result->evaluates = true;
  prune(result, outputs);
  for (Node& node : result->nodes)
    if (auto op = node.op->inference()) {
      node.op = std::move(op);
      node.outputs.resize(infer(*node.op, result.specs(node.inputs), node.name).size());
    }
  return result;
}

}  // namespace halftone
