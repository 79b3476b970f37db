#include "halftone/train/inputs.hpp"

#include "halftone/ops/pointwise.hpp"

namespace halftone {

Inputs inputs(Graph& graph, const Loader& loader) { return inputs(graph, loader.dataset(), loader.batch()); }

Inputs inputs(Graph& graph, const Dataset& dataset, std::int64_t batch) {
  Shape shape = dataset.image;
  shape.n = batch;
  const Value images = graph.input("images", shape, dataset.dtype);
  const Value labels = graph.input("labels", {batch, 1, 1, 1}, DType::i32);
  return {normalize(images, dataset.mean, dataset.stddev), labels};
}

}  // namespace halftone
