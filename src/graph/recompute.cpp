#include "halftone/graph/recompute.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "halftone/graph/core_ops.hpp"

namespace halftone {
namespace {

/// One scope: forward nodes are those before node `seed`.
class Recomputation {
 public:
  Recomputation(Graph& graph, std::size_t seed, const std::string& scope, std::span<const int> keep)
      : graph_(graph), seed_(seed), inner_(graph->values.size(), false), again_(graph->values.size(), -1) {
    for (std::size_t n = 0; n < seed; ++n)
      if (in_scope(graph->nodes[n].name, scope))
        for (const int id : graph->nodes[n].outputs) inner_[at(id)] = graph->values[at(id)].spec.role != Role::exact;
    for (std::size_t n = 0; n < seed; ++n)
      if (!in_scope(graph->nodes[n].name, scope))
        for (const int id : graph->nodes[n].inputs) inner_[at(id)] = false;  // others wait for it: it is kept
    for (const int id : keep) inner_[at(id)] = false;
  }

  void add() {
    const std::size_t end = graph_->nodes.size();
    std::vector<bool> needed(inner_.size(), false);
    std::size_t first = end;
    for (std::size_t n = end; n-- > seed_;)
      for (const int id : graph_->nodes[n].inputs)
        if (inner_[at(id)]) needed[at(id)] = true, first = n;
    std::vector<Node> copies;
    for (std::size_t n = seed_; n-- > 0;) {
      const Node& node = graph_->nodes[n];
      if (std::none_of(node.outputs.begin(), node.outputs.end(), [&](int id) { return needed[at(id)]; })) continue;
      for (const int id : node.inputs) needed[at(id)] = inner_[at(id)];
      copies.push_back(node);
    }
    std::reverse(copies.begin(), copies.end());
    for (Node& copy : copies) {
      replace(copy.inputs);
      for (int& id : copy.outputs) id = again(id);
      copy.name += ".again";
    }
    for (std::size_t n = first; n < end; ++n) replace(graph_->nodes[n].inputs);
    graph_->nodes.insert(graph_->nodes.begin() + static_cast<std::ptrdiff_t>(first),
                         std::make_move_iterator(copies.begin()), std::make_move_iterator(copies.end()));
  }

 private:
  void replace(std::vector<int>& ids) const {
    for (int& id : ids)
      if (at(id) < inner_.size() && inner_[at(id)]) id = again_[at(id)];
  }

  /// A value for the numbers of `id`, which are not noticed a second time.
  int again(int id) {
    ValueInfo value = graph_.info(id);
    if (value.same_as < 0) value.same_as = id;
    value.spec.storage.noticed = false;
    graph_->values.push_back(std::move(value));
    return again_[at(id)] = static_cast<int>(graph_->values.size()) - 1;
  }

  Graph& graph_;
  std::size_t seed_;
  std::vector<bool> inner_;  // read within the scope alone, and large
  std::vector<int> again_;
};

}  // namespace

void recompute(Graph graph, const std::string& scope) {
  if (std::none_of(graph->nodes.begin(), graph->nodes.end(), [&](const Node& n) { return in_scope(n.name, scope); }))
    fail(fmt::format("recompute \"{}\": no node lies in it", scope));
  graph->recomputed.push_back(scope);
}

void add_recomputation(Graph& graph, std::span<const int> keep) {
  for (const std::string& scope : graph->recomputed) {
    const auto seed = std::find_if(graph->nodes.begin(), graph->nodes.end(), [](const Node& node) {
      return dynamic_cast<const SeedGradient*>(node.op.get()) != nullptr;
    });
    Recomputation(graph, static_cast<std::size_t>(seed - graph->nodes.begin()), scope, keep).add();
  }
}

}  // namespace halftone
