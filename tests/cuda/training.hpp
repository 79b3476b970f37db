#pragma once
#include "halftone/halftone.hpp"
#include "kernels/cuda/backend.hpp"
#include "kernels/cuda/driver.hpp"

// Small trainings, to be compared between devices.
namespace halftone::test {

/// Images of noise with labels that follow from their mean, so that there is something to learn.
inline Loader noise(Shape image, std::int64_t batch, std::int64_t batches) {
  const auto count = static_cast<std::size_t>(batch * batches), size = static_cast<std::size_t>(image.elements());
  std::vector<float> pixels(count * size);
  std::vector<std::int32_t> labels(count);
  for (std::size_t i = 0; i < count; ++i) {
    labels[i] = static_cast<std::int32_t>(i % 10);
    for (std::size_t j = 0; j < size; ++j)
      pixels[i * size + j] = uniform(5, 0, 0, i * size + j) - 0.5f + 0.1f * static_cast<float>(labels[i]);
  }
  return Loader(std::make_shared<const Dataset>(in_memory("noise", image, pixels, labels, 10)),
                {.batch = batch, .shuffle = false});
}

struct Case {
  const char* net;
  Shape image;
  std::int64_t batch;
};
inline constexpr Case lenet{"lenet5", {1, 28, 28, 1}, 8}, resnet{"resnet20", {1, 8, 8, 3}, 4};

struct Training {
  std::vector<float> losses, scales;
  std::vector<bool> skipped;
  std::vector<float> before, after;  ///< truths of all weights
  std::vector<StepReport> reports;
};

inline std::vector<float> truths(const Trainer& trainer) {
  std::vector<float> all;
  for (const auto& slot : trainer.parameters().entries) {
    const auto values = trainer.parameters().truth(slot).read();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

inline Training train(const Case& c, TrainerOptions options, std::int64_t steps) {
  const Loader loader = noise(c.image, c.batch, steps);
  Graph graph;
  const Inputs in = inputs(graph, loader.dataset(), c.batch);
  const Value loss = cross_entropy(net_by_name(c.net).build(in.images, 10), in.labels);
  Trainer trainer(loss, options);
  Training run;
  run.before = truths(trainer);
  trainer.epoch(loader, [&](const StepReport& report) {
    run.losses.push_back(report.loss);
    run.scales.push_back(report.scale);
    run.skipped.push_back(report.skipped);
    return true;
  });
  run.after = truths(trainer);
  return run;
}

inline TrainerOptions options_on(const Device& device, const std::string& precision) {
  TrainerOptions options;
  options.device = device;
  options.precision = precision_by_name(precision);
  return options;
}

/// f16 with a scale that overflows twice, and recovers.
inline TrainerOptions overflowing(Device device) {
  TrainerOptions options = options_on(device, "f16");
  options.precision.loss_scale = LossScale::dynamic({.initial = 0x1p24f, .interval = 2});
  options.optimizer = adamw();
  options.clip_norm = 1;
  options.average_decay = 0.9f;
  return options;
}

inline bool same(const Training& a, const Training& b) {
  return a.losses == b.losses && a.scales == b.scales && a.skipped == b.skipped && a.after == b.after;
}

}  // namespace halftone::test
