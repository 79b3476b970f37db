#pragma once
#include "halftone/graph/parameters.hpp"
#include "halftone/ops/norm.hpp"

namespace halftone {

/// A batch norm of evaluation that became part of the layer before it, by the names of parameters and statistics. The
/// norm's bias is the layer's from now on.
struct FoldedNorm {
  std::string weight, bias, gamma, beta, mean, variance;  ///< bias: that the layer had, or none
  NormFactor factor;
};

/// Folds each batch norm that alone reads a convolution's or dense layer's output into that layer, unless `keep` names
/// what lies between. The graph is `for_inference`'s; it computes the same once `fold_numbers` changed the parameters.
std::vector<FoldedNorm> fold_norms(Graph& graph, std::span<const int> keep);

/// Gives weights and biases the numbers that folding takes, in f64, each rounded once. What a net of f32 computes
/// changes by about a unit in the last place a layer.
void fold_numbers(Parameters& parameters, std::span<const FoldedNorm> norms);

}  // namespace halftone
