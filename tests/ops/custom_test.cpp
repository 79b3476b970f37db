#include "halftone/ops/custom.hpp"

#include <gtest/gtest.h>

#include "halftone/halftone.hpp"

namespace halftone {
namespace {

using Tensors = std::span<const FloatTensor>;

/// What bodies saw: forward and backward in turn.
struct Seen {
  std::vector<CustomRun> runs;
  std::vector<float> drawn;
};

Value noisy(Value x, Seen& seen) {
  const auto draw = [&seen](Tensors in, Tensors out, const CustomRun& run) {
    seen.runs.push_back(run);
    seen.drawn.push_back(run.key.uniform(5));
    std::ranges::copy(in.back().values, out[0].values.begin());
  };
  return custom({x}, {.name = "noisy", .forward = draw, .backward = draw});
}

TEST(Custom, AnEmptyFunctionIsNoBody) {
  EXPECT_FALSE(CustomBody(std::function<void(Tensors, Tensors)>()));
  EXPECT_FALSE(CustomBody(std::function<void(Tensors, Tensors, const CustomRun&)>()));
  EXPECT_TRUE(CustomBody([](Tensors, Tensors) {}));
}

TEST(Custom, BodiesKnowSeedStepAndMode) {
  Seen seen;
  const Dataset data = rendered_digits(Split::train, 8);
  Graph graph;
  const Inputs in = inputs(graph, data, 4);
  const Value logits = noisy(dense(in.images, 10), seen);
  const Value loss = cross_entropy(logits, in.labels);
  Trainer trainer(loss, {.device = cpu_device({.threads = 1}), .seed = 7});
  const Loader loader(std::make_shared<const Dataset>(data), {.batch = 4});
  trainer.epoch(loader);
  ASSERT_EQ(seen.runs.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(seen.runs[i].seed, 7u);
    EXPECT_EQ(seen.runs[i].step, static_cast<std::int64_t>(i / 2));
    EXPECT_TRUE(seen.runs[i].training);
  }
  EXPECT_EQ(seen.drawn[0], seen.drawn[1]) << "forward and backward draw the same";
  EXPECT_EQ(seen.drawn[2], seen.drawn[3]);
  EXPECT_NE(seen.drawn[0], seen.drawn[2]) << "another step draws others";

  seen = {};
  trainer.evaluate(loader, loss);
  trainer.evaluate(loader, loss);
  ASSERT_EQ(seen.runs.size(), 4u);
  for (const CustomRun& run : seen.runs) EXPECT_FALSE(run.training);
  EXPECT_EQ(seen.drawn[0], seen.drawn[3]) << "an evaluation draws the same each time";
}

TEST(Custom, TwoOperationsDrawApart) {
  Seen first, second;
  Graph graph;
  const Value x = graph.input("x", {1, 1, 1, 2}), y = noisy(noisy(x, first), second);
  Predictor predict(y, {.device = cpu_device({.threads = 1})});
  const std::vector<float> numbers = {3, 4};
  EXPECT_EQ(predict(std::as_bytes(std::span(numbers))), numbers);
  EXPECT_NE(first.drawn, second.drawn);
}

}  // namespace
}  // namespace halftone
