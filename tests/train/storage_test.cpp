#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "halftone/halftone.hpp"
#include "tests/io/temporary_folder.hpp"

namespace halftone {
namespace {

constexpr std::int64_t batch = 8, classes = 3;

/// A convolution, an activation, a pool and a dense layer on random images.
struct Net {
  Graph graph;
  Value images = graph.input("images", {batch, 6, 6, 2}), labels = graph.input("labels", {batch, 1, 1, 1}, DType::i32);
  Value logits = dense(max_pool2d(relu(conv2d(images, 5, 3)), 2), classes);
  Value loss = cross_entropy(logits, labels);
};

struct Data {
  std::vector<float> images;
  std::vector<std::int32_t> labels;

  explicit Data(unsigned seed, std::int32_t first_label = 0) {
    std::mt19937 random(seed);
    for (std::int64_t i = 0; i < batch * 6 * 6 * 2; ++i)
      images.push_back(static_cast<float>(random() % 2048) / 512 - 2);
    for (std::int64_t i = 0; i < batch; ++i) labels.push_back(static_cast<std::int32_t>(i % classes));
    labels[0] = first_label;
  }
};

StepReport step(Trainer& trainer, const Data& data) {
  const std::span<const std::byte> inputs[] = {std::as_bytes(std::span(data.images)),
                                               std::as_bytes(std::span(data.labels))};
  return trainer.step(inputs);
}

TrainerOptions options_for(const Precision& precision, int threads = 1) {
  TrainerOptions options;
  options.device = cpu_device({.threads = threads});
  options.precision = precision;
  options.schedule = Schedule::constant(0.1f);
  return options;
}

/// All that lasts, byte for byte.
std::vector<std::byte> lasting(const Trainer& trainer) {
  std::vector<std::byte> all;
  const Parameters& p = trainer.parameters();
  for (const Store store : {Store::weights, Store::masters, Store::slot0, Store::slot1, Store::compensation,
                            Store::average, Store::statistics, Store::ranges})
    all.insert(all.end(), p.data(store), p.data(store) + p.bytes(store));
  return all;
}

/// Signs as weights under f32 masters, activations in 4 bits with a scale a block, gradients in 12 bits whose range
/// moves.
Precision hardest() {
  Precision precision = Precision::f32();
  precision.name = "hardest";
  precision.storage.weights = DType::sign;
  precision.storage.activations = Storage::blocks(DType::e2m1, 32);
  Storage moving(DType::i16, Rounding::stochastic);
  moving.width = 12;
  moving.scaling = Scaling::range;
  moving.exponent = -14;
  moving.noticed = true;
  moving.controller = OverflowRate{.interval = 2};
  precision.storage.activation_gradients = precision.storage.weight_gradients = moving;
  return precision;
}

std::vector<Precision> systems() {
  using Update = Precision::Update;
  return {Precision::bf16_pure(Update::nearest),
          Precision::bf16_pure(Update::stochastic),
          Precision::bf16_pure(Update::kahan),
          Precision::fixed(6, 10, Rounding::nearest),
          Precision::fixed(6, 10, Rounding::stochastic),
          Precision::fixed(3, 4, Rounding::stochastic),
          Precision::fixed(16, 16, Rounding::nearest),
          Precision::f16_pure(Update::stochastic),
          Precision::dynamic_fixed(10, 12),
          Precision::fp8(),
          Precision::fp8(Precision::Fp8Scaling::delayed),
          Precision::binary(),
          hardest()};
}

TEST(Storages, TrainingHasTheSameBitsForAnyThreadsAndAfterAResume) {
  const TemporaryFolder folder;
  for (const Precision& precision : systems()) {
    SCOPED_TRACE(precision.name);
    const Net net;
    Trainer one(net.loss, options_for(precision)), three(net.loss, options_for(precision, 3));
    for (unsigned i = 0; i < 6; ++i) {
      if (i == 3) one.save(folder / "half");
      EXPECT_EQ(step(one, Data(i)).loss, step(three, Data(i)).loss);
    }
    EXPECT_EQ(lasting(one), lasting(three));
    Trainer resumed(net.loss, options_for(precision, 2));
    resumed.load(folder / "half");
    for (unsigned i = 3; i < 6; ++i) step(resumed, Data(i));
    EXPECT_EQ(lasting(resumed), lasting(one));
    EXPECT_EQ(resumed.parameters().read_state().steps, 6);
  }
}

/// A step of 2^-10 and one of 2^-16: what a number becomes in a longer word is itself.
TEST(Storages, TrainingGoesOnInALongerWord) {
  const Net net;
  Trainer shorter(net.loss, options_for(Precision::fixed(6, 10, Rounding::stochastic))),
      longer(net.loss, options_for(Precision::fixed(6, 16, Rounding::stochastic)));
  for (unsigned i = 0; i < 3; ++i) step(shorter, Data(i));
  longer.take(shorter.parameters());
  const Parameters &from = shorter.parameters(), &to = longer.parameters();
  EXPECT_EQ(to.read_state().steps, 3);
  for (std::size_t i = 0; i < from.entries.size(); ++i)
    for (const Store store : {Store::weights, Store::slot0})
      EXPECT_EQ(to.view(store, to.entries[i]).read(), from.view(store, from.entries[i]).read());
  step(longer, Data(3));
  const auto on_the_shorter_grid = [](float x) { return std::ldexp(x, 10) == std::round(std::ldexp(x, 10)); };
  const auto weights = to.weight(to.find("conv1.weight")).read();
  EXPECT_FALSE(std::all_of(weights.begin(), weights.end(), on_the_shorter_grid));
  shorter.take(longer.parameters());  // and back, rounded to the nearest
  for (const float x : from.weight(from.find("conv1.weight")).read()) EXPECT_TRUE(on_the_shorter_grid(x));

  Graph other;
  const Value x = other.input("x", Shape::matrix(2, 3));
  Trainer stranger(mean_squared_error(dense(x, 4), dense(x, 4)), options_for(Precision::f32()));
  EXPECT_THROW(longer.take(stranger.parameters()), Error);
}

TEST(Storages, AnotherSeedRoundsOtherwise) {
  const Net net;
  TrainerOptions options = options_for(Precision::fixed(6, 10, Rounding::stochastic));
  Trainer first(net.loss, options);
  options.seed = 2;
  Trainer second(net.loss, options);
  for (auto& slot : first.parameters().entries) second.parameters().assign(slot, first.parameters().truth(slot).read());
  EXPECT_EQ(lasting(first), lasting(second));
  step(first, Data(1)), step(second, Data(1));
  EXPECT_NE(lasting(first), lasting(second));
}

TEST(Storages, AnEvaluationRoundsTheSameWayEachTime) {
  const Net net;
  Trainer trainer(net.loss, options_for(Precision::fixed(6, 6, Rounding::stochastic)));
  Parameters& parameters = trainer.parameters();
  const int keep[] = {net.logits.id()};
  const auto logits_now = [&] {
    const Plan plan(
        for_evaluation(net.graph, net.logits.id(), batch, trainer.options().precision, trainer.options().device),
        parameters, keep);
    plan.view(plan.graph()->inputs[0]).write(Data(5).images);
    plan.run();
    const auto once = plan.view(net.logits.id()).read();
    plan.run();
    EXPECT_EQ(plan.view(net.logits.id()).read(), once);
    return once;
  };
  const auto before = logits_now();
  StepState state = parameters.read_state();
  state.steps += 3;
  parameters.write_state(state);
  EXPECT_EQ(logits_now(), before);
}

TEST(Storages, EveryRoleIsStoredAsThePresetSays) {
  const Net net;
  const Precision precision = Precision::fixed(6, 10, Rounding::stochastic);
  const Trainer trainer(net.loss, options_for(precision));
  const Graph& graph = trainer.plan().graph();
  int counted[6] = {};
  for (const Node& node : graph->nodes)
    for (int id : node.outputs) {
      const ValueSpec& spec = graph.info(id).spec;
      ++counted[static_cast<int>(spec.role)];
      EXPECT_TRUE(spec.role == Role::exact || spec.storage == precision.storage.weights) << graph.info(id).name;
    }
  for (const Role role : {Role::activation, Role::activation_gradient, Role::weight, Role::weight_gradient})
    EXPECT_GT(counted[static_cast<int>(role)], 0) << name_of(role);
  for (const ParameterSlot& slot : trainer.parameters().entries) {
    EXPECT_EQ(slot.truth(), Store::weights);
    for (const Store store : {Store::weights, Store::gradients, Store::slot0})
      EXPECT_EQ(slot.in(store)->storage, precision.storage.weights) << slot.name << ", " << name_of(store);
  }
}

TEST(Storages, MemoryIsThatOfTheCodes) {
  const Net net;
  const auto memory = [&](const Precision& precision) { return Trainer(net.loss, options_for(precision)).memory(); };
  const auto bytes = [&](auto of_count) {
    std::size_t sum = 0;
    for (const auto& parameter : net.graph->parameters)
      sum += (of_count(net.graph.info(parameter.value).spec.shape.elements()) + 63) / 64 * 64;
    return sum;
  };
  const MemoryReport fixed = memory(Precision::fixed(6, 10, Rounding::stochastic));
  EXPECT_EQ(fixed.weights, bytes([](std::int64_t n) { return static_cast<std::size_t>(2 * n); }));
  EXPECT_EQ(fixed.masters, 0u);
  EXPECT_EQ(fixed.optimizer, fixed.weights);
  EXPECT_EQ(fixed.activations, memory(Precision::f16()).activations);
  EXPECT_EQ(memory(Precision::bf16_pure(Precision::Update::kahan)).optimizer, 2 * fixed.weights);
  const MemoryReport packed = memory(hardest());
  EXPECT_EQ(packed.weights, bytes([](std::int64_t n) { return static_cast<std::size_t>((n + 7) / 8); }));
  EXPECT_EQ(packed.masters, bytes([](std::int64_t n) { return static_cast<std::size_t>(4 * n); }));
}

/// Weights that start at 1 and lose 2^-11, a quarter of a bf16 step below 1, in each of `steps` steps.
std::vector<float> after_small_updates(const Precision& precision, int steps) {
  constexpr std::int64_t count = 512;
  Graph graph;
  const Value x = graph.input("x", Shape::matrix(1, count));
  const Value weight = graph.parameter("w", Shape::matrix(1, count), constant(1), 2);
  TrainerOptions options = options_for(precision);
  options.optimizer = Sgd{};
  options.schedule = Schedule::constant(1);
  Trainer trainer(dense(x, weight), options);
  const std::vector<float> gradient(count, 0x1p-11f);
  const std::span<const std::byte> inputs[] = {std::as_bytes(std::span(gradient))};
  for (int i = 0; i < steps; ++i) trainer.step(inputs);
  return trainer.parameters().truth(trainer.parameters().entries[0]).read();
}

TEST(PureBf16, NearestLosesSmallUpdatesKahanAndStochasticKeepThem) {
  constexpr int steps = 400;
  const double expected = 1 - steps * 0x1p-11;
  using Update = Precision::Update;
  for (const float w : after_small_updates(Precision::bf16_pure(Update::nearest), steps)) EXPECT_EQ(w, 1.0f);
  for (const float w : after_small_updates(Precision::f32(), steps)) EXPECT_EQ(w, expected);
  for (const float w : after_small_updates(Precision::bf16_pure(Update::kahan), steps))
    EXPECT_NEAR(w, expected, 0x1p-8);  // one bf16 step below 1
  double sum = 0;
  const auto stochastic = after_small_updates(Precision::bf16_pure(Update::stochastic), steps);
  for (const float w : stochastic) sum += w;
  // A step of 2^-8 is made with probability 1/8, so a weight's variance is at most steps 2^-16 7/64.
  const double deviation = std::sqrt(steps * 0x1p-16 * 7 / 64 / static_cast<double>(stochastic.size()));
  EXPECT_NEAR(sum / static_cast<double>(stochastic.size()), expected, 5 * deviation);
}

TEST(Storages, AnExceptionKeepsMastersForOneLayerAlone) {
  const Net net;
  const Precision precision =
      Precision::bf16_pure(Precision::Update::stochastic).except("dense1", Precision::bf16().storage);
  Trainer trainer(net.loss, options_for(precision));
  const Parameters& p = trainer.parameters();
  EXPECT_EQ(p.find("conv1.weight").truth(), Store::weights);
  EXPECT_EQ(p.find("dense1.weight").truth(), Store::masters);
  EXPECT_EQ(p.truth(p.find("dense1.weight")).spec.storage, Storage(DType::f32));
  EXPECT_EQ(p.view(Store::slot0, p.find("conv1.weight")).spec.storage, Storage(DType::bf16));
  EXPECT_EQ(p.view(Store::slot0, p.find("dense1.weight")).spec.storage, Storage(DType::f32));
  EXPECT_THROW(p.view(Store::masters, p.find("conv1.weight")), Error);
  for (unsigned i = 0; i < 3; ++i) EXPECT_FALSE(step(trainer, Data(i)).skipped);
}

TEST(Storages, SignsFollowTheirMastersAndBlocksTrain) {
  const Net net;
  Trainer trainer(net.loss, options_for(hardest()));
  const Parameters& p = trainer.parameters();
  std::vector<std::vector<float>> before;
  for (const auto& slot : p.entries) before.push_back(p.truth(slot).read());
  for (unsigned i = 0; i < 5; ++i) EXPECT_TRUE(std::isfinite(step(trainer, Data(i)).loss));
  for (std::size_t i = 0; i < p.entries.size(); ++i) {
    const auto masters = p.truth(p.entries[i]).read(), weights = p.weight(p.entries[i]).read();
    EXPECT_NE(masters, before[i]) << p.entries[i].name;
    for (std::size_t j = 0; j < masters.size(); ++j) EXPECT_EQ(weights[j], masters[j] >= 0 ? 1 : -1);
  }
}

/// What is stored through a range, and how it moves.
struct Ranges : testing::Test {
  Net net;

