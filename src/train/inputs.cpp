#include "halftone/train/inputs.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "halftone/ops/pointwise.hpp"

namespace halftone {

Inputs inputs(Graph graph, const Loader& loader) { return inputs(graph, loader.dataset(), loader.batch()); }

Inputs inputs(Graph graph, const Dataset& dataset, std::int64_t batch) {
  Shape shape = dataset.image;
  shape.n = batch;
  const Value images = graph.input("images", shape, dataset.dtype);
  const Value labels = graph.input("labels", {batch, 1, 1, 1}, DType::i32);
  graph->metadata.merge(metadata_of(dataset));
  return {normalize(images, dataset.mean, dataset.stddev), labels};
}

Metadata metadata_of(const Dataset& dataset) {
  const Shape& image = dataset.image;
  Metadata metadata = {{"data", dataset.name},
                       {"classes", std::to_string(dataset.classes)},
                       {"image", fmt::format("{}x{}x{}", image.h, image.w, image.c)},
                       {"dtype", name_of(dataset.dtype)},
                       {"mean", fmt::format("{}", fmt::join(dataset.mean, ","))},
                       {"stddev", fmt::format("{}", fmt::join(dataset.stddev, ","))}};
  if (!dataset.class_names.empty()) metadata["class_names"] = fmt::format("{}", fmt::join(dataset.class_names, ","));
  return metadata;
}

}  // namespace halftone
