#include <gtest/gtest.h>

#include <cmath>

#include "halftone/halftone.hpp"

namespace halftone {
namespace {

constexpr std::int64_t batch = 6;

/// A dense layer whose gradients are known in whole numbers: loss = mean of (x w - t)^2.
struct Net {
  Graph graph;
  Value x = graph.input("x", {batch, 1, 1, 2}), target = graph.input("target", {batch, 1, 1, 1});
  Value y = dense(x, 1, {.bias = false, .name = "only", .weight_init = constant(1)});
  Value loss = mean_squared_error(y, target);
};

using Numbers = std::vector<float>;

StepReport step(Trainer& trainer, const Numbers& x, const Numbers& target) {
  const std::span<const std::byte> inputs[] = {std::as_bytes(std::span(x)), std::as_bytes(std::span(target))};
  return trainer.step(inputs);
}

TrainerOptions options_for(const Precision& precision, int accumulate) {
  TrainerOptions options;
  options.device = cpu_device({.threads = 1});
  options.precision = precision;
  options.precision.loss_scale.options.initial = 1024;  // what f16 holds
  options.accumulate = accumulate;
  options.clip_norm = 0.001f;  // comes after
  options.schedule = Schedule::constant(0);
  return options;
}

TEST(GradientNorms, AreTrueOnesOfTheWholeStep) {
  const Net net;
  const Numbers x(2 * batch, 1), ones(batch, 1), twos(batch, 2);
  // d loss / d y = 2 (2 - t) / 6 in each of six rows: both weights get 2 of t = 1, and 0 of t = 2.
  for (const Precision& precision : {Precision::f32(), Precision::f16()}) {
    Trainer trainer(net.loss, options_for(precision, 1));
    EXPECT_TRUE(trainer.gradient_norms().empty()) << "no step yet";
    const StepReport report = step(trainer, x, ones);
    const auto norms = trainer.gradient_norms();
    ASSERT_EQ(norms.size(), 1u);
    EXPECT_EQ(norms[0].layer, "only");
    EXPECT_NEAR(norms[0].norm, std::sqrt(8.0), 1e-3) << precision.name;
    EXPECT_NEAR(report.gradient_norm, norms[0].norm, 1e-6) << precision.name;

    Trainer twice(net.loss, options_for(precision, 2));
    step(twice, x, ones);
    EXPECT_TRUE(twice.gradient_norms().empty()) << "half a step";
    step(twice, x, twos);
    EXPECT_NEAR(twice.gradient_norms().at(0).norm, std::sqrt(2.0), 1e-3) << precision.name;
  }
}

TEST(GradientNorms, OfASkippedStepThereAreNone) {
  const Net net;
  Trainer trainer(net.loss, options_for(Precision::f32(), 1));
  EXPECT_TRUE(step(trainer, Numbers(2 * batch, std::nanf("")), Numbers(batch, 1)).skipped);
  EXPECT_TRUE(trainer.gradient_norms().empty());
}

TEST(GradientNorms, ALayersSquaresAddUp) {
  Graph graph;
  const Loader loader(std::make_shared<const Dataset>(rendered_digits(Split::train, 64)), {.batch = 32});
  const auto [images, labels] = inputs(graph, loader);
  Trainer trainer(cross_entropy(lenet5(images), labels), options_for(Precision::bf16(), 1));
  Epoch epoch = loader.epoch(0);
  const StepReport report = trainer.step(*epoch.next());
  double sum = 0;
  std::vector<std::string> layers;
  for (const GradientNorm& one : trainer.gradient_norms()) sum += one.norm * one.norm, layers.push_back(one.layer);
  EXPECT_EQ(layers, (std::vector<std::string>{"conv1", "conv2", "dense1", "dense2", "dense3"}));
  EXPECT_NEAR(std::sqrt(sum), report.gradient_norm, 1e-5 * report.gradient_norm);
}

}  // namespace
}  // namespace halftone
