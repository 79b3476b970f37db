#include <algorithm>

#include "halftone/graph/core_ops.hpp"
#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/dense.hpp"
#include "halftone/ops/norm.hpp"
#include "halftone/ops/pointwise.hpp"
#include "halftone/ops/pool2d.hpp"
#include "kernels/cpu/columns.hpp"
#include "kernels/cpu/storage.hpp"
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
  NormFactor factor;
  bool rising;
  SignLayer(const Node& node, const BatchNormInference& norm, bool the_rising)
      : layer(node.op), layer_inputs(node.inputs.size()), factor(norm.factor()), rising(the_rising) {}
  std::string name() const override { return layer->name() + "_signs"; }
  Arity arity() const override { return static_cast<int>(layer_inputs + 4); }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override {
    return layer->infer(inputs.first(layer_inputs));
  }
  double operations(std::span<const ValueSpec> inputs, std::span<const ValueSpec> outputs) const override {
    return layer->operations(inputs.first(layer_inputs), outputs);
  }
  Convolution convolution(const Request& request) const {
    const Request inner{*layer, request.inputs, request.outputs, request.device};
    return dynamic_cast<const Dense*>(layer.get()) ? convolution_of<Dense>(inner) : convolution_of<Conv2d>(inner);
  }
  Launch lower(const Request& request) const override {
    const Machine machine = machine_of(request);
    return xnor(convolution(request), xnor_loops(machine.isa), machine.isa, machine.threads, factor, rising);
  }
};

/// [signs, gamma, variance] -> the opposite signs in channels whose batch norm falls.
struct FlipSigns final : Op {
  NormFactor factor;
  explicit FlipSigns(const NormFactor& the_factor) : factor(the_factor) {}
  std::string name() const override { return "flip_signs"; }
  Arity arity() const override { return 3; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override { return {inputs[0]}; }
  Launch lower(const Request& request) const override {
    const Isa isa = machine_of(request).isa;
    const Access gamma(isa, request.inputs[1]), variance(isa, request.inputs[2]);
    const std::int64_t channels = request.inputs[0].shape.c, pixels = request.inputs[0].shape.rows();
    std::size_t bytes = 0;
    const Arrays<float> vectors(channels, 2, bytes);
    const Arrays<std::uint8_t> masks(channels / 8, 1, bytes);
    const auto run = [=, factor = factor](const Arguments& a) {
      const float* g = Input(gamma, a.inputs[1])(0, channels, vectors(a.workspace, 0));
      const float* v = Input(variance, a.inputs[2])(0, channels, vectors(a.workspace, 1));
      std::uint8_t* const mask = masks(a.workspace);
      std::fill_n(mask, channels / 8, 0);
      for (std::int64_t k = 0; k < channels; ++k)
        if (!(factor(g[k], v[k]) >= 0)) mask[k / 8] |= static_cast<std::uint8_t>(1 << k % 8);
      for (std::int64_t i = 0; i < pixels * channels / 8; ++i)
        a.out<std::uint8_t>(0)[i] = a.in<std::uint8_t>(0)[i] ^ mask[i % (channels / 8)];
    };
    return {run, bytes, 0};
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
  Node* before(const Node& node) const {
    const int id = node.inputs[0];
    const ValueInfo& value = graph_.info(id);
    const bool alone = producers_[at(id)] && readers_[at(id)].size() == 1 && value.store == Store::none &&
                       value.spec.storage == Storage() && std::find(keep_.begin(), keep_.end(), id) == keep_.end();
    return alone ? &graph_->nodes[*producers_[at(id)]] : nullptr;
  }

  void fold(Node& cast, std::vector<bool>& gone) const {
    Node* const first = before(cast);
    const auto* activate = as<Activate>(first);
    Node* const norm_node = activate && keeps_signs(activate->activation) ? before(*first) : first;
    const auto* norm = as<BatchNormInference>(norm_node);
    Node* const behind_layer = norm && keeps_signs(norm->epilogue) ? before(*norm_node) : nullptr;
    const bool pooled = as<MaxPool2d>(behind_layer);
    Node* const layer = pooled ? before(*behind_layer) : behind_layer;
    if (!(as<Conv2d>(layer) || as<Dense>(layer)) || layer->op->is_fused()) return;
    const auto op = std::make_shared<SignLayer>(*layer, *norm, pooled);
    Node folded{op, layer->inputs, pooled ? layer->outputs : cast.outputs, layer->name};
    folded.inputs.insert(folded.inputs.end(), norm_node->inputs.begin() + 1, norm_node->inputs.end());
    const auto inputs = as_read(graph_.specs(folded.inputs));
    auto outputs = graph_.specs(folded.outputs);
    outputs[0].storage = DType::sign;
    const Convolution convolution = op->convolution({*op, inputs, outputs, device_});
    if (!decline_xnor(convolution).empty() || convolution.problem.k / convolution.problem.groups % 8 != 0) return;
    for (const Node* node : {first, norm_node}) gone[at(node - graph_->nodes.data())] = true;
    if (!pooled) {
      gone[at(layer - graph_->nodes.data())] = true;
      cast = std::move(folded);
      return;
    }
    for (const Node* node : {layer, behind_layer}) graph_.info(node->outputs[0]).spec.storage = DType::sign;
    cast = {std::make_shared<FlipSigns>(norm->factor()),
            {behind_layer->outputs[0], norm_node->inputs[1], norm_node->inputs[4]},
            cast.outputs,
            cast.name};
    *layer = std::move(folded);
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
