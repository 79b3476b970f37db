#include <gtest/gtest.h>

#include "halftone/halftone.hpp"

namespace halftone {
namespace {

/// Error of Gupta's net after one epoch on 3,000 drawn digits.
double error_after_an_epoch(const Precision& precision, float stress = 1) {
  const auto digits_of = [](Split split, std::int64_t count) {
    return std::make_shared<Dataset>(rendered_digits(split, count));
  };
  const Loader train(digits_of(Split::train, 3000), {.batch = 50}), test(digits_of(Split::test, 1000), {.batch = 250});
  Graph graph;
  const auto [images, labels] = inputs(graph, train);
  const Value logits = gupta(images);
  TrainerOptions options;
  options.precision = precision;
  options.schedule = Schedule::one_cycle(0.05f, train.batches());
  options.stress = stress;
  Trainer trainer(cross_entropy(logits, labels), options);
  trainer.epoch(train);
  return 1 - trainer.evaluate(test, accuracy(logits, labels));
}

TEST(Learning, AllFormatsLearnTheDrawnDigits) {
  for (const char* name : {"f32", "f16", "bf16", "f16_pure:kahan", "fixed:6.10:stochastic", "dynamic_fixed:10/12",
                           "fp8", "fp8:delayed", "int8", "mxfp8", "mxfp6", "nvfp4"})
    EXPECT_LT(error_after_an_epoch(precision_by_name(name)), 0.3) << name;  // chance is 0.9
}

TEST(Learning, TwelveBitsOfOneRangeForAllDoNot) { EXPECT_GT(error_after_an_epoch(Precision::static_fixed(12)), 0.8); }

TEST(Learning, UnscaledF16DoesNotWhereGradientsAreSmall) {
  Precision unscaled = Precision::f16();
  unscaled.loss_scale = LossScale::none();
  EXPECT_GT(error_after_an_epoch(unscaled, 0x1p-16f), 0.5);
  EXPECT_LT(error_after_an_epoch(Precision::f16(), 0x1p-16f), 0.3);
  EXPECT_LT(error_after_an_epoch(Precision::bf16(), 0x1p-16f), 0.3);
}

}  // namespace
}  // namespace halftone
