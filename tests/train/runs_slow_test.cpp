#include <gtest/gtest.h>

#include "halftone/halftone.hpp"

// Whole training runs on real data: what must come out in each number system, and which control must fail.
namespace halftone {
namespace {

struct Outcome {
  double error;
  NumericsReport numerics;
};

/// Gupta's net on the first 20,000 images of MNIST, two epochs.
Outcome train_gupta(const Precision& precision, float stress) {
  const std::filesystem::path folder = find_data("mnist");
  const Loader train = mnist(folder, Split::train, {.batch = 100, .limit = 20000}),
               test = mnist(folder, Split::test, {.batch = 500});
  Graph graph;
  const auto [images, labels] = inputs(graph, train);
  const Value logits = gupta(images);
  TrainerOptions options;
  options.precision = precision;
  options.optimizer = Sgd{.momentum = 0.9f, .weight_decay = 5e-4f};
  options.schedule = Schedule::one_cycle(0.05f, 2 * train.batches());
  options.stress = stress;
  Trainer trainer(cross_entropy(logits, labels), options);
  for (int epoch = 0; epoch < 2; ++epoch) trainer.epoch(train);
  return {1 - trainer.evaluate(test, accuracy(logits, labels)), trainer.numerics()};
}

bool has_mnist() {
  try {
    find_data("mnist");
    return true;
  } catch (const Error&) {
    return false;
  }
}

class RangeStress : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_mnist()) GTEST_SKIP() << "MNIST is not here (HALFTONE_DATA)";
  }
  static constexpr float hostile = 0x1p-16f;
};

Precision f16_with(const LossScale& scale) {
  Precision precision = Precision::f16();
  precision.loss_scale = scale;
  return precision;
}

TEST_F(RangeStress, ScaledF16AndBf16TrainLikeF32) {
  const double f32 = train_gupta(Precision::f32(), hostile).error;
  EXPECT_LT(f32, 0.03);
  EXPECT_NEAR(train_gupta(f16_with(LossScale::fixed(65536)), hostile).error, f32, 0.006);
  EXPECT_NEAR(train_gupta(f16_with(LossScale::dynamic()), hostile).error, f32, 0.006);
  EXPECT_NEAR(train_gupta(Precision::bf16(), hostile).error, f32, 0.006);
}

TEST_F(RangeStress, UnscaledF16LearnsNothing) {
  const Outcome run = train_gupta(f16_with(LossScale::fixed(1)), hostile);
  EXPECT_GT(run.error, 0.8);
  EXPECT_GT(run.numerics.zero_weight_gradients, 0.9);
}

TEST_F(RangeStress, AStaticScaleThatOverflowsSkipsEveryStep) {
  const Outcome run = train_gupta(f16_with(LossScale::fixed(0x1p24f)), 1);
  EXPECT_GT(run.error, 0.8);
  EXPECT_EQ(run.numerics.skipped_steps, 400);
}

}  // namespace
}  // namespace halftone
