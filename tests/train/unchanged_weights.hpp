#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <tuple>

#include "halftone/halftone.hpp"
#include "tests/data/noise.hpp"

namespace halftone::test {

/// Expects of a device what anyone can count who reads weights before and after each step. A step commits what the
/// update before it wrote. Where steps are too small to change a weight, lookahead writes what is there; that is no
/// update.
inline void expect_unchanged_weights_counted(const Device& device) {
  constexpr std::int64_t batch = 8, steps = 4;
  const Dataset data = noise();
  for (const auto& [update, rate, lookahead] : {std::tuple(Precision::Update::nearest, 0x1p-9f, 0),
                                                {Precision::Update::kahan, 0x1p-9f, 0},
                                                {Precision::Update::nearest, 0x1p-40f, 2}}) {
    Graph graph;
    const Inputs in = inputs(graph, data, batch);
    const Value x = global_avg_pool(relu(batch_norm(conv2d(in.images, 8, 3))));
    Trainer trainer(cross_entropy(dense(x, data.classes), in.labels),
                    {.device = device,
                     .precision = Precision::bf16_pure(update).noticing(),
                     .optimizer = Sgd{},
                     .schedule = Schedule::constant(rate),
                     .average_decay = lookahead > 0 ? 0.5f : 0,
                     .lookahead = lookahead});
    const Parameters& p = trainer.parameters();
    Batch images;
    images.images.assign(data.at(0), data.at(batch));
    images.labels.assign(data.labels.begin(), data.labels.begin() + batch);
    std::map<std::string, double> left;
    for (std::int64_t step = 1; step <= steps; ++step) {
      std::vector<std::vector<float>> before;
      for (const ParameterSlot& slot : p.entries) before.push_back(p.truth(slot).read());
      trainer.step(images);
      if (step == steps) break;
      for (std::size_t i = 0; i < p.entries.size(); ++i) {
        const auto after = p.truth(p.entries[i]).read();
        for (std::size_t j = 0; j < after.size(); ++j) left[p.entries[i].name] += after[j] == before[i][j];
      }
    }
    double all = 0;
    for (const TensorNumerics& tensor : trainer.numerics().tensors) {
      EXPECT_EQ(tensor.unchanged.has_value(), left.contains(tensor.tensor)) << tensor.tensor;
      if (!tensor.unchanged) continue;
      const auto written = static_cast<double>(p.find(tensor.tensor).shape.elements() * (steps - 1));
      EXPECT_DOUBLE_EQ(*tensor.unchanged, left[tensor.tensor] / written) << tensor.tensor;
      all += left[tensor.tensor];
    }
    EXPECT_GT(all, 0);
  }
}

}  // namespace halftone::test
