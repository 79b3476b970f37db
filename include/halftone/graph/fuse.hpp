#pragma once
#include "halftone/graph/graph.hpp"

namespace halftone {

/// Joins an activation or its slope to the operation before it where that has such a form (`Op::with_epilogue`,
/// `Op::with_slope`), and a sum to the operation after it that takes one (`Op::takes_sum`), where a kernel on `device`
/// takes both as one, and nobody else reads the value between, which is not in `keep` either. Returns how many were
/// joined.
int fuse(Graph& graph, const Device& device, std::span<const int> keep = {});

}  // namespace halftone
