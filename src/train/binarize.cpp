#include "halftone/train/binarize.hpp"

#include <algorithm>
#include <cmath>

#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/dense.hpp"
#include "halftone/ops/initializers.hpp"
#include "halftone/ops/norm.hpp"
#include "halftone/ops/pointwise.hpp"
#include "halftone/ops/pool2d.hpp"

namespace halftone {
namespace {

template <class Operation>
bool is(const Node& node) {
  return dynamic_cast<const Operation*>(node.op.get()) != nullptr;
}

/// A graph while nodes are put in between others.
class Binarizing {
 public:
  Binarizing(Graph& graph, const Precision& precision) : graph_(graph), precision_(precision) {}

  std::vector<std::string> operator()() {
    std::vector<std::string> layers, weights;
    for (const Node& node : graph_->nodes)
      if (has_weights(node)) layers.push_back(node.name);
    for (std::size_t i = 0; i + 1 < layers.size(); ++i) {
      if (i > 0 && !is_exception(layers[i])) {
        sign_input(layers[i]);
        weights.push_back(draw_weights(layers[i]));
      }
      normalise(layers[i]);
    }
    if (precision_.shift_norms) shift_norms();
    return weights;
  }

 private:
  bool has_weights(const Node& node) const {
    return (is<Conv2d>(node) || is<Dense>(node)) && graph_.info(node.inputs[1]).store == Store::weights;
  }
  bool is_exception(const std::string& layer) const {
    return std::any_of(precision_.exceptions.begin(), precision_.exceptions.end(),
                       [&](const auto& exception) { return in_scope(layer, exception.scope); });
  }
  std::size_t find(const std::string& name) const {
    std::size_t n = 0;
    while (graph_->nodes[n].name != name) ++n;
    return n;
  }
  /// The node that computes a value; none for inputs and parameters.
  const Node* producer(int id) const {
    for (const Node& node : graph_->nodes)
      if (std::find(node.outputs.begin(), node.outputs.end(), id) != node.outputs.end()) return &node;
    return nullptr;
  }

  /// Adds nodes by f, behind node `place` - 1, and returns f's value.
  template <class F>
  Value inserted(std::size_t place, F&& f) {
    const auto before = static_cast<std::ptrdiff_t>(graph_->nodes.size());
    const Value result = f();
    auto& nodes = graph_->nodes;
    std::rotate(nodes.begin() + static_cast<std::ptrdiff_t>(place), nodes.begin() + before, nodes.end());
    return result;
  }
  /// From `place` on, whoever read `from` reads `to`.
  void redirect(std::size_t place, int from, int to) {
    for (std::size_t n = place; n < graph_->nodes.size(); ++n)
      std::replace(graph_->nodes[n].inputs.begin(), graph_->nodes[n].inputs.end(), from, to);
  }

  /// The value that max pools made this one of.
  int before_pools(int id) const {
    const Node* from = producer(id);
    for (; from && is<MaxPool2d>(*from); from = producer(id)) id = from->inputs[0];
    return id;
  }

  /// A batch norm behind the layer, where none reads it, itself or its max pool.
  void normalise(const std::string& layer) {
    const std::size_t n = find(layer);
    const int output = graph_->nodes[n].outputs[0];
    const bool normalised = std::any_of(graph_->nodes.begin(), graph_->nodes.end(), [&](const Node& node) {
      return is<BatchNorm>(node) && before_pools(node.inputs[0]) == output;
    });
    if (normalised) return;
    const Value y = inserted(n + 1, [&] { return batch_norm(graph_.value(output), {.name = layer + ".norm"}); });
    redirect(n + 2, output, y.id());
  }

  /// Signs as the layer's input: in place of an activation, also where views and max pools lie between, or before it.
  void sign_input(const std::string& layer) {
    const std::size_t n = find(layer);
    int x = graph_->nodes[n].inputs[0];
    const Node* from = producer(x);
    while (from && (from->op->is_view() || is<MaxPool2d>(*from))) {
      x = from->inputs[0];
      from = producer(x);
    }
    if (from && graph_.info(x).spec.storage == DType::sign) return;
    if (from && from->op->as_activation()) {
      const std::size_t place = find(from->name);
      graph_->nodes[place].op = std::make_shared<Activate>(HardTanh{});
      const Value sign = inserted(place + 1, [&] { return cast(graph_.value(x), DType::sign); });
      redirect(place + 2, x, sign.id());
      return;
    }
    const Value input = graph_.value(graph_->nodes[n].inputs[0]);
    const std::size_t before = graph_->nodes.size();
    const Value sign =
        inserted(n, [&] { return cast(hard_tanh(batch_norm(input, {.name = layer + ".input_norm"})), DType::sign); });
    graph_->nodes[n + graph_->nodes.size() - before].inputs[0] = sign.id();
  }

  void shift_norms() {
    for (Node& node : graph_->nodes) {
      if (!is<BatchNorm>(node) || is_exception(node.name)) continue;
      const auto op = std::make_shared<BatchNorm>(static_cast<const BatchNorm&>(*node.op));
      op->shift_based = true;
      node.op = op;
    }
  }

  std::string draw_weights(const std::string& layer) {
    ParameterInfo& weight = graph_->parameters[at(graph_.info(graph_->nodes[find(layer)].inputs[1]).owner)];
    weight.initializer = uniform(1);
    return weight.name;
  }

  Graph& graph_;
  const Precision& precision_;
};

}  // namespace

std::vector<std::string> binarize(Graph& graph, const Precision& precision) { return Binarizing(graph, precision)(); }

Precision with_signs(const Precision& precision, const std::vector<std::string>& weights) {
  Precision result = precision;
  for (const std::string& weight : weights) {
    RoleStorage storage = precision.at(weight);
    const bool noticed = storage.weights.noticed;
    storage.weights = DType::sign;
    storage.weights.noticed = noticed;
    result.exceptions.insert(result.exceptions.begin(), {weight, storage});
  }
  return result;
}

std::vector<ParameterGroup> groups_of_signs(const Graph& graph) {
  std::vector<ParameterGroup> groups;
  for (const auto& parameter : graph->parameters) {
    const auto& [w, storage, role] = graph.info(parameter.value).spec;  // [k, r, s, c]
    if (storage != DType::sign) continue;
    const auto fans = static_cast<float>((w.n + w.c) * w.h * w.w);
    ParameterGroup& group = groups.emplace_back();
    group.scope = parameter.name;
    group.learning_rate = std::sqrt(fans / 1.5f);
    group.limit = 1.0f;
  }
  return groups;
}

}  // namespace halftone
