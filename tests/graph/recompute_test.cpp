#include "halftone/graph/recompute.hpp"

#include <gtest/gtest.h>

#include "halftone/halftone.hpp"
#include "tests/data/noise.hpp"

namespace halftone {
namespace {

constexpr std::int64_t batch = 8;

Loader noise() { return Loader(std::make_shared<const Dataset>(test::noise(32, {1, 16, 16, 3})), {.batch = batch}); }

/// Blocks with all that has a state: batch norm, dropout, an activation whose slope needs its input, a view.
Value net(const Loader& loader, const std::vector<std::string>& scopes) {
  Graph g;
  const Inputs in = inputs(g, loader);
  Value x = relu(conv2d(in.images, 16, 3));
  for (const char* name : {"a", "b", "c"}) {
    const Scope scope(g, name);
    const Value y = gelu(batch_norm(conv2d(x, 16, 3, {.bias = false})));
    x = x + dropout(relu(batch_norm(conv2d(y, 16, 3, {.bias = false}))), 0.25f);
  }
  for (const std::string& scope : scopes) recompute(g, scope);
  return cross_entropy(dense(flatten(global_avg_pool(x)), 4), in.labels);
}

struct Outcome {
  std::vector<float> losses;
  std::vector<std::vector<std::byte>> lasting;
  std::size_t arena = 0;
  std::vector<double> noticed;
  int again = 0;
};

Outcome train(const std::string& precision, const std::vector<std::string>& scopes, int accumulate = 1) {
  const Loader loader = noise();
  Trainer trainer(
      net(loader, scopes),
      {.device = cpu_device({.threads = 2}), .precision = precision_by_name(precision), .accumulate = accumulate});
  Outcome outcome;
  for (int epoch = 0; epoch < 2; ++epoch)
    trainer.epoch(loader, [&](const StepReport& step) {
      outcome.losses.push_back(step.loss);
      return true;
    });
  const Parameters& p = trainer.parameters();
  for (const ParameterSlot& slot : p.entries) outcome.lasting.push_back(p.truth(slot).read_bytes());
  for (std::size_t i = 0; i < p.statistics.size(); ++i) outcome.lasting.push_back(p.statistic(i).read_bytes());
  for (const auto& tensor : trainer.numerics().tensors) outcome.noticed.push_back(static_cast<double>(tensor.numbers));
  outcome.arena = trainer.plan().arena_bytes();
  for (const auto& report : trainer.plan().kernels()) outcome.again += report.node.ends_with(".again");
  return outcome;
}

void expect_same(const Outcome& a, const Outcome& b, const std::string& what) {
  EXPECT_EQ(a.losses, b.losses) << what;
  EXPECT_EQ(a.lasting, b.lasting) << what;
  EXPECT_EQ(a.noticed, b.noticed) << what;
}

TEST(Recompute, HasTheSameBitsInLessMemory) {
  for (const char* precision : {"f32", "f16", "bf16_pure:stochastic", "fixed:6.10:stochastic", "fp8:current",
                                "fp8:delayed", "dynamic_fixed:16/24"}) {
    const Outcome kept = train(precision, {}), again = train(precision, {"a", "b", "c"});
    expect_same(kept, again, precision);
    EXPECT_EQ(kept.again, 0);
    EXPECT_GE(again.again, 3 * 4) << precision;
    EXPECT_LT(static_cast<double>(again.arena), 0.7 * static_cast<double>(kept.arena)) << precision;
  }
}

TEST(Recompute, WholeNetsNestedScopesAndMicroBatchesToo) {
  for (const int accumulate : {1, 2}) {
    const Outcome kept = train("f16", {}, accumulate);
    expect_same(kept, train("f16", {""}, accumulate), "all");
    expect_same(kept, train("f16", {"b", "b.conv1", "c.norm2"}, accumulate), "nested");
  }
}

TEST(Recompute, ComputesNothingThatNobodyNeeds) {
  const Loader loader = noise();
  Graph g;
  const Inputs in = inputs(g, loader);
  const Value x = relu(conv2d(in.images, 4, 3, {.name = "only"}));
  recompute(g, "only");  // its output is what the next layer takes, so it is kept
  Trainer trainer(cross_entropy(dense(x, 4), in.labels), {.device = cpu_device()});
  for (const auto& report : trainer.plan().kernels()) EXPECT_FALSE(report.node.ends_with(".again")) << report.node;
  EXPECT_THROW(recompute(g, "nowhere"), Error);
}

}  // namespace
}  // namespace halftone
