#include <gtest/gtest.h>

#include "halftone/halftone.hpp"

// Each number system on real data: what must come out, and the control that must fail. Chance is an error of 0.9.
namespace halftone {
namespace {

struct Run {
  Precision precision;
  int epochs = 2;
  float rate = 0.05f, stress = 1;
  std::int64_t limit = 0;
  std::uint64_t seed = 1;
  const char* data = "mnist";
  double error = 0, loss = 0;  ///< of the last epoch
};

/// Gupta's net.
Run trained(Run run) {
  const auto read = [&](Split split) { return std::make_shared<const Dataset>(load_dataset(run.data, split)); };
  const Loader train(read(Split::train), {.batch = 100, .seed = run.seed, .limit = run.limit}),
      test(read(Split::test), {.batch = 500});
  Graph graph;
  const auto [images, labels] = inputs(graph, train);
  const Value logits = gupta(images);
  TrainerOptions options;
  options.precision = run.precision;
  options.optimizer = Sgd{.momentum = 0.9f, .weight_decay = 5e-4f};
  options.schedule = Schedule::constant(run.rate);
  options.stress = run.stress;
  options.seed = run.seed;
  Trainer trainer(cross_entropy(logits, labels), options);
  for (int epoch = 0; epoch < run.epochs; ++epoch) run.loss = trainer.epoch(train).loss;
  run.error = 1 - trainer.evaluate(test, accuracy(logits, labels));
  return run;
}

double error_of(const std::string& name) { return trained({.precision = precision_by_name(name)}).error; }

struct Systems : testing::Test {
  void SetUp() override {
    try {
      find_data("mnist"), find_data("fashion-mnist");
    } catch (const Error&) {
      GTEST_SKIP() << "MNIST and Fashion-MNIST are not both here (HALFTONE_DATA)";
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

/// Gupta's other word lengths, on Fashion-MNIST.
TEST_F(Systems, TwelveBitsOfFractionNeedStochasticRoundingToo) {
  const auto error = [](const std::string& name) {
    return trained({.precision = precision_by_name(name), .epochs = 3, .data = "fashion-mnist"}).error;
  };
  const double f32 = error("f32");
  EXPECT_LT(f32, 0.15);
  EXPECT_NEAR(error("fixed:4.12:stochastic+activations=fixed:6.10:stochastic"), f32, 0.02);
  EXPECT_GT(error("fixed:4.12:nearest+activations=fixed:6.10:nearest"), 0.6);
}

/// What nearest rounding breaks are the gradients of activations, not the update.
TEST_F(Systems, ExactActivationGradientsCureNearestRoundingMastersDoNot) {
  EXPECT_LT(error_of("fixed:6.10:nearest+activation_gradients=f32"), 0.035);
  EXPECT_GT(error_of("fixed:6.10:nearest+update=f32+slots=f32"), 0.6);
}

/// Ten bits with a range a tensor do what twelve with one range for all cannot; ranges must be found before.
TEST_F(Systems, DynamicFixedPointNeedsItsRanges) {
  EXPECT_LT(error_of("dynamic_fixed:10/12"), 0.035);
  EXPECT_LT(error_of("static_fixed:20"), 0.035);
  EXPECT_GT(error_of("static_fixed:12"), 0.6);
  EXPECT_GT(trained({.precision = Precision::static_fixed(16), .epochs = 3}).error, 0.3);
  Precision unprepared = Precision::dynamic_fixed(10, 12);
  unprepared.range_steps = 0;
  EXPECT_GT(trained({.precision = unprepared}).error, 0.3);
}

/// Gradients times 2^-8 lie below what e5m2 holds; a scale of their own cures that.
TEST_F(Systems, EightBitFloatsNeedScales) {
  const auto stressed = [](const char* name) {
    return trained({.precision = precision_by_name(name), .stress = 0x1p-8f, .limit = 20000}).error;
  };
  const double f32 = stressed("f32");
  EXPECT_LT(f32, 0.05);
  EXPECT_NEAR(stressed("fp8:current"), f32, 0.02);
  EXPECT_NEAR(stressed("fp8:delayed"), f32, 0.02);
  EXPECT_GT(stressed("fp8:none"), 0.5);
}

/// At a small rate updates are less than half a unit of the weights.
TEST_F(Systems, PureSixteenBitsLoseSmallUpdatesToNearestRounding) {
  const auto loss = [](const char* name) {
    return trained({.precision = precision_by_name(name), .epochs = 3, .rate = 0.001f}).loss;
  };
  const double f32 = loss("f32");
  EXPECT_NEAR(loss("bf16_pure:kahan"), f32, 0.02 * f32);
  EXPECT_NEAR(loss("bf16_pure:stochastic"), f32, 0.05 * f32);
  EXPECT_GT(loss("bf16_pure:nearest"), 1.5 * f32);
  EXPECT_GT(loss("f16_pure:nearest"), 1.03 * f32);
  EXPECT_NEAR(loss("f16_pure:kahan"), f32, 0.02 * f32);
}

TEST_F(Systems, EightBitIntegersTrainFourLoseMuch) {
  EXPECT_LT(error_of("int8"), 0.035);
  EXPECT_LT(error_of("mxfp8"), 0.035);
  EXPECT_GT(error_of("int4"), 1.5 * error_of("int8"));
}

/// MNIST in batches of 100, and an MLP of three hidden layers on it, of which each is `hidden`.
struct BinaryNet {
  template <class Hidden>
  explicit BinaryNet(Hidden&& hidden) {
    Value x = flatten(in.images);
    for (int layer = 0; layer < 3; ++layer) x = hidden(dense(x, 512, {.bias = false}));
    logits = dense(x, 10);
  }

  /// The test error after five epochs in signs.
  double trained(TrainerOptions options) const {
    Trainer trainer(cross_entropy(logits, in.labels), options);
    for (int epoch = 0; epoch < 5; ++epoch) trainer.epoch(train);
    return 1 - trainer.evaluate(test, accuracy(logits, in.labels));
  }

  Loader train = mnist(find_data("mnist"), Split::train, {.batch = 100, .seed = 1}),
         test = mnist(find_data("mnist"), Split::test, {.batch = 500});
  Graph graph;
  Inputs in = inputs(graph, train);
  Value logits;
};

/// A sign's gradient is that of a hard tanh: only where what it is of lies within [-1, 1] may it pass.
TEST_F(Systems, SignsNeedTheWindowOfTheirGradient) {
  const auto error = [](auto&& hidden) {
    const BinaryNet net(hidden);
    TrainerOptions options;
    options.precision = Precision::binary();
    options.optimizer = Adam{};
    options.schedule = Schedule::exponential(3e-3f, 3e-5f, 5 * net.train.batches());
    return net.trained(options);
  };
  const double with = error([](Value x) { return cast(hard_tanh(batch_norm(x)), DType::sign); });
  EXPECT_LT(with, 0.025);
  EXPECT_GT(error([](Value x) { return cast(batch_norm(x), DType::sign); }), 2 * with);
}

/// BinaryNet's own training: batch norm and update multiply by powers of two alone. Its rate is the paper's, halved
/// every second epoch.
TEST_F(Systems, BinaryNetsTrainByShifts) {
  const BinaryNet net([](Value x) { return cast(hard_tanh(batch_norm(x)), DType::sign); });
  const std::int64_t halvings[] = {2 * net.train.batches(), 4 * net.train.batches()};
  TrainerOptions options;
  options.precision = Precision::binary(true);
  options.optimizer = AdaMax{.shift = true};
  options.schedule = Schedule::step(0x1p-6f, halvings, 0.5f);
  EXPECT_LT(net.trained(options), 0.05);
}

/// Losses over three seeds. Powers of two as scales of blocks of four bits are too coarse for logits; elsewhere they
/// do.
TEST_F(Systems, LogitsOfFourBitsNeedFineScales) {
  const auto loss = [](const char* name) {
    double sum = 0;
    for (const std::uint64_t seed : {1, 2, 3})
      sum += trained({.precision = precision_by_name(name), .limit = 10000, .seed = seed}).loss;
    return sum;
  };
  const double f32 = loss("f32"), fine = loss("nvfp4");
  EXPECT_LT(fine, 1.3 * f32);
  EXPECT_GT(loss("mxfp4"), 1.3 * fine);
  EXPECT_LT(loss("mxfp4+dense2=f32"), 1.3 * f32);
}

}  // namespace
}  // namespace halftone
