#include "halftone/train/trainer.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>

#include "halftone/halftone.hpp"
#include "tests/data/noise.hpp"
#include "tests/train/unchanged_weights.hpp"

namespace halftone {
namespace {

using test::noise;

constexpr std::int64_t batch = 8;

struct Net {
  Graph graph;
  Value logits, loss, labels;
};

/// Everything that keeps state from step to step: batch norm, dropout, weights.
Net small_net(const Dataset& data) {
  Net net;
  const Inputs in = inputs(net.graph, data, batch);
  Value x = relu(batch_norm(conv2d(in.images, 8, 3)));
  net.labels = in.labels;
  net.logits = dense(dropout(global_avg_pool(x), 0.2f), 4);
  net.loss = cross_entropy(net.logits, in.labels);
  return net;
}

Batch batch_of(const Dataset& data, std::int64_t first = 0) {
  Batch b;
  b.size = batch;
  b.images.assign(data.at(first), data.at(first) + static_cast<std::size_t>(batch) * data.image_bytes());
  b.labels.assign(data.labels.begin() + first, data.labels.begin() + first + batch);
  return b;
}

/// All that must outlive a step, but for the loss scale and the counters.
std::vector<std::byte> lasting_bytes(const Trainer& trainer) {
  std::vector<std::byte> all;
  const Parameters& p = trainer.parameters();
  const auto add = [&](std::span<const std::byte> bytes) { all.insert(all.end(), bytes.begin(), bytes.end()); };
  for (const auto& slot : p.entries)
    for (const Store store :
         {Store::weights, Store::masters, Store::slot0, Store::slot1, Store::compensation, Store::average})
      if (slot.in(store)) add(p.view(store, slot).read_bytes());
  for (std::size_t i = 0; i < p.statistics.size(); ++i) add(p.statistic(i).read_bytes());
  const StepState state = p.read_state();
  add(std::as_bytes(std::span(&state.steps, 1)));
  add(std::as_bytes(std::span(&state.seed, 1)));
  return all;
}

TrainerOptions options_for(Precision precision, UpdateRule rule = Sgd{.momentum = 0.9f}) {
  TrainerOptions options;
  options.device = cpu_device({.threads = 2});
  options.precision = std::move(precision);
  options.optimizer = rule;
  return options;
}

TEST(StepReports, HaveTheSharesThatNumericsHaveTheMeanOf) {
  const Dataset data = noise();
  const Net net = small_net(data);
  TrainerOptions options = options_for(Precision::bf16_pure(Precision::Update::nearest), Sgd{});
  options.schedule = Schedule::constant(0x1p-9f);
  Trainer trainer(net.loss, options);
  double zeros = 0, unchanged = 0;
  for (int step = 0; step < 4; ++step) {
    const StepReport report = trainer.step(batch_of(data));
    zeros += report.zero_weight_gradients / 4, unchanged += report.unchanged_weights / 4;
  }
  EXPECT_GT(unchanged, 0.05) << "updates are lost";
  EXPECT_LT(unchanged, 1);
  EXPECT_DOUBLE_EQ(trainer.numerics().unchanged_weights, unchanged);
  EXPECT_DOUBLE_EQ(trainer.numerics().zero_weight_gradients, zeros);
}

TEST(Numerics, CountWeightsThatUpdatesLeftAsTheyAre) {
  test::expect_unchanged_weights_counted(cpu_device({.threads = 2}));
}

class SkippedStep : public testing::TestWithParam<UpdateRule> {};

TEST_P(SkippedStep, ChangesNothingThatLastsButScaleAndCounters) {
  const Dataset data = noise();
  const Net net = small_net(data);
  Precision precision = Precision::f16();
  TrainerOptions options = options_for(precision, GetParam());
  options.average_decay = 0.9f;
  options.clip_norm = 1;
  Trainer trainer(net.loss, options);
  EXPECT_FALSE(trainer.step(batch_of(data)).skipped);
  const auto before = lasting_bytes(trainer);

  StepState state = trainer.parameters().read_state();
  state.scale.scale = 0x1p40f;
  trainer.parameters().write_state(state);
  const StepReport report = trainer.step(batch_of(data, 8));
  EXPECT_TRUE(report.skipped);
  EXPECT_NE(report.reason.find("non-finite weight gradients"), std::string::npos) << report.reason;
  EXPECT_TRUE(std::isfinite(report.loss));
  EXPECT_EQ(lasting_bytes(trainer), before);
  EXPECT_EQ(trainer.parameters().read_state().scale.scale, 0x1p39f);
  EXPECT_EQ(trainer.numerics().skipped_steps, 1);

  state = trainer.parameters().read_state();
  state.scale.scale = 1024;
  trainer.parameters().write_state(state);
  EXPECT_FALSE(trainer.step(batch_of(data, 8)).skipped);
  EXPECT_NE(lasting_bytes(trainer), before);  // the control: a step that is not skipped changes it
}

INSTANTIATE_TEST_SUITE_P(Rules, SkippedStep, testing::Values(UpdateRule(Sgd{.momentum = 0.9f}), UpdateRule(adamw())));

TEST(Trainer, ASkippedStepIsAsIfItHadNotBeen) {
  const Dataset data = noise();
  const Net net = small_net(data);
  Trainer disturbed(net.loss, options_for(Precision::f16())), calm(net.loss, options_for(Precision::f16()));
  for (int step = 0; step < 3; ++step) {
    if (step == 1) {
      StepState state = disturbed.parameters().read_state();
      state.scale.scale = 0x1p40f;
      disturbed.parameters().write_state(state);
      EXPECT_TRUE(disturbed.step(batch_of(data, 16)).skipped);
      state = disturbed.parameters().read_state();
      state.scale.scale = calm.parameters().read_state().scale.scale;
      disturbed.parameters().write_state(state);
    }
    disturbed.step(batch_of(data, 8 * step)), calm.step(batch_of(data, 8 * step));
  }
  EXPECT_EQ(lasting_bytes(disturbed), lasting_bytes(calm));
}

TEST(Trainer, TheLossScaleChangesNoBitInF32) {
  const Dataset data = noise();
  const Net net = small_net(data);
  TrainerOptions plain = options_for(Precision::f32()), scaled = plain, stressed = plain;
  scaled.precision.loss_scale = LossScale::fixed(1024);
  stressed.stress = 0x1p-16f;
  Trainer a(net.loss, plain), b(net.loss, scaled), c(net.loss, stressed);
  for (int step = 0; step < 3; ++step) {
    const float norm = a.step(batch_of(data)).gradient_norm;
    EXPECT_EQ(b.step(batch_of(data)).gradient_norm, norm);
    EXPECT_EQ(c.step(batch_of(data)).gradient_norm, norm);
  }
  EXPECT_EQ(lasting_bytes(a), lasting_bytes(b));
  EXPECT_EQ(lasting_bytes(a), lasting_bytes(c));
}

TEST(Trainer, ClassWeightsCountByTheirRatiosAlone) {
  const Dataset data = noise();
  Net net = small_net(data);
  const auto after_a_step = [&](float factor) {
    const float weights[] = {1, 0.75f, 1.5f, 1.25f};
    CrossEntropyOptions options;
    for (const float weight : weights) options.class_weights.push_back(weight * factor);
    Trainer trainer(cross_entropy(net.logits, net.labels, options), options_for(Precision::f32()));
    EXPECT_GT(trainer.step(batch_of(data)).gradient_norm, 0);
    return lasting_bytes(trainer);
  };
  const auto plain = after_a_step(1);
  for (const float factor : {0x1p-125f, 0x1p127f}) EXPECT_EQ(after_a_step(factor), plain) << factor;
  const CrossEntropyOptions far_apart{.class_weights = {3e38f, 1, 1, 1.2e-38f}};
  Trainer trainer(cross_entropy(net.logits, net.labels, far_apart), options_for(Precision::f32()));
  EXPECT_TRUE(std::isfinite(trainer.step(batch_of(data)).loss));
}

TEST(Trainer, ClippingSeesTrueGradients) {
  const Dataset data = noise();
  const Net net = small_net(data);
  TrainerOptions options = options_for(Precision::f32(), Sgd{});
  options.precision.loss_scale = LossScale::fixed(4096);
  options.schedule = Schedule::constant(1);
  Trainer free(net.loss, options);
  const float norm = free.step(batch_of(data)).gradient_norm;
  options.clip_norm = norm / 8;
  Trainer clipped(net.loss, options);
  std::vector<std::vector<float>> before;
  for (const auto& slot : clipped.parameters().entries) before.push_back(clipped.parameters().truth(slot).read());
  EXPECT_EQ(clipped.step(batch_of(data)).gradient_norm, norm);
  double moved = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    const auto after = clipped.parameters().truth(clipped.parameters().entries[i]).read();
    for (std::size_t j = 0; j < after.size(); ++j) moved += std::pow(static_cast<double>(after[j]) - before[i][j], 2);
  }
  EXPECT_NEAR(std::sqrt(moved), norm / 8, 1e-3 * norm / 8);
}

/// A net whose gradients are the same for a batch and for two halves of it: no batch norm, no dropout.
Net plain_net(const Dataset& data, std::int64_t images) {
  Net net;
  const Inputs in = inputs(net.graph, data, images);
  net.labels = in.labels;
  net.logits = dense(relu(conv2d(in.images, 8, 3, {.padding = 0})), 4);
  net.loss = cross_entropy(net.logits, in.labels);
  return net;
}

Batch part(const Dataset& data, std::int64_t first, std::int64_t size) {
  Batch b;
  b.size = size;
  b.images.assign(data.at(first), data.at(first) + static_cast<std::size_t>(size) * data.image_bytes());
  b.labels.assign(data.labels.begin() + first, data.labels.begin() + first + size);
  return b;
}

TEST(Accumulation, TwoHalvesMakeOneBatch) {
  const Dataset data = noise();
  const Net whole = plain_net(data, 16), half = plain_net(data, 8);
  TrainerOptions options = options_for(Precision::f32());
  Trainer one(whole.loss, options);
  options.accumulate = 2;
  Trainer two(half.loss, options);
  for (int step = 0; step < 3; ++step) {
    one.step(part(data, 0, 16));
    EXPECT_FALSE(two.step(part(data, 0, 8)).complete);
    EXPECT_TRUE(two.step(part(data, 8, 8)).complete);
  }
  for (const auto& slot : one.parameters().entries) {
    const auto a = one.parameters().truth(slot).read(), b = two.parameters().truth(slot).read();
    for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-5f) << slot.name;
  }
}

