#pragma once
#include "halftone/graph/graph.hpp"

namespace halftone {

/// What the nodes in `scope` compute for each other is not kept for the backward pass, which computes it again where it
/// first needs it: less memory for more time, and the same bits, of dropout and random rounding too. Running statistics
/// are updated once. Throws Error where no node lies in the scope.
void recompute(Graph graph, const std::string& scope);

/// The pass that does so in the whole graph of a training, its step's end included; `keep` stays as it is.
void add_recomputation(Graph& graph, std::span<const int> keep);

}  // namespace halftone
