// A training loop of our own over data of our own: manual_loop
#include <algorithm>
#include <cmath>
#include <halftone/halftone.hpp>
#include <iostream>
#include <random>

namespace ht = halftone;

// Noisy stripes, 16x16x1, that run across (0), down (1) or aslant (2).
ht::Dataset stripes(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> pixels;
  std::vector<std::int32_t> labels;
  for (std::size_t i = 0; i < count; ++i) {
    const int label = static_cast<int>(random() % 3);
    const float phase = static_cast<float>(random() % 628) / 100, noise = 1.5f;
    for (int y = 0; y < 16; ++y)
      for (int x = 0; x < 16; ++x) {
        const float along = label == 0   ? static_cast<float>(y)
                            : label == 1 ? static_cast<float>(x)
                                         : 0.7f * static_cast<float>(x + y);
        pixels.push_back(std::sin(along + phase) + noise * (static_cast<float>(random() % 2000) / 1000 - 1));
      }
    labels.push_back(label);
  }
  return ht::in_memory("stripes", {1, 16, 16, 1}, pixels, std::move(labels), 3);
}

int main() try {
  const ht::Loader train(std::make_shared<ht::Dataset>(stripes(6000, 1)), {.batch = 100});
  const ht::Loader test(std::make_shared<ht::Dataset>(stripes(1000, 2)), {.batch = 100, .shuffle = false});

  ht::Graph graph;
  const auto [images, labels] = ht::inputs(graph, train);
  const ht::Value features = ht::silu(ht::group_norm(ht::conv2d(images, 16, 5, {.stride = 2}), 4));
  const ht::Value logits = ht::dense(ht::global_avg_pool(features), 3);
  ht::Trainer trainer(
      ht::cross_entropy(logits, labels),
      {.precision = ht::Precision::f16(), .optimizer = ht::adamw(), .schedule = ht::Schedule::constant(3e-3f)});

  double loss = 0, largest_norm = 0;
  int steps = 0, skipped = 0;
  for (int pass = 0; pass < 3; ++pass) {
    ht::Epoch batches = train.epoch(pass);
    while (const ht::Batch* batch = batches.next()) {
      const ht::StepReport report = trainer.step(*batch);
      if (report.skipped) {
        ++skipped;
        std::cout << "step " << report.attempt << " skipped at scale " << report.scale << ": " << report.reason << '\n';
        continue;
      }
      loss += report.loss;
      largest_norm = std::max<double>(largest_norm, report.gradient_norm);
      if (++steps % 30 == 0) {
        std::cout << "step " << report.attempt << "  mean loss " << loss / 30 << "  largest gradient norm "
                  << largest_norm << std::endl;
        loss = largest_norm = 0;
      }
    }
  }
  std::cout << steps << " steps, " << skipped << " skipped, accuracy "
            << trainer.evaluate(test, ht::accuracy(logits, labels)) << '\n';
} catch (const ht::Error& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
