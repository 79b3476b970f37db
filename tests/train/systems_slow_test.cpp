#include <gtest/gtest.h>

#include "halftone/halftone.hpp"

// Each number system on real data: what must come out, and the control that must fail. Chance is an error of 0.9.
namespace halftone {
namespace {

struct Run {
  std::string precision;
  int epochs = 2;
  float rate = 0.05f, stress = 1;
  std::int64_t limit = 0;
  double error = 0, loss = 0;  ///< of the last epoch
};

/// Gupta's net on MNIST.
Run trained(Run run) {
  const std::filesystem::path folder = find_data("mnist");
  const Loader train = mnist(folder, Split::train, {.batch = 100, .limit = run.limit}),
               test = mnist(folder, Split::test, {.batch = 500});
  Graph graph;
  const auto [images, labels] = inputs(graph, train);
  const Value logits = gupta(images);
  TrainerOptions options;
  options.precision = precision_by_name(run.precision);
  options.optimizer = Sgd{.momentum = 0.9f, .weight_decay = 5e-4f};
  options.schedule = Schedule::constant(run.rate);
  options.stress = run.stress;
  Trainer trainer(cross_entropy(logits, labels), options);
  for (int epoch = 0; epoch < run.epochs; ++epoch) run.loss = trainer.epoch(train).loss;
  run.error = 1 - trainer.evaluate(test, accuracy(logits, labels));
  return run;
}

double error_of(const std::string& precision) { return trained({precision}).error; }

struct Systems : testing::Test {
  void SetUp() override {
    try {
      find_data("mnist");
    } catch (const Error&) {
      GTEST_SKIP() << "MNIST is not here (HALFTONE_DATA)";
    }
  }
};

TEST_F(Systems, SixteenBitsOfFixedPointNeedStochasticRounding) {
  EXPECT_LT(error_of("fixed:6.10:stochastic"), 0.035);
  EXPECT_GT(error_of("fixed:6.10:nearest"), 0.6);
  EXPECT_LT(error_of("fixed:8.8:stochastic"), 0.08);
  EXPECT_GT(error_of("fixed:8.8:nearest"), 0.6);
}

TEST_F(Systems, ThirtyTwoBitsOfFixedPointDoNot) { EXPECT_LT(error_of("fixed:16.16:nearest"), 0.035); }

/// What nearest rounding breaks are the gradients of activations, not the update.
TEST_F(Systems, ExactActivationGradientsCureNearestRoundingMastersDoNot) {
  EXPECT_LT(error_of("fixed:6.10:nearest+activation_gradients=f32"), 0.035);
  EXPECT_GT(error_of("fixed:6.10:nearest+update=f32+slots=f32"), 0.6);
}

}  // namespace
}  // namespace halftone
