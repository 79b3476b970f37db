#include <algorithm>

#include "halftone/graph/core_ops.hpp"
#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/dense.hpp"
#include "halftone/ops/norm.hpp"
#include "halftone/ops/pointwise.hpp"
#include "kernels/cpu/xnor.hpp"

namespace halftone::cpu {
namespace {

template <class Operation>
const Operation* as(const Node* node) {
  return node ? dynamic_cast<const Operation*>(node->op.get()) : nullptr;
}

bool keeps_signs(const std::optional<Activation>& activation) {
  return !activation || std::get_if<HardTanh>(&*activation);
}

/// The inputs of `layer`, then gamma, beta, running mean and variance -> the signs of its batch norm.
struct SignLayer final : Op {
  std::shared_ptr<const Op> layer;
  std::size_t layer_inputs;
  float epsilon;
  SignLayer(const Node& node, const BatchNormInference& norm)
      : layer(node.op), layer_inputs(node.inputs.size()), epsilon(norm.epsilon) {}
  std::string name() const override { return layer->name() + "_signs"; }
  Arity arity() const override { return static_cast<int>(layer_inputs + 4); }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override {
    return layer->infer(inputs.first(layer_inputs));
  }
  Convolution convolution(const Request& request) const {
    const Request inner{*layer, request.inputs, request.outputs, request.device};
    return dynamic_cast<const Dense*>(layer.get()) ? convolution_of<Dense>(inner) : convolution_of<Conv2d>(inner);
  }
  Launch lower(const Request& request) const override {
    const Machine machine = machine_of(request);
    return xnor(convolution(request), xnor_loops(machine.isa), machine.isa, machine.threads, epsilon);
  }
};

class Folding {
 public:
  Folding(Graph& graph, const Device& device, std::span<const int> keep)
      : graph_(graph), device_(device), keep_(keep), readers_(readers(graph)), producers_(graph->values.size()) {
    for (std::size_t n = 0; n < graph->nodes.size(); ++n)
      for (const int id : graph->nodes[n].outputs) producers_[at(id)] = n;
  }

  void operator()() {
    std::vector<bool> gone(graph_->nodes.size(), false);
    for (Node& node : graph_->nodes)
      if (as<Cast>(&node) && graph_.info(node.outputs[0]).spec.storage == Storage(DType::sign)) fold(node, gone);
    std::size_t n = 0;
    std::erase_if(graph_->nodes, [&](const Node&) { return gone[n++]; });
  }

 private:
  /// The node that computes a node's first input for it alone; null where somebody else may read it.
  const Node* before(const Node& node) const {
    const int id = node.inputs[0];
    const ValueInfo& value = graph_.info(id);
    const bool alone = producers_[at(id)] && readers_[at(id)].size() == 1 && value.store == Store::none &&
                       value.spec.storage == Storage() && std::find(keep_.begin(), keep_.end(), id) == keep_.end();
    return alone ? &graph_->nodes[*producers_[at(id)]] : nullptr;
  }

  void fold(Node& cast, std::vector<bool>& gone) const {
    const Node* const first = before(cast);
    const auto* activate = as<Activate>(first);
    const Node* const norm_node = activate && keeps_signs(activate->activation) ? before(*first) : first;
    const auto* norm = as<BatchNormInference>(norm_node);
    const Node* const layer = norm && keeps_signs(norm->epilogue) ? before(*norm_node) : nullptr;
    if (!(as<Conv2d>(layer) || as<Dense>(layer)) || layer->op->is_fused()) return;
    const auto op = std::make_shared<SignLayer>(*layer, *norm);
    Node folded{op, layer->inputs, cast.outputs, layer->name};
    folded.inputs.insert(folded.inputs.end(), norm_node->inputs.begin() + 1, norm_node->inputs.end());
    const auto inputs = as_read(graph_.specs(folded.inputs)), outputs = graph_.specs(folded.outputs);
    const Convolution convolution = op->convolution({*op, inputs, outputs, device_});
    if (!decline_xnor(convolution).empty() || convolution.problem.k / convolution.problem.groups % 8 != 0) return;
    for (const Node* node : {first, norm_node, layer}) gone[at(node - graph_->nodes.data())] = true;
    cast = std::move(folded);
  }

  Graph& graph_;
  const Device& device_;
  std::span<const int> keep_;
  std::vector<std::vector<int>> readers_;
  std::vector<std::optional<std::size_t>> producers_;
};

}  // namespace

void fold_signs(Graph& graph, const Device& device, std::span<const int> keep) { Folding(graph, device, keep)(); }

}  // namespace halftone::cpu
