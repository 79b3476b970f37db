#pragma once
#include "halftone/graph/graph.hpp"

namespace halftone {

/// Takes what lies in `scopes` out of training, before `differentiate`: parameters get neither gradient nor update, and
/// the nodes that read no others run as in evaluation, batch norm by running statistics that stay as they are. Throws
/// Error for a scope without parameters.
void freeze(Graph& graph, std::span<const std::string> scopes);

/// Adds the nodes that compute the gradient of `loss`, a single f32 number, with respect to every trainable parameter
/// it depends on, and notes each in `ParameterInfo::gradient`. The gradient that enters is the step's loss scale times
/// stress. `also` lists further values whose gradients are wanted; they are returned in that order, none where nothing
/// flows.
std::vector<Value> differentiate(Graph& graph, Value loss, std::span<const Value> also = {});

/// The commit nodes of all nodes present: running statistics and whatever else lasts besides parameters.
void add_commits(Graph& graph);

}  // namespace halftone
