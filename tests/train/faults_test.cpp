#include <gtest/gtest.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include <cmath>
#include <limits>
#include <random>
#include <set>

#include "halftone/halftone.hpp"
#include "tests/io/temporary_folder.hpp"

namespace halftone {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
constexpr std::int64_t batch = 4;

struct Net {
  Graph graph;
  Value images = graph.input("images", {batch, 5, 5, 2}), labels = graph.input("labels", {batch, 1, 1, 1}, DType::i32);
  Value loss = cross_entropy(dense(relu(batch_norm(conv2d(images, 3, 3))), 3), labels);
};

struct Data {
  std::vector<float> images;
  std::vector<std::int32_t> labels = {0, 1, 2, 1};
  explicit Data(unsigned seed, float factor = 1) {
    std::mt19937 random(seed);
    for (std::int64_t i = 0; i < batch * 5 * 5 * 2; ++i)
      images.push_back(factor * (static_cast<float>(random() % 4096) / 1024 - 2));
  }
};

StepReport step(Trainer& trainer, const Data& data) {
  const std::span<const std::byte> inputs[] = {std::as_bytes(std::span(data.images)),
                                               std::as_bytes(std::span(data.labels))};
  return trainer.step(inputs);
}

TrainerOptions options_for(const Precision& precision) {
  TrainerOptions options;
  options.device = cpu_device({.threads = 2});
  options.precision = precision;
  return options;
}

std::vector<std::byte> lasting(const Trainer& trainer) {
  std::vector<std::byte> all;
  const Parameters& p = trainer.parameters();
  for (const Store store : {Store::weights, Store::masters, Store::slot0, Store::slot1, Store::average,
                            Store::statistics, Store::averaged_statistics})
    all.insert(all.end(), p.data(store), p.data(store) + p.bytes(store));
  return all;
}

TEST(BadForward, LeavesTheLossScaleAndAllThatFollowsAsTheyWere) {
  const Net net;
  Trainer with(net.loss, options_for(Precision::f16())), without(net.loss, options_for(Precision::f16()));
  Data bad(1);
  bad.images[7] = nan;
  step(with, Data(0)), step(without, Data(0));
  for (int i = 0; i < 45; ++i) {
    const StepReport report = step(with, bad);
    EXPECT_TRUE(report.skipped);
    EXPECT_EQ(report.scale, 65536);
  }
  for (unsigned i = 2; i < 5; ++i) EXPECT_EQ(step(with, Data(i)).loss, step(without, Data(i)).loss);
  EXPECT_EQ(lasting(with), lasting(without));
  const ScaleState a = with.parameters().read_state().scale, b = without.parameters().read_state().scale;
  EXPECT_EQ(a.scale, b.scale);
  EXPECT_EQ(a.good_steps, b.good_steps);

  TrainerOptions as_pytorch = options_for(Precision::f16());
  as_pytorch.precision.loss_scale = LossScale::dynamic({.on_nan = OnNan::back_off});
  Trainer control(net.loss, as_pytorch);
  step(control, bad), step(control, bad);
  EXPECT_EQ(control.parameters().read_state().scale.scale, 16384);
}

TEST(BadForward, IsNamed) {
  const Net net;
  Trainer trainer(net.loss, options_for(Precision::f16()));
  Data bad(1);
  bad.labels[2] = 77;
  EXPECT_EQ(step(trainer, bad).reason, "loss is nan: label 77 of image 2 is no class");
  bad.labels[2] = 0;
  bad.images[7] = infinity;
  EXPECT_EQ(
      step(trainer, bad).reason,
      "loss is nan: the first output that is not finite is that of conv1, of input images, which is inf at place 7");
  EXPECT_EQ(step(trainer, Data(3)).reason, "");
  const StepReport large = step(trainer, Data(4, 1e6f));  // f16 ends at 65504
  EXPECT_NE(large.reason.find("conv1"), std::string::npos) << large.reason;
  EXPECT_EQ(trainer.parameters().read_state().scale.scale, 65536);
}

/// The norm of 40 numbers of 3e38 is no f32 number; neither is the sum of two over micro-batches.
TEST(Skips, GradientsWhoseNormOverflowsMoveNothing) {
  for (const auto& [count, accumulate] : {std::pair{40, 1}, {1, 2}}) {
    Graph graph;
    const Value x = graph.input("x", Shape::matrix(1, count)), images = graph.input("images", {2, 2, 2, 3});
    const Value of_norm = scale(dense(reshape(batch_norm(images), {1, 1, 1, 24}), 1), 0.5f);
    const Value loss = of_norm + dense(x, graph.parameter("w", Shape::matrix(1, count), constant(0), 2));
    TrainerOptions options = options_for(Precision::f32());
    options.accumulate = accumulate;
    Trainer trainer(loss, options), resumed(loss, options);
    std::vector<float> pixels;
    for (int i = 0; i < 24; ++i) pixels.push_back(static_cast<float>(i * i % 7));
    const auto step = [&, count = count](Trainer& with, float gradient) {
      const std::vector<float> numbers(static_cast<std::size_t>(count), gradient);
      const std::span<const std::byte> inputs[] = {std::as_bytes(std::span(numbers)), std::as_bytes(std::span(pixels))};
      return with.step(inputs);
    };
    const auto before = lasting(trainer);
    for (int i = 1; i < accumulate; ++i) step(trainer, 3e38f);
    EXPECT_EQ(lasting(trainer) == before, accumulate == 1);  // statistics move, until the step turns out to be skipped
    const TemporaryFolder folder;
    trainer.save(folder / "");
    resumed.load(folder / "");
    EXPECT_TRUE(step(trainer, 3e38f).skipped);
    EXPECT_TRUE(step(resumed, 3e38f).skipped);
    EXPECT_EQ(lasting(trainer), before);
    EXPECT_EQ(lasting(resumed), before);
    for (int i = 1; i < accumulate; ++i) step(trainer, 1);
    EXPECT_FALSE(step(trainer, 1).skipped);  // the control
    EXPECT_NE(lasting(trainer), before);
  }
}

/// Codes that have no NaN store something else, those that saturate the largest number, and the loss is a number.
TEST(BadForward, IsSeenWhereTheCodeHidesIt) {
  const Net net;
  Precision plain;
  plain.storage.activations = DType::e5m2;
  using Scaling = Precision::Fp8Scaling;
  for (const Precision& precision : {plain, Precision::bf16(), Precision::fixed(6, 10, Rounding::nearest),
                                     Precision::fp8(Scaling::none), Precision::fp8(Scaling::delayed), Precision::fp8(),
                                     Precision::mx(DType::e4m3), Precision::nvfp4(), Precision::dynamic_fixed(10, 12)})
    for (const float value : {nan, infinity}) {
      Trainer trainer(net.loss, options_for(precision));
      step(trainer, Data(3));
      const auto before = lasting(trainer);
      Data bad(1);
      bad.images[7] = value;
      const StepReport report = step(trainer, bad);
      EXPECT_TRUE(report.skipped) << precision.name << ", " << value;
      EXPECT_NE(report.reason.find("conv1"), std::string::npos) << report.reason;
      EXPECT_EQ(lasting(trainer), before) << precision.name;
      EXPECT_FALSE(step(trainer, Data(2)).skipped);
    }
}

/// 3.4e38 is a number of f32 and rounds to an infinity of bf16.
TEST(BadForward, KnowsWhereBf16Ends) {
  Graph graph;
  const Value x = graph.input("x", Shape::matrix(1, 2));
  Trainer trainer(dense(relu(x), 1), options_for(Precision::bf16()));
  for (const float largest : {0x1.fep127f, 0x1.feffp127f, 3.4e38f}) {
    const std::vector<float> numbers = {1, largest};
    const std::span<const std::byte> inputs[] = {std::as_bytes(std::span(numbers))};
    trainer.step(inputs);
    EXPECT_EQ(trainer.parameters().read_state().bad_node<StepState::none, largest> 0x1.feffp127f) << largest;
  }
}

TEST(Identity, TellsWhatWouldTrainOtherwise) {
  std::set<std::string> seen;
  const auto is_new = [&](const TrainerOptions& options) {
    std::string text;
    for (const auto& [name, value] : identity_of(options).fixed) text += name + " " + value + "\n";
    return seen.insert(text).second;
  };
  TrainerOptions options = options_for(Precision::f16());
  EXPECT_TRUE(is_new(options));
  EXPECT_FALSE(is_new(options));
  for (const OnNan on_nan : {OnNan::back_off, OnNan::stop}) {
    options.precision.loss_scale = LossScale::dynamic({.on_nan = on_nan});
    EXPECT_TRUE(is_new(options));
  }
  options.precision.loss_scale = LossScale::fixed(65536);
  EXPECT_TRUE(is_new(options));
  options.precision.loss_scale.options.on_nan = OnNan::stop;
  EXPECT_TRUE(is_new(options));
  options.precision.loss_scale.options.max_consecutive_skips = 3;
  EXPECT_TRUE(is_new(options));
  options.precision.fuses = false;
  EXPECT_TRUE(is_new(options));
  for (const UpdateRule& rule :
       {UpdateRule(Adam{}), UpdateRule(adamw()), UpdateRule(AdaMax{}), UpdateRule(AdaMax{.shift = true})}) {
    options.optimizer = rule;
    EXPECT_TRUE(is_new(options)) << rule.index();
  }
  options.precision.storage.activations = DType::i16;
  Storage& moving = options.precision.storage.activations;
  moving.scaling = Scaling::range;
  moving.noticed = true;
  for (const float threshold : {0.01f, 0.5f}) {
    moving.controller = OverflowRate{.threshold = threshold};
    EXPECT_TRUE(is_new(options)) << threshold;
  }
}

TEST(Updates, WhatLastsStaysFinite) {
  for (const UpdateRule& rule : {UpdateRule(Sgd{.momentum = 0.9f}), UpdateRule(adamw())})
    for (const Precision& precision : {Precision::f32(), Precision::bf16_pure()}) {
      constexpr std::int64_t count = 40;
      Graph graph;
      const Value x = graph.input("x", Shape::matrix(1, count));
      TrainerOptions options = options_for(precision);
      options.optimizer = rule;
      options.schedule = Schedule::constant(1e30f);
      Trainer trainer(dense(x, graph.parameter("w", Shape::matrix(1, count), constant(1e-30f), 2)), options);
      for (const float g : {1e20f, 3e37f, 3e37f, -3e37f}) {
        const std::vector<float> gradient(count, g);
        const std::span<const std::byte> inputs[] = {std::as_bytes(std::span(gradient))};
        trainer.step(inputs);
      }
      const auto& slot = trainer.parameters().entries[0];
      for (const Store store : {Store::weights, Store::slot0, Store::slot1})
        if (slot.in(store)) {
          for (const float v : trainer.parameters().view(store, slot).read())
            EXPECT_TRUE(std::isfinite(v)) << name_of(store) << " in " << precision.name;
        }
      const TemporaryFolder folder;
      trainer.save(folder / "");
      trainer.load(folder / "");
    }
}

TEST(Statistics, StayFiniteWhereAVarianceDoesNot) {
  const Net net;
  Trainer trainer(net.loss, options_for(Precision::f32()));
  step(trainer, Data(0, 1e22f));
  for (std::size_t i = 0; i < trainer.parameters().statistics.size(); ++i)
    for (const float v : trainer.parameters().statistic(i).read()) EXPECT_TRUE(std::isfinite(v));
}

TEST(Save, WhatCouldNotBeLoadedReplacesNothing) {
  const TemporaryFolder folder;
  const Net net;
  Trainer trainer(net.loss, options_for(Precision::f32()));
  trainer.save(folder / "");
  const auto& slot = trainer.parameters().entries[0];
  std::vector<float> values(static_cast<std::size_t>(slot.shape.elements()));
  values[3] = infinity;
  trainer.parameters().assign(slot, values);
  try {
    trainer.save(folder / "");
    FAIL();
  } catch (const Failure& failure) {
    EXPECT_NE(std::string(failure.what()).find("weights." + slot.name), std::string::npos) << failure.what();
  }
  trainer.load(folder / "");
}

TEST(Options, ThatMakeNoTrainingAreErrorsThatNameThem) {
  const Net net;
  const auto refused = [&](const char* named, const std::function<void(TrainerOptions&)>& change) {
    TrainerOptions options = options_for(Precision::f16());
    change(options);
    try {
      const Trainer trainer(net.loss, options);
      FAIL() << named;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(named), std::string::npos) << error.what();
    }
  };
  const std::int64_t twice[] = {0, 0}, nine[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  refused("schedule", [&](auto& o) { o.schedule = Schedule::step(1, twice, 1e30f); });
  refused("milestones", [&](auto& o) { o.schedule = Schedule::step(1, nine, 0.5f); });
  refused("warm-up", [](auto& o) { o.schedule = Schedule::cosine(1, 10, 10); });
  for (const float bad : {nan, -0.1f, 1.0f}) refused("momentum", [&](auto& o) { o.optimizer = Sgd{.momentum = bad}; });
  for (const float bad : {nan, -1.0f, infinity}) refused("weight_decay", [&](auto& o) { o.optimizer = adamw(bad); });
  for (const double bad : {-0.1, 1.0, std::nan("")})
    refused("beta", [&](auto& o) { o.optimizer = Adam{.beta2 = bad}; });
  for (const float bad : {0.0f, nan}) refused("epsilon", [&](auto& o) { o.optimizer = Adam{.epsilon = bad}; });
  for (const float bad : {nan, -1.0f, infinity})
    refused("parameter group 1", [&](auto& o) { o.groups = {{.scope = "conv1", .ending = "", .learning_rate = bad}}; });
  refused("stress", [](auto& o) {
    o.stress = 0x1p100f;
    o.precision.loss_scale = LossScale::fixed(0x1p100f);
  });
  refused("activations", [](auto& o) { o.precision.storage.activations = DType::u8; });
  refused("conv1", [](auto& o) { o.precision = o.precision.except("conv1", RoleStorage::all(DType::u8)); });
  EXPECT_THROW(leaky_relu(net.images, -0.1f), Error);
  EXPECT_THROW(leaky_relu(net.images, nan), Error);
}

TEST(Options, TakeEveryUpdateRule) {
  const Net net;
  for (std::size_t i = 0; i < UpdateRules::size; ++i) {
    TrainerOptions options = options_for(Precision::f32());
    options.optimizer = visit_type(UpdateRules{}, i, [](auto rule) { return UpdateRule(rule); });
    Trainer trainer(net.loss, options);
    EXPECT_FALSE(step(trainer, Data(1)).skipped) << i;
  }
}

TEST(Average, WarmsUpAndTakesStatisticsAlong) {
  const Net net;
  TrainerOptions options = options_for(Precision::f32());
  options.average_decay = 0.999f;
  Trainer trainer(net.loss, options);
  Parameters& p = trainer.parameters();
  const auto& slot = p.find("dense1.weight");
  std::vector<float> weights = p.truth(slot).read(), statistics = p.statistic(0).read();
  for (int n = 0; n < 3; ++n) {
    step(trainer, Data(static_cast<unsigned>(n)));
    const float kept = static_cast<float>(1 + n) / static_cast<float>(10 + n);
    const auto blend = [&](std::vector<float>& average, const std::vector<float>& now) {
      for (std::size_t i = 0; i < average.size(); ++i)
        if (average[i] != now[i]) average[i] = kept * average[i] + (1 - kept) * now[i];
    };
    blend(weights, p.truth(slot).read());
    blend(statistics, p.statistic(0).read());
    EXPECT_EQ(p.view(Store::average, slot).read(), weights);
    EXPECT_EQ(p.statistic(0, Store::averaged_statistics).read(), statistics);
  }
  const TemporaryFolder folder;
  trainer.save(folder / "");
  Trainer other(net.loss, options);
  load_model(folder / "model.safetensors", other.parameters());
  for (const Store store : {Store::statistics, Store::averaged_statistics})
    EXPECT_EQ(other.parameters().statistic(0, store).read(), statistics) << name_of(store);
}

TEST(CrossEntropy, IgnoredLabelsCountForNothing) {
  const auto logits_gradient = [](std::vector<float> logits, const std::vector<std::int32_t>& label,
                                  const CrossEntropyOptions& options, float& loss_value) {
    const auto n = static_cast<std::int64_t>(label.size());
    Graph graph;
    const Value x = graph.input("x", Shape::matrix(n, 3)), labels = graph.input("labels", {n, 1, 1, 1}, DType::i32);
    const Value loss = cross_entropy(scale(x, 1), labels, options);
    Graph training = graph.clone();
    const Value of[] = {training.value(x.id())};
    const auto d = differentiate(training, training.value(loss.id()), of);
    const int keep[] = {loss.id(), d[0].id()};
    const Parameters parameters(training, cpu_device(), {});
    const Plan plan(training, parameters, keep);
    plan.view(training->inputs[0]).write(logits);
    plan.view(training->inputs[1]).write_bytes(std::as_bytes(std::span(label)));
    plan.run();
    loss_value = plan.view(loss.id()).read()[0];
    return plan.view(d[0].id()).read();
  };
  const std::vector<float> both = {1, 2, -1, 0.5f, 0, 3}, one = {1, 2, -1};
  float loss_of_both = 0, loss_of_one = 0, loss_of_none = 1;
  auto ignored = logits_gradient(both, {1, -100}, {.ignore_label = -100}, loss_of_both);
  const auto alone = logits_gradient(one, {1}, {}, loss_of_one);
  EXPECT_EQ(loss_of_both, loss_of_one);
  EXPECT_EQ(std::vector<float>(ignored.begin(), ignored.begin() + 3), alone);
  EXPECT_EQ(std::vector<float>(ignored.begin() + 3, ignored.end()), std::vector<float>(3, 0));
  EXPECT_EQ(logits_gradient(one, {-100}, {.ignore_label = -100}, loss_of_none), std::vector<float>(3, 0));
  EXPECT_EQ(loss_of_none, 0);
  Graph graph;
  const Value x = graph.input("x", Shape::matrix(2, 3)), labels = graph.input("labels", {2, 1, 1, 1}, DType::i32);
  EXPECT_THROW(cross_entropy(x, labels, {.ignore_label = 2}), Error);
}

#if defined(__SSE__) || defined(__aarch64__)
// What makes zeros of subnormal numbers, read or written.
#if defined(__SSE__)
constexpr unsigned flushing_bits = 0x8040;
unsigned float_mode() { return _mm_getcsr(); }
void set_float_mode(unsigned mode) { _mm_setcsr(mode); }
#else
constexpr std::uint64_t flushing_bits = 1 << 24;
std::uint64_t float_mode() {
  std::uint64_t mode;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
void set_float_mode(std::uint64_t mode) { asm volatile("msr fpcr, %0" ::"r"(mode)); }
#endif

TEST(FloatMode, OfTheProgramAroundChangesNoBit) {
  const Net net;
  TrainerOptions options = options_for(Precision::f32());
  options.schedule = Schedule::constant(1e-30f);
  options.optimizer = Sgd{.momentum = 0.5f, .weight_decay = 0};
  Trainer usual(net.loss, options), flushing(net.loss, options);
  const auto train = [&](Trainer& trainer) {
    for (unsigned i = 0; i < 4; ++i) step(trainer, Data(i, 1e-38f));
  };
  step(usual, Data(9)), step(flushing, Data(9));
  train(usual);
  const auto before = float_mode();
  set_float_mode(before | flushing_bits);
  train(flushing);
  EXPECT_EQ(float_mode() & flushing_bits, flushing_bits);  // it is the caller's again
  set_float_mode(before);
  EXPECT_EQ(lasting(usual), lasting(flushing));
}
#endif

}  // namespace
}  // namespace halftone
