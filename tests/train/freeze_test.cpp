#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "halftone/halftone.hpp"
#include "tests/data/noise.hpp"

namespace halftone {
namespace {

namespace fs = std::filesystem;
using test::noise;

constexpr std::int64_t batch = 8;

/// A trunk of two convolutions with batch norm, and a head.
struct Net {
  Graph graph;
  Value features, logits, loss;
};

Net net_of(const Dataset& data) {
  Net net;
  const Inputs in = inputs(net.graph, data, batch);
  Value x = in.images;
  for (const char* name : {"stem", "body"}) {
    const Scope scope(net.graph, name);
    x = dropout(relu(batch_norm(conv2d(x, 8, 3))), 0.2f);
  }
  net.features = global_avg_pool(x);
  net.logits = dense(net.features, 4, {.name = "head"});
  net.loss = cross_entropy(net.logits, in.labels);
  return net;
}

TrainerOptions options_for(const Precision& precision, std::vector<std::string> frozen) {
  TrainerOptions options;
  options.device = cpu_device({.threads = 2});
  options.precision = precision;
  options.optimizer = Sgd{.momentum = 0.9f, .weight_decay = 0.01f};
  options.frozen = std::move(frozen);
  return options;
}

/// What a trainer keeps of the parameters and statistics in `scope`.
std::vector<float> numbers_in(const Trainer& trainer, const std::string& scope) {
  std::vector<float> all;
  const auto add = [&](const std::string& name, const TensorView& view) {
    const auto values = view.read();
    if (in_scope(name, scope)) all.insert(all.end(), values.begin(), values.end());
  };
  const Parameters& p = trainer.parameters();
  for (const auto& slot : p.entries) add(slot.name, p.truth(slot));
  for (std::size_t i = 0; i < p.statistics.size(); ++i) add(p.statistics[i].name, p.statistic(i));
  return all;
}

TEST(Freezing, KeepsParametersAndStatisticsAndTrainsTheRest) {
  const Dataset data = noise();
  const Net net = net_of(data);
  const Loader loader(std::make_shared<const Dataset>(data), {.batch = batch});
  for (const auto& precision : {Precision::f32(), Precision::f16(), Precision::bf16_pure(Precision::Update::kahan)}) {
    Trainer trainer(net.loss, options_for(precision, {"stem"})), free(net.loss, options_for(precision, {}));
    const auto stem = numbers_in(trainer, "stem"), body = numbers_in(trainer, "body");
    trainer.epoch(loader);
    free.epoch(loader);
    EXPECT_EQ(numbers_in(trainer, "stem"), stem) << precision.name;
    EXPECT_NE(numbers_in(trainer, "body"), body) << precision.name;
    EXPECT_NE(numbers_in(free, "stem"), stem) << "nothing is shown";
    const Parameters& p = trainer.parameters();
    const ParameterSlot& frozen = p.find("stem.conv1.weight");
    EXPECT_FALSE(frozen.trainable);
    for (const Store store : {Store::gradients, Store::slot0, Store::compensation})
      EXPECT_THROW(p.view(store, frozen), Error);
    EXPECT_LT(trainer.memory().gradients, free.memory().gradients);
  }
}

TEST(Freezing, ATrunkRunsAsInEvaluation) {
  const Dataset data = noise();
  const Net net = net_of(data);
  const Loader loader(std::make_shared<const Dataset>(data), {.batch = batch});
  const auto options = options_for(Precision::f32(), {"stem", "body"});
  Trainer trainer(net.loss, options);

  Graph graph;  // the head alone, on what evaluation makes of the images
  const Value features = graph.input("features", {batch, 1, 1, 8}),
              labels = graph.input("labels", {batch, 1, 1, 1}, DType::i32);
  const Value loss = cross_entropy(dense(features, 4, {.name = "head"}), labels);
  Trainer head(loss, options_for(Precision::f32(), {}));
  for (const auto& slot : head.parameters().entries)
    head.parameters().assign(slot, trainer.parameters().truth(trainer.parameters().find(slot.name)).read());
  Predictor predict(net.features, trainer);
  Epoch epoch = loader.epoch(0);
  while (const Batch* images = epoch.next()) {
    const std::vector<float> seen = predict(images->images);
    const std::span<const std::byte> given[] = {std::as_bytes(std::span(seen)),
                                                std::as_bytes(std::span(images->labels))};
    head.step(given);
    trainer.step(*images);
  }
  EXPECT_EQ(numbers_in(head, "head"), numbers_in(trainer, "head"));
}

TEST(Freezing, IsInCheckpointsAndAResumeMustAgree) {
  const Dataset data = noise();
  const Net net = net_of(data);
  const Loader loader(std::make_shared<const Dataset>(data), {.batch = batch});
  const fs::path folder = fs::temp_directory_path() / ("halftone-freeze-" + std::to_string(getpid()));
  const auto options = options_for(Precision::f16(), {"stem", "body.norm1"});
  Trainer whole(net.loss, options), first(net.loss, options);
  Trainer second(net.loss, options_for(Precision::f16(), {"body.norm1", "stem"}));
  whole.epoch(loader), whole.epoch(loader);
  first.epoch(loader);
  first.save(folder);
  second.load(folder);
  second.epoch(loader);
  EXPECT_EQ(numbers_in(whole, ""), numbers_in(second, ""));
  Trainer other(net.loss, options_for(Precision::f16(), {"stem"}));
  EXPECT_THROW(other.load(folder), Error);
  fs::remove_all(folder);
}

TEST(Freezing, LookaheadMovesNoStatisticsThatAreFrozen) {
  const Dataset data = noise();
  const Net net = net_of(data);
  TrainerOptions options = options_for(Precision::f16(), {"stem"});
  options.average_decay = 0.95f;
  options.lookahead = 1;
  options.schedule = Schedule::linear(0.1f, 40);
  Trainer trainer(net.loss, options);
  std::vector<float> odd(8);
  for (std::size_t i = 0; i < odd.size(); ++i) odd[i] = 0.3f + 0.1f * static_cast<float>(i);
  for (std::size_t i = 0; i < trainer.parameters().statistics.size(); ++i)
    trainer.parameters().assign_statistic(i, odd);
  const auto before = numbers_in(trainer, "stem"), others = numbers_in(trainer, "body");
  const Loader loader(std::make_shared<const Dataset>(data), {.batch = batch});
  for (int epoch = 0; epoch < 5; ++epoch) trainer.epoch(loader);
  EXPECT_EQ(numbers_in(trainer, "stem"), before);
  EXPECT_NE(numbers_in(trainer, "body"), others);
}

TEST(Freezing, TheOrderOfScopesMeansNothing) {
  const auto freeze = [](std::vector<std::string> scopes) {
    for (const auto& [name, text] : identity_of(options_for(Precision::f32(), std::move(scopes))).fixed)
      if (name == "freeze") return text;
    return std::string();
  };
  EXPECT_EQ(freeze({}), "none");
  EXPECT_EQ(freeze({"stem", "body.norm1"}), "body.norm1,stem");
  EXPECT_EQ(freeze({"body.norm1", "stem", "stem"}), "body.norm1,stem");
  EXPECT_NE(freeze({"body", "stem"}), freeze({"body.norm1", "stem"}));
}

TEST(Freezing, RefusesWhatCannotBe) {
  const Net net = net_of(noise());
  EXPECT_THROW(Trainer(net.loss, options_for(Precision::f32(), {"stern"})), Error);
  EXPECT_THROW(Trainer(net.loss, options_for(Precision::f32(), {"stem", "body", "head"})), Error);
  Graph graph = net.graph;
  EXPECT_THROW(freeze(graph, std::vector<std::string>{"stem", "stern"}), Error);
  for (const auto& parameter : graph->parameters) EXPECT_TRUE(parameter.trainable) << parameter.name;
}

TEST(Parameters, AnAbsentStoreIsAnError) {
  const Net net = net_of(noise());
  const Trainer trainer(net.loss, options_for(Precision::f32(), {}));
  const Parameters& p = trainer.parameters();
  EXPECT_THROW(p.view(Store::average, p.entries[0]), Error);
  EXPECT_THROW(p.statistic(0, Store::averaged_statistics), Error);
  EXPECT_THROW(p.statistic(0, Store::weights), Error);
  EXPECT_THROW(p.statistic(p.statistics.size()), Error);
}

}  // namespace
}  // namespace halftone
