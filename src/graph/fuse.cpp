#include "halftone/graph/fuse.hpp"

#include <algorithm>

#include "halftone/graph/kernel.hpp"

namespace halftone {

int fuse(Graph& graph, const Device& device, std::span<const int> keep) {
  const auto readers_of = readers(graph);
  std::vector<int> producer(graph->values.size(), -1);
  for (std::size_t n = 0; n < graph->nodes.size(); ++n)
    for (int id : graph->nodes[n].outputs) producer[at(id)] = static_cast<int>(n);

  std::vector<bool> gone(graph->nodes.size(), false);
  int fused = 0;
  for (std::size_t n = 0; n < graph->nodes.size(); ++n) {
    const Activation* activation = graph->nodes[n].op->as_activation();
    if (!activation) continue;
    const int between = graph->nodes[n].inputs[0];
    if (producer[at(between)] < 0 || readers_of[at(between)].size() != 1) continue;
    if (std::find(keep.begin(), keep.end(), between) != keep.end()) continue;
    Node candidate = graph->nodes[at(producer[at(between)])];
    if (candidate.outputs[0] != between || gone[at(producer[at(between)])]) continue;
    candidate.op = candidate.op->with_epilogue(*activation);
    if (!candidate.op) continue;
    candidate.outputs[0] = graph->nodes[n].outputs[0];
    const auto inputs = as_read(graph.specs(candidate.inputs)), outputs = graph.specs(candidate.outputs);
    if (!has_kernel({*candidate.op, inputs, outputs, device})) continue;
    producer[at(candidate.outputs[0])] = producer[at(between)];
    graph->nodes[at(producer[at(between)])] = std::move(candidate);
    gone[n] = true;
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