TEST(Accumulation, DropsOnlyTheBadMicroBatch) {
  Dataset data = noise();
  data.dtype = DType::f32;
  std::vector<float> pixels(static_cast<std::size_t>(data.image.elements() * data.size()));
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<float>(i % 17) / 17;
  Dataset floats = in_memory("floats", data.image, pixels, data.labels, 4);
  const Net net = plain_net(floats, 8);
  TrainerOptions options = options_for(Precision::f32());
  options.accumulate = 2;
  Trainer disturbed(net.loss, options);
  options.accumulate = 1;
  Trainer alone(net.loss, options);

  Batch bad = part(floats, 8, 8);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(bad.images.data(), &nan, sizeof nan);
  disturbed.step(bad);
  const StepReport report = disturbed.step(part(floats, 0, 8));
  EXPECT_TRUE(report.complete);
  EXPECT_FALSE(report.skipped);
  alone.step(part(floats, 0, 8));
  EXPECT_EQ(lasting_bytes(disturbed), lasting_bytes(alone));

  disturbed.step(bad);
  EXPECT_TRUE(disturbed.step(bad).skipped);
  EXPECT_EQ(lasting_bytes(disturbed), lasting_bytes(alone));
}

TEST(Trainer, SameBitsForAnyThreadCount) {
  const Dataset data = noise();
  const Net net = small_net(data);
  std::vector<std::vector<std::byte>> results;
  for (int threads : {1, 2, 3}) {
    TrainerOptions options = options_for(Precision::bf16());
    options.device = cpu_device({.threads = threads});
    Trainer trainer(net.loss, options);
    for (int step = 0; step < 4; ++step) trainer.step(batch_of(data, 8 * step));
    results.push_back(lasting_bytes(trainer));
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

class Folder {
 public:
  Folder() : path_(std::filesystem::temp_directory_path() / ("halftone-trainer-" + std::to_string(::getpid()))) {}
  ~Folder() { std::filesystem::remove_all(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

TEST(Trainer, ResumesWithTheSameBitsInTheMiddleOfAnEpoch) {
  const Loader loader(std::make_shared<Dataset>(noise()), {.batch = batch, .shuffle = true, .flip = true});
  const Net net = small_net(loader.dataset());
  TrainerOptions options = options_for(Precision::f16(), adamw());
  options.average_decay = 0.99f;
  options.schedule = Schedule::one_cycle(0.01f, 12);
  Trainer whole(net.loss, options), first(net.loss, options), second(net.loss, options);
  for (int epoch = 0; epoch < 3; ++epoch) whole.epoch(loader);

  first.epoch(loader);
  EXPECT_TRUE(first.epoch(loader, [](const StepReport& step) { return step.attempt < 6; }).stopped);
  const Folder folder;
  first.save(folder.path(), {{"net", "small"}});
  second.load(folder.path());
  EXPECT_EQ(second.epoch(loader).epoch, 2);
  EXPECT_EQ(second.epoch(loader).epoch, 3);
  EXPECT_EQ(lasting_bytes(second), lasting_bytes(whole));
}

/// What a checkpoint of another training is refused with: the caller's mistake, not the file's.
std::string refusal(Trainer& trainer, const Folder& folder) {
  try {
    trainer.load(folder.path());
  } catch (const Failure& failure) {
    return std::string("the file is blamed: ") + failure.what();
  } catch (const Error& error) {
    return error.what();
  }
  return "it was taken";
}

void expect_refused(Trainer& trainer, const Folder& folder, const std::string& difference) {
  const std::string message = refusal(trainer, folder);
  EXPECT_NE(message.find("the checkpoint has " + difference), std::string::npos) << message;
}

TEST(Trainer, ARefusedCheckpointChangesNothing) {
  const Dataset data = noise();
  const Net net = small_net(data);
  const Folder folder;
  Trainer adam(net.loss, options_for(Precision::f16(), adamw())), sgd(net.loss, options_for(Precision::f16()));
  adam.step(batch_of(data));
  adam.save(folder.path());
  const auto before = lasting_bytes(sgd);
  expect_refused(sgd, folder, "optimizer adam, decoupled, not sgd");
  EXPECT_EQ(lasting_bytes(sgd), before);
}

TEST(Trainer, AParameterAddedToTheLossTrainsInEveryFormat) {
  const Dataset data = noise();
  for (Precision precision : {Precision::f32(), Precision::f16(), Precision::bf16()}) {
    precision.loss_scale = LossScale::fixed(1024);  // as f16 this gradient is the scale itself: 65536 would be infinite
    Net net = small_net(data);
    const Value s = net.graph.parameter("s", Shape{}, constant(1), 1);
    Trainer trainer(net.loss + s, options_for(precision, Sgd{}));
    EXPECT_GT(trainer.step(batch_of(data)).gradient_norm, 0.9f) << precision.name;
    EXPECT_FLOAT_EQ(trainer.parameters().truth(trainer.parameters().find("s")).read()[0], 0.95f) << precision.name;
  }
}

TEST(Trainer, ALossThatOthersReadIsNotFusedAway) {
  const Dataset data = noise();
  const Net net = small_net(data);
  const Value loss = net.loss + net.loss;
  tanh(loss);
  Trainer a(loss, options_for(Precision::f32())), b(net.loss, options_for(Precision::f32()));
  EXPECT_FLOAT_EQ(a.step(batch_of(data)).loss, 2 * b.step(batch_of(data)).loss);
}

TEST(Trainer, AFailedAveragedEvaluationLeavesTheWeights) {
  const Dataset data = noise();
  const Net net = small_net(data);
  TrainerOptions options = options_for(Precision::f32());
  options.average_decay = 0.5f;
  Trainer trainer(net.loss, options);
  trainer.step(batch_of(data));
  const auto before = lasting_bytes(trainer);
  const Value metric = accuracy(net.logits, net.labels);
  EXPECT_THROW(trainer.evaluate(digits(Split::test, {.batch = batch, .limit = 8}), metric, true), Error);
  EXPECT_EQ(lasting_bytes(trainer), before);
}

class Frozen : public testing::TestWithParam<UpdateRule> {};

TEST_P(Frozen, ParametersStayFromTheirStepOn) {
  const Dataset data = noise();
  Net net = small_net(data);
  TrainerOptions options = options_for(Precision::f16(), GetParam());
  options.groups = {{.scope = "conv1", .until = 2}};
  Trainer trainer(net.loss, options), free(net.loss, options_for(Precision::f16(), GetParam()));
  std::vector<std::vector<float>> conv, others, of_free;
  for (int step = 0; step < 5; ++step) {
    ASSERT_FALSE(trainer.step(batch_of(data)).skipped);
    free.step(batch_of(data));
    conv.push_back(trainer.parameters().truth(trainer.parameters().find("conv1.weight")).read());
    others.push_back(trainer.parameters().truth(trainer.parameters().find("dense1.weight")).read());
    of_free.push_back(free.parameters().truth(free.parameters().find("conv1.weight")).read());
  }
  EXPECT_EQ(conv[1], of_free[1]);
  EXPECT_NE(conv[0], conv[1]);
  EXPECT_EQ(conv[2], conv[1]);
  EXPECT_EQ(conv[4], conv[1]);
  EXPECT_NE(others[4], others[3]);
  const auto gradients_of_conv = [](const Trainer& t) {
    return std::ranges::count_if(t.plan().kernels(), [](const auto& k) { return k.node == "conv1.conv2d_d_weight1"; });
  };
  EXPECT_EQ(gradients_of_conv(free), 1);
  EXPECT_EQ(gradients_of_conv(trainer), 0);  // nobody needs them any more
  const auto norms = trainer.gradient_norms();
  EXPECT_TRUE(std::ranges::none_of(norms, [](const GradientNorm& norm) { return norm.layer == "conv1"; }));

  Trainer other(net.loss, options);
  const Parameters first = other.parameters();
  other.take(trainer.parameters());
  EXPECT_EQ(gradients_of_conv(other), 0);
  other.take(first);
  EXPECT_EQ(gradients_of_conv(other), 1);

  options.groups = {{.until = 1}};
  Trainer all(net.loss, options);
  conv.clear();
  for (int step = 0; step < 3; ++step) {
    EXPECT_FALSE(all.step(batch_of(data)).skipped);
    conv.push_back(all.parameters().truth(all.parameters().find("conv1.weight")).read());
  }
  EXPECT_EQ(conv[0], of_free[0]);
  EXPECT_EQ(conv[1], conv[0]) << "they are all still in the plan, but have no rate";
  EXPECT_EQ(conv[2], conv[0]);

  options.groups.clear();
  options.frozen = {"conv1"};
  Trainer never(net.loss, options);
  const ParameterSlot& weight = never.parameters().find("conv1.weight");
  const auto before = never.parameters().truth(weight).read();
  for (int step = 0; step < 3; ++step) never.step(batch_of(data));
  EXPECT_EQ(never.parameters().truth(weight).read(), before);
  EXPECT_FALSE(weight.in(Store::gradients) || weight.in(Store::slot0));
  EXPECT_EQ(gradients_of_conv(never), 0);
}

INSTANTIATE_TEST_SUITE_P(Rules, Frozen,
                         testing::Values(UpdateRule(Sgd{.momentum = 0.9f, .weight_decay = 0.1f}), UpdateRule(adamw()),
                                         UpdateRule(AdaMax{})),
                         [](const auto& test) {
                           return std::visit([](const auto& rule) { return std::string(rule.name); }, test.param);
                         });

class LooksAhead : public testing::TestWithParam<const char*> {};

/// Beside a training whose weights are read, moved and written back by hand.
TEST_P(LooksAhead, WeightsAndStatisticsBecomeTheAverage) {
  const Dataset data = noise();
  const Net net = small_net(data);
  TrainerOptions options = options_for(precision_by_name(GetParam()));
  options.schedule = Schedule::linear(0.1f, 8);
  Trainer by_hand(net.loss, options);
  options.average_decay = 0.5f;
  options.lookahead = 2;
  Trainer trainer(net.loss, options);
  Parameters& p = by_hand.parameters();
  std::vector<std::vector<float>> slow;
  for (const ParameterSlot& slot : p.entries) slow.push_back(p.truth(slot).read());
  for (std::size_t i = 0; i < p.statistics.size(); ++i) slow.push_back(p.statistic(i).read());
  for (int step = 1; step <= 6; ++step) {
    ASSERT_FALSE(trainer.step(batch_of(data)).skipped);
    by_hand.step(batch_of(data));
    const double kept = 0.25 * std::pow(step / 8.0, 3);
    for (std::size_t i = 0; step % 2 == 0 && i < slow.size(); ++i) {
      const std::size_t statistic = i - p.entries.size();
      const auto fast = i < p.entries.size() ? p.truth(p.entries[i]).read() : p.statistic(statistic).read();
      for (std::size_t k = 0; k < fast.size(); ++k)
        slow[i][k] = static_cast<float>(kept * slow[i][k] + (1 - kept) * fast[k]);
      i < p.entries.size() ? p.assign(p.entries[i], slow[i]) : p.assign_statistic(statistic, slow[i]);
    }
  }
  for (std::size_t i = 0; i < slow.size(); ++i) {
    const Parameters& q = trainer.parameters();
    const bool weight = i < p.entries.size();
    const auto average = weight ? q.view(Store::average, q.entries[i]).read()
                                : q.statistic(i - p.entries.size(), Store::averaged_statistics).read();
    const auto fast = weight ? q.weight(q.entries[i]).read() : q.statistic(i - p.entries.size()).read();
    const auto expected = weight ? p.weight(p.entries[i]).read() : slow[i];
    for (std::size_t k = 0; k < slow[i].size(); ++k) {
      EXPECT_NEAR(average[k], slow[i][k], 1e-4 * std::max(std::abs(slow[i][k]), 0.1f));
      EXPECT_NEAR(fast[k], expected[k], 1e-3 * std::max(std::abs(expected[k]), 0.1f));
    }
  }
  trainer.step(batch_of(data));  // the control: between, the weights go their own way
  EXPECT_NE(trainer.parameters().truth(trainer.parameters().entries[0]).read(),
            trainer.parameters().view(Store::average, trainer.parameters().entries[0]).read());
}

INSTANTIATE_TEST_SUITE_P(Systems, LooksAhead, testing::Values("f32", "f16", "bf16"));

TEST(Trainer, NoCompensationLooksAhead) {
  const Net net = small_net(noise());
  TrainerOptions options = options_for(precision_by_name("bf16"));
  options.average_decay = 0.5f;
  options.lookahead = 2;
  EXPECT_NO_THROW(Trainer(net.loss, options));
  options.precision = options.precision.except("conv1", precision_by_name("bf16_pure:kahan").storage);
  EXPECT_THROW(Trainer(net.loss, options), Error);
}

TEST(Trainer, AnAverageStillFollowsWhatIsFrozen) {
  const Dataset data = noise();
  const Net net = small_net(data);
  TrainerOptions options = options_for(Precision::f16());
  options.average_decay = 0.9f;
  options.lookahead = 2;
  options.groups = {{.scope = "conv1", .until = 3}};
  Trainer trainer(net.loss, options);
  const Parameters& p = trainer.parameters();
  const ParameterSlot& weight = p.find("conv1.weight");
  for (int step = 0; step < 3; ++step) trainer.step(batch_of(data));
  EXPECT_NE(p.truth(weight).read(), p.view(Store::average, weight).read());
  trainer.step(batch_of(data));
  EXPECT_EQ(p.truth(weight).read(), p.view(Store::average, weight).read());
}

TEST(Accumulation, EachMicroBatchDrawsItsOwnRandomNumbers) {
  const Dataset data = noise();
  const Net net = small_net(data);
  TrainerOptions options = options_for(Precision::f32());
  options.accumulate = 3;
  Trainer trainer(net.loss, options);
  const float first = trainer.step(batch_of(data)).loss, second = trainer.step(batch_of(data)).loss;
  EXPECT_NE(first, second);  // the same batch, but another dropout
}

TEST(Accumulation, ReportsTheMeanLossOfTheGoodOnes) {
  const Dataset data = noise();
  const Net net = plain_net(data, 8);
  TrainerOptions options = options_for(Precision::f32());
  options.accumulate = 2;
  Trainer trainer(net.loss, options);
  const float first = trainer.step(part(data, 0, 8)).loss;
  Trainer other(net.loss, options);
  const float second = other.step(part(data, 8, 8)).loss;
  EXPECT_FLOAT_EQ(trainer.step(part(data, 8, 8)).step_loss, (first + second) / 2);
}

TEST(Trainer, ACheckpointOfAnotherPrecisionIsRefused) {
  const Dataset data = noise();
  const Net net = small_net(data);
  const Folder folder;
  Trainer f16(net.loss, options_for(Precision::f16())), bf16(net.loss, options_for(Precision::bf16()));
  f16.save(folder.path());
  expect_refused(bf16, folder, "precision f16, not bf16");
}

TEST(Trainer, AssigningAlsoSetsTheAverage) {
  const Dataset data = noise();
  const Net net = small_net(data);
  TrainerOptions options = options_for(Precision::f16());
  options.average_decay = 0.5f;
  Trainer trainer(net.loss, options);
  const auto& slot = trainer.parameters().entries[0];
  const std::vector<float> ones(static_cast<std::size_t>(slot.shape.elements()), 1);
  trainer.parameters().assign(slot, ones);
  for (const Store store : {Store::weights, Store::masters, Store::average})
    EXPECT_EQ(trainer.parameters().view(store, slot).read(), ones) << name_of(store);
}

TEST(Trainer, GroupsFollowTheirOwnRule) {
  const Dataset data = noise();
  const Net net = small_net(data);
  TrainerOptions options = options_for(Precision::f32());
  options.groups = {{.scope = "", .ending = ".bias", .rule = Sgd{}, .learning_rate = 0}};
  Trainer trainer(net.loss, options);
  const auto& slots = trainer.parameters().entries;
  std::vector<std::vector<float>> before;
  for (const auto& slot : slots) before.push_back(trainer.parameters().truth(slot).read());
  trainer.step(batch_of(data));
  for (std::size_t i = 0; i < slots.size(); ++i)
    EXPECT_EQ(trainer.parameters().truth(slots[i]).read() == before[i], slots[i].name.ends_with(".bias"))
        << slots[i].name;
  options.groups[0].ending = ".nobody";
  EXPECT_THROW(Trainer(net.loss, options), Error);
}

TEST(Trainer, EvaluatesAnyBatchSizeWithRunningStatistics) {
  const Dataset data = noise(30);
  const Net net = small_net(data);
  Trainer trainer(net.loss, options_for(Precision::f32()));
  for (int step = 0; step < 2; ++step) trainer.step(batch_of(data, 8 * step));
  const Value metric = accuracy(net.logits, net.labels);
  const auto shared = std::make_shared<Dataset>(data);
  const auto accuracy_with = [&](std::int64_t size) {
    return trainer.evaluate(Loader(shared, {.batch = size, .shuffle = false, .drop_last = false}), metric);
  };
  EXPECT_NEAR(accuracy_with(7), accuracy_with(30), 1e-6);  // f32 means of different batches
}

TEST(Trainer, AGroupWithoutARuleKeepsTheTrainersOwn) {
  const Dataset data = noise();
  const Net net = small_net(data);
  TrainerOptions options = options_for(Precision::f32());
  Trainer plain(net.loss, options);
  options.groups = {{.scope = "", .ending = ".weight", .learning_rate = 1}};
  Trainer grouped(net.loss, options);
  for (int step = 0; step < 3; ++step) plain.step(batch_of(data)), grouped.step(batch_of(data));
  EXPECT_EQ(lasting_bytes(plain), lasting_bytes(grouped));
}

TEST(Trainer, NormsAndBiasesCanBeLeftOutOfTheDecay) {
  const Dataset data = noise();
  const Net net = small_net(data);
  const auto stepped = [&](const Sgd& rule, bool decays_all) {
    TrainerOptions options = options_for(Precision::f32(), rule);
    if (!decays_all) options.groups = {without_decay(rule)};
    auto trainer = std::make_unique<Trainer>(net.loss, options);
    trainer->step(batch_of(data));
    return trainer;
  };
  const auto left_out = stepped({.weight_decay = 0.5f}, false), all = stepped({.weight_decay = 0.5f}, true),
             none = stepped({}, true);
  int vectors = 0;
  for (const auto& slot : left_out->parameters().entries) {
    const auto numbers = left_out->parameters().truth(slot).read();
    const bool like_all = numbers == all->parameters().truth(slot).read(),
               like_none = numbers == none->parameters().truth(slot).read();
    EXPECT_EQ(like_none, slot.rank == 1) << slot.name;
    if (slot.name.ends_with("weight")) {
      EXPECT_EQ(like_all, slot.rank != 1) << slot.name;
    }
    vectors += slot.rank == 1;
  }
  EXPECT_GT(vectors, 2);
}

TEST(Accumulation, AnEpochsLossIsThatOfItsBatches) {
  auto data = std::make_shared<const Dataset>(noise());
  const Net whole = plain_net(*data, 16), half = plain_net(*data, 8);
  TrainerOptions options = options_for(Precision::f32());
  Trainer one(whole.loss, options);
  options.accumulate = 2;
  Trainer two(half.loss, options);
  const double expected = one.epoch(Loader(data, {.batch = 16, .shuffle = false})).loss;
  EXPECT_NEAR(two.epoch(Loader(data, {.batch = 8, .shuffle = false})).loss, expected, 1e-5 * expected);
}

TEST(Accumulation, PoliciesCountStepsNotMicroBatches) {
  const Dataset data = noise();
  const Net net = plain_net(data, 8);
  TrainerOptions options = options_for(Precision::f16());
  options.accumulate = 2;
  options.precision.loss_scale = LossScale::dynamic({.initial = 0x1p40f, .max_consecutive_skips = 1000});
  Trainer trainer(net.loss, options);
  const StepReport first = trainer.step(part(data, 0, 8)), second = trainer.step(part(data, 8, 8));
  EXPECT_FALSE(first.complete);
  EXPECT_TRUE(second.skipped);
  EXPECT_EQ(first.scale, 0x1p40f);
  EXPECT_EQ(second.scale, 0x1p40f);
  EXPECT_EQ(trainer.parameters().read_state().scale.scale, 0x1p39f);
}

TEST(Trainer, ReadsALossInWhateverFormatItIsStored) {
  const Dataset data = noise();
  for (const Precision& precision : {Precision::f32(), Precision::bf16()}) {
    const Net plain = plain_net(data, 8), narrow = plain_net(data, 8), view = plain_net(data, 8);
    Trainer a(plain.loss, options_for(precision));
    Trainer b(cast(narrow.loss, DType::f16), options_for(precision));
    Trainer c(reshape(scale(view.loss, 1), Shape{}), options_for(precision));
    const float loss = a.step(part(data, 0, 8)).loss;
    EXPECT_NEAR(b.step(part(data, 0, 8)).loss, loss, 0x1p-11f * loss);
    EXPECT_EQ(c.step(part(data, 0, 8)).loss, loss);
  }
}

TEST(Trainer, EvaluationSeesEveryImageAsItIs) {
  auto data = std::make_shared<const Dataset>(noise(30));
  const Net net = plain_net(*data, 7);
  Trainer trainer(net.loss, options_for(Precision::f32()));
  const Value hits = accuracy(net.logits, net.labels);
  const double plain = trainer.evaluate(Loader(data, {.batch = 30, .shuffle = false}), hits);
  EXPECT_NEAR(trainer.evaluate(Loader(data, {.batch = 7, .crop = 2, .flip = true}), hits), plain, 1e-6);
}

TEST(Trainer, EvaluationKnowsGraphsApart) {
  auto data = std::make_shared<const Dataset>(noise());
  const Net net = small_net(*data);
  Trainer trainer(net.loss, options_for(Precision::f32()));
  const auto evaluate = [&](float factor) {  // each time a graph of its own, likely at the same address
    const Net other = small_net(*data);
    return trainer.evaluate(Loader(data, {.batch = batch}), scale(other.loss, factor));
  };
  const double once = evaluate(1);
  EXPECT_NEAR(evaluate(3), 3 * once, 1e-5 * once);
}

TEST(Trainer, RunsOnlyWhatTheLossNeeds) {
  const Dataset data = noise();
  const Net net = small_net(data), busy = small_net(data);
  accuracy(busy.logits, busy.labels);
  batch_norm(conv2d(busy.logits, 8, 1));
  const Trainer a(net.loss, options_for(Precision::f32())), b(busy.loss, options_for(Precision::f32()));
  EXPECT_EQ(a.plan().kernels().size(), b.plan().kernels().size());
}

TEST(Trainer, ACheckpointOfOtherStoragesIsRefused) {
  const Dataset data = noise();
  const Net net = small_net(data);
  const Folder folder;
  Precision wide = Precision::f16().except("dense1", RoleStorage::all(DType::f32));
  Trainer f16(net.loss, options_for(Precision::f16())), other(net.loss, options_for(wide));
  f16.save(folder.path());
  expect_refused(other, folder, "storage activations f16");
}

TEST(Trainer, ACheckpointOfOtherRulesIsRefused) {
  const Dataset data = noise();
  const Net net = small_net(data);
  const Folder folder;
  TrainerOptions options = options_for(Precision::f32(), adamw());
  Trainer plain(net.loss, options);
  options.groups = {{.scope = "", .ending = ".bias", .rule = Sgd{.momentum = 0.9f}}};
  Trainer grouped(net.loss, options);
  grouped.save(folder.path());
  expect_refused(plain, folder, "optimizer adam, decoupled; *.bias: sgd");
}

TEST(Accumulation, AnEpochNeedNotEndWithAStep) {
  auto data = std::make_shared<const Dataset>(noise());
  const Net net = plain_net(*data, 8);
  TrainerOptions options = options_for(Precision::f32());
  options.accumulate = 3;
  Trainer trainer(net.loss, options);
  const Loader loader(data, {.batch = 8, .shuffle = false});
  std::vector<float> losses;
  const double loss =
      trainer.epoch(loader, [&](const StepReport& step) { return losses.push_back(step.loss), true; }).loss;
  ASSERT_EQ(losses.size(), 4u);
  EXPECT_NEAR(loss, (losses[0] + losses[1] + losses[2] + losses[3]) / 4, 1e-6);
}

TEST(Accumulation, TellsWhyAMicroBatchWasLeftOut) {
  Dataset data = noise();
  std::vector<float> pixels(static_cast<std::size_t>(data.image.elements() * data.size()), 0.5f);
  pixels[0] = std::numeric_limits<float>::quiet_NaN();
  data.pixels.resize(pixels.size() * sizeof(float));
  std::memcpy(data.pixels.data(), pixels.data(), data.pixels.size());
  data.dtype = DType::f32;
  const Net net = plain_net(data, 8);
  TrainerOptions options = options_for(Precision::f32());
  options.accumulate = 2;
  Trainer trainer(net.loss, options);
  EXPECT_EQ(trainer.step(part(data, 0, 8)).reason,
            "loss is nan: the first output that is not finite is that of normalize1, of input images, which is nan at "
            "place 0");
  const StepReport second = trainer.step(part(data, 8, 8));
  EXPECT_FALSE(second.skipped);
  EXPECT_EQ(second.reason, "");
}

TEST(Trainer, RefusesAnExceptionThatFitsNothing) {
  const Dataset data = noise();
  const Net net = small_net(data);
  for (const char* scope : {"head", "dense1.", "conv"}) {
    const Precision precision = Precision::f16().except(scope, RoleStorage::all(DType::f32));
    if (scope == std::string("dense1."))
      Trainer(net.loss, options_for(precision));  // the control: it holds parameters
    else
      EXPECT_THROW(Trainer(net.loss, options_for(precision)), Error) << scope;
  }
}

TEST(Trainer, RefusesWhatIsNoLossScale) {
  const Dataset data = noise();
  const Net net = small_net(data);
  TrainerOptions options = options_for(Precision::f32());
  for (const LossScale& scale :
       {LossScale::fixed(1e-40f), LossScale::fixed(0), LossScale::dynamic({.growth = 0.5f}),
        LossScale::dynamic({.backoff = 1}), LossScale::dynamic({.interval = 0}), LossScale::dynamic({.min = 0})}) {
    options.precision.loss_scale = scale;
    EXPECT_THROW(Trainer(net.loss, options), Error);
  }
}

TEST(Trainer, AShortLastBatchIsRefusedBeforeTheFirst) {
  auto data = std::make_shared<const Dataset>(noise(30));
  const Net net = plain_net(*data, 8);
  Trainer trainer(net.loss, options_for(Precision::f32()));
  EXPECT_THROW(trainer.epoch(Loader(data, {.batch = 8, .drop_last = false})), Error);
  EXPECT_EQ(trainer.attempts(), 0);
}

TEST(Trainer, RefusesWhatIsNoScheduleAndNoStress) {
  const Dataset data = noise();
  const Net net = small_net(data);
  TrainerOptions options = options_for(Precision::f32());
  for (const Schedule& schedule : {Schedule::constant(NAN), Schedule::constant(-1), Schedule::exponential(1, 0, 10),
                                   Schedule::exponential(1e-40f, 1, 10), Schedule::linear(1, 0)}) {
    options.schedule = schedule;
    EXPECT_THROW(Trainer(net.loss, options), Error);
  }
  options.schedule = Schedule::constant(1);
  for (float stress : {0.0f, 3.0f, 0x1p-149f, 0x1p127f, -2.0f}) {
    options.stress = stress;
    EXPECT_THROW(Trainer(net.loss, options), Error) << stress;
  }
}

TEST(Trainer, AnObserverThatThrowsLeavesAUsableTrainer) {
  auto data = std::make_shared<const Dataset>(noise());
  const Loader loader(data, {.batch = batch, .shuffle = false});
  const Net net = small_net(*data);
  Trainer thrown(net.loss, options_for(Precision::f32())), calm(net.loss, options_for(Precision::f32()));
  EXPECT_THROW(thrown.epoch(loader, [](const StepReport&) -> bool { throw std::runtime_error("mine"); }),
               std::runtime_error);
  thrown.epoch(loader), calm.epoch(loader);
  EXPECT_EQ(thrown.attempts(), calm.attempts());
  EXPECT_EQ(lasting_bytes(thrown), lasting_bytes(calm));
}

}  // namespace
}  // namespace halftone
