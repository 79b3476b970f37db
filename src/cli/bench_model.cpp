#include "cli/bench_model.hpp"

#include <fmt/format.h>

#include <new>

#include "halftone/numeric/philox.hpp"
#include "halftone/ops/loss.hpp"
#include "halftone/train/inputs.hpp"
#include "halftone/train/onnx.hpp"

namespace halftone::cli {
namespace {

Batch random_batch(const Net& net, std::int64_t size) {
  if (net.classes == 0) fail(fmt::format("--net {}: the file does not fix the size of its images", net.name));
  Batch batch;
  batch.size = size;
  const auto bytes = static_cast<std::size_t>(size * net.image.elements());
  try {
    batch.images.resize(bytes);
    batch.labels.reserve(static_cast<std::size_t>(size));
  } catch (const std::bad_alloc&) {
    throw Failure(fmt::format("--batch {}: there is no memory for {} bytes of images", size, bytes));
  }
  for (std::size_t i = 0; i < batch.images.size(); ++i) batch.images[i] = static_cast<std::byte>(bits(1, 0, 0, i));
  for (std::int64_t i = 0; i < size; ++i)
    batch.labels.push_back(static_cast<std::int32_t>(bits(1, 0, 1, static_cast<std::uint64_t>(i)) %
                                                     static_cast<std::uint32_t>(net.classes)));
  return batch;
}

/// What `inputs` wants to know of random bytes: they are spread evenly.
Dataset description(const Net& net) {
  const auto channels = static_cast<std::size_t>(net.image.c);
  return {.name = "random",
          .image = net.image,
          .mean = std::vector<float>(channels, 0.5f),
          .stddev = std::vector<float>(channels, 0.2887f)};
}

}  // namespace

BenchModel::BenchModel(const std::string& net, const std::string& precision, std::int64_t batch_size,
                       const Device& device)
    : BenchModel(find_net(net), precision, batch_size, device) {}

BenchModel::BenchModel(const Net& net, const std::string& precision, std::int64_t batch_size, const Device& device)
    : batch(random_batch(net, batch_size)),
      trainer(build(net), {.device = device,
                           .precision = precision_by_name(precision),
                           .optimizer = Sgd{.momentum = 0.9f, .weight_decay = 5e-4f},
                           .schedule = Schedule::constant(0.01f)}) {}

BenchPredictor::BenchPredictor(const std::string& net, const std::string& precision, std::int64_t batch_size,
                               const Device& device)
    : BenchPredictor(find_net(net), precision, batch_size, device) {}

BenchPredictor::BenchPredictor(const Net& net, const std::string& precision, std::int64_t batch_size,
                               const Device& device)
    : batch(random_batch(net, batch_size)),
      predict(net.build(inputs(graph, description(net), batch.size).images, net.classes),
              {.device = device, .precision = precision_by_name(precision)}) {}

Value BenchModel::build(const Net& net) {
  const Inputs in = inputs(graph, description(net), batch.size);
  return cross_entropy(net.build(in.images, net.classes), in.labels);
}

}  // namespace halftone::cli
