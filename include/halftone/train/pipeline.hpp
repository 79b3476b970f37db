#pragma once
#include "halftone/graph/parameters.hpp"
#include "halftone/train/fold_norms.hpp"
#include "halftone/train/options.hpp"

namespace halftone {

/// A graph on its way to a plan for training: what `options` freezes taken out, scopes at once and groups by their
/// `until`, after `steps` committed steps; differentiated, without what neither loss nor gradients need, in its storage
/// formats, fused. Throws Error for an exception of the precision and a frozen scope that fit nothing.
Graph for_training(const Graph& graph, int loss, const TrainerOptions& options, std::int64_t steps = 0);

/// A graph that computes `output` in evaluation for batches of `batch`, in its storage formats, fused. With `folded`
/// batch norms become part of the layers before them (`fold_norms`), and it is told which.
Graph for_evaluation(const Graph& graph, int output, std::int64_t batch, const Precision& precision,
                     const Device& device, std::vector<FoldedNorm>* folded = nullptr);

/// Appends the end of a step: check, accumulate, advance, update, statistics, average, finish. `parameters` were laid
/// out for this graph. Throws Error for a parameter group that fits nothing.
void add_step(Graph& graph, int loss, const Parameters& parameters, const TrainerOptions& options);

}  // namespace halftone