  static Precision moving(int exponent) {
    Precision precision = Precision::f32();
    Storage storage(DType::i16);
    storage.width = 10;
    storage.scaling = Scaling::range;
    storage.exponent = static_cast<std::int8_t>(exponent);
    storage.noticed = true;
    storage.controller = OverflowRate{.threshold = 0.001f, .interval = 2};
    precision.storage.activations = storage;
    return precision;
  }
  static float scale(const Trainer& trainer, const std::string& value) {
    const auto states = trainer.parameters().read_ranges();
    for (std::size_t i = 0; i < states.size(); ++i)
      if (trainer.parameters().ranges[i].value == value) return states[i].scale;
    return 0;
  }
};

TEST_F(Ranges, GrowWhereNumbersSaturateAndShrinkWhereNoneIsNearTheEnd) {
  Trainer narrow(net.loss, options_for(moving(-20))), wide(net.loss, options_for(moving(10)));
  for (unsigned i = 0; i < 6; ++i) {
    EXPECT_EQ(scale(narrow, "relu1"), std::ldexp(1.0f, -20 + static_cast<int>(i / 2))) << i;
    EXPECT_EQ(scale(wide, "relu1"), std::ldexp(1.0f, 10 - static_cast<int>(i / 2))) << i;
    step(narrow, Data(i)), step(wide, Data(i));
  }
}

/// Twice the images, or what is written over the first of them.
CustomOptions twice(float first = 0) {
  CustomOptions options{.name = "twice"};
  options.forward = [first](auto inputs, auto outputs) {
    for (std::size_t i = 0; i < outputs[0].values.size(); ++i) outputs[0].values[i] = 2 * inputs[0].values[i];
    if (first != 0) outputs[0].values[0] = first;
  };
  return options;
}

TEST_F(Ranges, MoveBehindBodiesOfTheUsersOwn) {
  Trainer trainer(cross_entropy(dense(custom({net.images}, twice()), classes), net.labels), options_for(moving(-20)));
  for (unsigned i = 0; i < 4; ++i) step(trainer, Data(i));
  EXPECT_EQ(scale(trainer, "twice1"), 0x1p-18f);
}

TEST(Custom, BodiesThatGiveBadNumbersAreNamed) {
  const Net net;
  Trainer trainer(cross_entropy(dense(custom({net.images}, twice(std::nanf(""))), classes), net.labels),
                  options_for(Precision::f16()));
  const StepReport report = step(trainer, Data(1));
  EXPECT_TRUE(report.skipped);
  EXPECT_NE(report.reason.find("twice"), std::string::npos) << report.reason;
  EXPECT_EQ(trainer.parameters().read_state().scale.scale, report.scale);
}

/// Also behind another that was bad before, and where f32 holds what the storage does not.
TEST(Custom, BadNumbersAreNotHiddenByOthers) {
  const auto report_of = [](float first, float second, const char* precision) {
    const Net net;
    CustomOptions a = twice(first), b = twice(second);
    a.name = "a", b.name = "b";
    Trainer trainer(cross_entropy(dense(custom({custom({net.images}, a)}, b), classes), net.labels),
                    options_for(precision_by_name(precision)));
    return step(trainer, Data(1));
  };
  const float bad = std::nanf("");
  EXPECT_TRUE(report_of(bad, bad, "fixed:8.8:nearest+a1=f32").skipped);
  EXPECT_TRUE(report_of(0, bad, "fixed:8.8:nearest+a1=f32").skipped);
  EXPECT_FALSE(report_of(0, 0, "fixed:8.8:nearest+a1=f32").skipped);
  const StepReport large = report_of(1e5f, 0, "f16");
  EXPECT_NE(large.reason.find("of a1"), std::string::npos) << large.reason;
}

TEST_F(Ranges, ASkippedStepLeavesNoTraceInThem) {
  Trainer trainer(net.loss, options_for(moving(-20)));
  step(trainer, Data(1));
  const auto before = lasting(trainer);
  EXPECT_TRUE(step(trainer, Data(2, 77)).skipped);  // a label out of range: the loss is NaN
  EXPECT_EQ(lasting(trainer), before);
  step(trainer, Data(3));
  EXPECT_EQ(scale(trainer, "relu1"), 0x1p-19f);
}

TEST_F(Ranges, WeightsAreWrittenAnewWhenTheirScaleMoves) {
  Storage storage(DType::i16);
  storage.scaling = Scaling::range;
  storage.exponent = -14;
  storage.noticed = true;
  storage.controller = OverflowRate{.interval = 1};
  Precision precision = Precision::f32();
  precision.storage.weights = precision.storage.update = storage;
  TrainerOptions options = options_for(precision);
  options.schedule = Schedule::constant(0);  // only the scale moves
  Trainer trainer(net.loss, options);
  const ParameterSlot& slot = trainer.parameters().find("conv1.weight");
  const auto before = trainer.parameters().weight(slot).read();
  step(trainer, Data(1));  // weights are first noticed in an update, so they move in the second
  EXPECT_EQ(scale(trainer, "conv1.weight"), 0x1p-14f);
  step(trainer, Data(2));
  const float moved = scale(trainer, "conv1.weight");
  EXPECT_EQ(moved, 0x1p-15f);  // no weight reaches half of 2
  EXPECT_EQ(trainer.parameters().weight(slot).read(), before);
}

}  // namespace
}  // namespace halftone
