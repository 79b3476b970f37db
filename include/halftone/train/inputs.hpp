#pragma once
#include "halftone/data/loader.hpp"
#include "halftone/graph/graph.hpp"

namespace halftone {

struct Inputs {
  Value images;  ///< [batch, h, w, c], normalised by the training set's mean and standard deviation
  Value labels;  ///< [batch, 1, 1, 1], i32
};

/// The inputs that a loader's batches feed: its images in their stored format, normalised on the device, and labels.
Inputs inputs(Graph& graph, const Loader& loader);

/// The same for images and a batch size described by hand.
Inputs inputs(Graph& graph, const Dataset& dataset, std::int64_t batch);

}  // namespace halftone
