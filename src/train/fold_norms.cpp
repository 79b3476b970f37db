#include "halftone/train/fold_norms.hpp"

#include <algorithm>

#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/dense.hpp"
#include "halftone/ops/norm.hpp"

namespace halftone {
namespace {

bool is_layer(const Node& node) {
  return !node.op->is_fused() &&
         (dynamic_cast<const Conv2d*>(node.op.get()) || dynamic_cast<const Dense*>(node.op.get()));
}

}  // namespace

std::vector<FoldedNorm> fold_norms(Graph& graph, std::span<const int> keep) {
  const auto read_by = readers(graph);
  std::vector<FoldedNorm> folded;
  const auto in = [&](int id, Store store) { return graph.info(id).store == store; };
  for (std::size_t n = 0; n < graph->nodes.size(); ++n) {
    const Node norm = graph->nodes[n];
    const auto* op = dynamic_cast<const BatchNormInference*>(norm.op.get());
    if (!op || op->is_fused() || std::find(keep.begin(), keep.end(), norm.inputs[0]) != keep.end()) continue;
    const auto layer = std::find_if(graph->nodes.begin(), graph->nodes.end(),
                                    [&](const Node& node) { return node.outputs[0] == norm.inputs[0]; });
    if (layer == graph->nodes.end() || !is_layer(*layer) || read_by[at(norm.inputs[0])].size() != 1) continue;
    const int weight = layer->inputs[1], bias = layer->inputs.size() > 2 ? layer->inputs[2] : -1;
    const bool own = in(weight, Store::weights) && read_by[at(weight)].size() == 1 &&
                     (bias < 0 || in(bias, Store::weights)) && in(norm.inputs[1], Store::weights) &&
                     in(norm.inputs[2], Store::weights) && read_by[at(norm.inputs[2])].size() == 1 &&
                     in(norm.inputs[3], Store::statistics) && in(norm.inputs[4], Store::statistics);
    if (!own) continue;
    const auto name = [&](int id) { return id < 0 ? std::string() : graph.info(id).name; };
    folded.push_back({name(weight), name(bias), name(norm.inputs[1]), name(norm.inputs[2]), name(norm.inputs[3]),
                      name(norm.inputs[4]), op->factor()});
    layer->inputs.resize(2);
    layer->inputs.push_back(norm.inputs[2]);
    layer->outputs = norm.outputs;
    graph->nodes.erase(graph->nodes.begin() + static_cast<std::ptrdiff_t>(n--));
  }
  return folded;
}

void fold_numbers(Parameters& parameters, std::span<const FoldedNorm> norms) {
  const auto statistic = [&](const std::string& name) {
    std::size_t i = 0;
    while (parameters.statistics[i].name != name) ++i;
    return parameters.statistic(i).read();
  };
  const auto numbers = [&](const std::string& name) { return parameters.weight(parameters.find(name)).read(); };
  for (const FoldedNorm& norm : norms) {
    std::vector<float> weight = numbers(norm.weight), beta = numbers(norm.beta);
    const std::vector<float> gamma = numbers(norm.gamma), mean = statistic(norm.mean),
                             variance = statistic(norm.variance),
                             bias = norm.bias.empty() ? std::vector<float>(beta.size()) : numbers(norm.bias);
    const std::size_t each = weight.size() / beta.size();
    for (std::size_t k = 0; k < beta.size(); ++k) {
      const double factor = norm.factor(gamma[k], variance[k]);
      for (std::size_t i = k * each; i < (k + 1) * each; ++i) weight[i] = static_cast<float>(weight[i] * factor);
      beta[k] = static_cast<float>(beta[k] + (double{bias[k]} - double{mean[k]}) * factor);
    }
    parameters.assign(parameters.find(norm.weight), weight);
    parameters.assign(parameters.find(norm.beta), beta);
  }
}

}  // namespace halftone
