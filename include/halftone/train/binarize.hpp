#pragma once
#include <string>
#include <vector>

#include "halftone/graph/precision.hpp"
#include "halftone/train/options.hpp"

namespace halftone {

/// Makes a net binary (Courbariaux et al. 2016), before it is differentiated. A batch norm comes behind every
/// convolution and dense layer but the last where none is. Before all but the first and the last, a hard tanh, which
/// lets gradients pass where |x| < 1, and a sign of one bit take the place of the net's own activation; their weights
/// are drawn from [-1, 1). All batch norms are shift-based where `precision` says so. What it has exceptions for stays
/// as it is. Returns the names of the weights that are to be signs.
std::vector<std::string> binarize(Graph& graph, const Precision& precision);

/// The precision in which these weights are signs.
Precision with_signs(const Precision& precision, const std::vector<std::string>& weights);

/// The rules of weights that are signs in a narrowed graph: masters of at most 1 in magnitude, rates times
/// sqrt((fan in + fan out) / 1.5) (Courbariaux et al. 2015).
std::vector<ParameterGroup> groups_of_signs(const Graph& graph);

}  // namespace halftone
