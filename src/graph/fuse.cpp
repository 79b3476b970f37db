#include "halftone/graph/fuse.hpp"

#include <algorithm>

#include "halftone/graph/kernel.hpp"

namespace halftone {
namespace {

/// Two nodes as one, at the place of `after` or of `before`.
struct Joined {
  Node node = {};  ///< without an operation where there is no such form
  bool at_before = false;
};

Joined join(const Graph& graph, const Node& before, const Node& after) {
  const auto storage = [&](const Node& node) { return graph->values[at(node.outputs[0])].spec.storage; };
  std::shared_ptr<const Op> both;
  if (const Activation* activation = after.op->as_activation()) {
    both = before.op->with_epilogue(*activation);
  } else if (const Activation* slope = after.op->as_slope();
             slope && before.inputs.size() == 2 && after.inputs.size() == 2 && before.inputs[1] == after.inputs[1] &&
             storage(before) == storage(after)) {
    both = before.op->with_slope(*slope);
  }
  Joined joined;
  if (both) {
    joined = {.node = before, .at_before = true};
    joined.node.op = both;
    joined.node.outputs[0] = after.outputs[0];
  } else if (after.op->takes_sum() && before.op->is_sum() && storage(before) == storage(after) &&
             static_cast<int>(after.inputs.size()) < after.op->arity().most) {
    joined.node = after;
    joined.node.inputs[0] = before.inputs[1];
    joined.node.inputs.insert(joined.node.inputs.begin(), before.inputs[0]);
  }
  return joined;
}

}  // namespace

int fuse(Graph& graph, const Device& device, std::span<const int> keep) {
  const auto readers_of = readers(graph);
  std::vector<int> producer(graph->values.size(), -1);
  for (std::size_t n = 0; n < graph->nodes.size(); ++n)
    for (int id : graph->nodes[n].outputs) producer[at(id)] = static_cast<int>(n);

  std::vector<bool> gone(graph->nodes.size(), false);
  int fused = 0;
  for (std::size_t n = 0; n < graph->nodes.size(); ++n) {
    if (graph->nodes[n].inputs.empty()) continue;
    const int between = graph->nodes[n].inputs[0];
    if (producer[at(between)] < 0 || readers_of[at(between)].size() != 1) continue;
    if (std::find(keep.begin(), keep.end(), between) != keep.end()) continue;
    const std::size_t before = at(producer[at(between)]);
    if (gone[before] || graph->nodes[before].outputs[0] != between) continue;
    auto [node, at_before] = join(graph, graph->nodes[before], graph->nodes[n]);
    if (!node.op) continue;
    const auto inputs = as_read(graph.specs(node.inputs)), outputs = graph.specs(node.outputs);
    if (!has_kernel({*node.op, inputs, outputs, device})) continue;
    const std::size_t place = at_before ? before : n;
    producer[at(node.outputs[0])] = static_cast<int>(place);
    graph->nodes[place] = std::move(node);
    gone[at_before ? n : before] = true;
    ++fused;
  }
  std::size_t kept = 0;
  for (std::size_t n = 0; n < graph->nodes.size(); ++n)
    if (!gone[n]) {
      if (kept != n) graph->nodes[kept] = std::move(graph->nodes[n]);
      ++kept;
    }
  graph->nodes.resize(kept);
  return fused;
}

}  // namespace halftone
