#include "halftone/train/inputs.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "halftone/ops/pointwise.hpp"
#include "halftone/tensor/text.hpp"

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

void check_images(const Graph& graph, const Loader& loader) {
  if (graph->inputs.empty()) return;
  const ValueInfo& input = graph.info(graph->inputs[0]);
  const Dataset& data = loader.dataset();
  Shape taken = input.spec.shape;
  taken.n = data.image.n;
  if (taken != data.image || input.spec.storage.code != data.dtype)
    fail(fmt::format("{}: the graph takes {} of {}, the images of {} are {} of {}", input.name, to_string(taken),
                     name_of(input.spec.storage.code), data.name, to_string(data.image), name_of(data.dtype)));
}

Metadata metadata_of(const Dataset& dataset) {
  const Shape& image = dataset.image;
  Metadata metadata = {{"data", dataset.name},
                       {"classes", std::to_string(dataset.classes)},
                       {"image", fmt::format("{}x{}x{}", image.h, image.w, image.c)},
                       {"dtype", name_of(dataset.dtype)},
                       {"mean", fmt::format("{}", fmt::join(dataset.mean, ","))},
                       {"stddev", fmt::format("{}", fmt::join(dataset.stddev, ","))}};
  for (const std::string& name : dataset.class_names)
    if (!is_utf8(name))
      fail(fmt::format("{}: the name of class {} is not UTF-8", dataset.name, &name - dataset.class_names.data()));
  if (!dataset.class_names.empty()) metadata["class_names"] = nlohmann::json(dataset.class_names).dump();
  if (dataset.validation != 0) metadata["validation"] = fmt::format("{}", dataset.validation);
  return metadata;
}

}  // namespace halftone
