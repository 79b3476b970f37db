#pragma once
#include "halftone/data/loader.hpp"
#include "halftone/graph/graph.hpp"
#include "halftone/train/checkpoint.hpp"

namespace halftone {

struct Inputs {
  Value images;  ///< [batch, h, w, c], normalised by the training set's mean and standard deviation
  Value labels;  ///< [batch, 1, 1, 1], i32
};

/// The inputs that a loader's batches feed: its images in their stored format, normalised on the device, and labels.
/// The graph's metadata get what `metadata_of` says.
Inputs inputs(Graph graph, const Loader& loader);

/// The same for images and a batch size described by hand.
Inputs inputs(Graph graph, const Dataset& dataset, std::int64_t batch);

/// Throws Error where the loader's images are of another size or dtype than those that the graph's first input takes.
void check_images(const Graph& graph, const Loader& loader);

/// What the user of a trained net must know of the data: classes and their names, image size and dtype, mean and
/// deviation.
Metadata metadata_of(const Dataset& dataset);

}  // namespace halftone
