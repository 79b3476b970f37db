#include "halftone/graph/plan.hpp"

#include <gtest/gtest.h>

#include <random>

#include "halftone/graph/differentiate.hpp"
#include "halftone/halftone.hpp"

namespace halftone {
namespace {

bool overlap(const Plan::Placement& a, const Plan::Placement& b) {
  const bool together = a.first <= b.last && b.first <= a.last;
  return together && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}

TEST(PlaceIntervals, NoTwoLiveOnesOverlapAndTheArenaHoldsAll) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<Plan::Placement> intervals(1 + random() % 40);
    for (std::size_t i = 0; i < intervals.size(); ++i) {
      const int first = static_cast<int>(random() % 30);
      intervals[i] = {static_cast<int>(i), 0, 64 * (1 + random() % 50), first, first + static_cast<int>(random() % 10)};
    }
    const std::size_t total = place_intervals(intervals);
    std::size_t least = 0;  // the most bytes alive at one moment
    for (int t = 0; t < 40; ++t) {
      std::size_t alive = 0;
      for (const auto& i : intervals)
        if (i.first <= t && t <= i.last) alive += i.bytes;
      least = std::max(least, alive);
    }
    EXPECT_GE(total, least);
    EXPECT_LE(total, 2 * least);
    for (std::size_t i = 0; i < intervals.size(); ++i) {
      EXPECT_LE(intervals[i].offset + intervals[i].bytes, total);
      EXPECT_EQ(intervals[i].offset % 64, 0u);
      for (std::size_t j = 0; j < i; ++j) EXPECT_FALSE(overlap(intervals[i], intervals[j]));
    }
  }
}

/// A random chain of operations with branches, so that lifetimes differ.
Graph random_graph(unsigned seed, Value& result) {
  std::mt19937 random(seed);
  Graph g;
  std::vector<Value> values{scale(g.input("x", {2, 4, 4, 8}), 1.0f)};
  for (int i = 0; i < 20; ++i) {
    const Value a = values[random() % values.size()], b = values[random() % values.size()];
    switch (random() % 5) {
      case 0:
        values.push_back(a + b);
        break;
      case 1:
        values.push_back(relu(a));
        break;
      case 2:
        values.push_back(multiply(a, b));
        break;
      case 3:
        values.push_back(conv2d(a, 8, 3));
        break;
      default:
        values.push_back(scale(a, 0.5f));
    }
  }
  result = values.back();
  for (const Value& v : values) result = result + v;
  return g;
}

TEST(Plan, ReusesMemoryWithoutChangingAnyResult) {
  for (unsigned seed = 0; seed < 10; ++seed) {
    Value result;
    const Graph g = random_graph(seed, result);
    const Device device = cpu_device({.threads = 1});
    const Parameters parameters(g, device, {.gradients = false});
    std::vector<int> everything;  // a plan that keeps all values can reuse no memory
    for (std::size_t i = 0; i < g->values.size(); ++i)
      if (g->values[i].store == Store::none) everything.push_back(static_cast<int>(i));
    const int keep[] = {result.id()};
    const Plan small(g, parameters, keep), large(g, parameters, everything);
    std::vector<float> x(2 * 4 * 4 * 8);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 13) * 0.1f - 0.6f;
    for (const Plan* plan : {&small, &large}) plan->view(g->inputs[0]).write(x), plan->run();
    EXPECT_EQ(small.view(result.id()).read(), large.view(result.id()).read());
    EXPECT_LT(small.arena_bytes(), large.arena_bytes());
    for (std::size_t i = 0; i < small.placements().size(); ++i)
      for (std::size_t j = 0; j < i; ++j) EXPECT_FALSE(overlap(small.placements()[i], small.placements()[j]));
  }
}

TEST(Plan, NamesTheNodeThatHasNoKernel) {
  struct Unknown final : Op {
    std::string name() const override { return "unheard_of"; }
    std::vector<ValueSpec> infer(std::span<const ValueSpec> in) const override { return {in[0]}; }
  };
  Graph g;
  const Value x = g.input("x", {1, 1, 1, 4});
  Scope scope(g, "stage2");
  g.add_one(std::make_shared<Unknown>(), {x});
  const Parameters parameters(g, cpu_device({.threads = 1}), {});
  try {
    const Plan plan(g, parameters);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("stage2.unheard_of1"), std::string::npos) << error.what();
  }
}

// A plan works in its parameters' memory: they must be somebody's who keeps them.
static_assert(std::is_constructible_v<Plan, const Graph&, const Parameters&>);
static_assert(std::is_constructible_v<Plan, const Graph&, Parameters&, std::span<const int>>);
static_assert(!std::is_constructible_v<Plan, const Graph&, Parameters>);
static_assert(!std::is_constructible_v<Plan, const Graph&, Parameters, std::span<const int>>);
static_assert(!std::is_constructible_v<Plan, const Graph&, const Parameters&&>);

TEST(Plan, HasAGraphOfItsOwn) {
  Graph g;
  const Value x = g.input("x", {1, 1, 1, 4}), y = scale(x, 2);
  const Parameters parameters(g, cpu_device({.threads = 1}), {});
  const int keep[] = {y.id()};
  const Plan plan(g, parameters, keep);
  g->nodes.clear();
  EXPECT_FALSE(plan.graph() == g);
  plan.view(x.id()).write(std::vector<float>{1, 2, 3, 4});
  plan.run();
  EXPECT_EQ(plan.view(y.id()).read(), (std::vector<float>{2, 4, 6, 8}));
}

TEST(Plan, TrainsOrEvaluatesWhatDiffersInBoth) {
  Graph g;
  const Value x = g.input("x", {4, 1, 1, 4}), y = dropout(batch_norm(x), 0.5f), loss = mean_squared_error(y, x);
  const Device device = cpu_device({.threads = 1});
  const Parameters parameters(g, device, {.gradients = false});
  try {
    const Plan plan(g, parameters);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("norm1: it would run as in training"), std::string::npos) << error.what();
  }
  const int outputs[] = {y.id()};
  const Plan evaluation(for_inference(g, outputs), parameters, outputs);
  differentiate(g, loss);
  const Parameters trained(g, device, {});
  const Plan training(g, trained);
}

/// A user's own, which shares nothing with the library's `Scale` but the name.
struct Namesake : Op {
  std::string name() const override { return "scale"; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> in) const override { return {in[0]}; }
};

TEST(Plan, AnOperationOfTheSameNameGetsNoKernelOfAnothers) {
  struct WithKernel final : Namesake {
    Launch lower(const Request&) const override {
      return {[](const Arguments& a) { *a.out<float>(0) = *a.in<float>(0) + 40; }};
    }
  };
  Graph g;
  const Value x = g.input("x", {1, 1, 1, 1});
  const Parameters parameters(g, cpu_device({.threads = 1}), {});
  const ValueSpec spec = x.spec();
  EXPECT_TRUE(has_kernel({Scale(2), {&spec, 1}, {&spec, 1}, parameters.device()}));  // the control
  EXPECT_FALSE(has_kernel({Namesake(), {&spec, 1}, {&spec, 1}, parameters.device()}));
  Graph without = g.clone();
  without.add_one(std::make_shared<Namesake>(), {without.value(x.id())});
  try {
    const Plan plan(without, parameters);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("scale1: no kernel"), std::string::npos) << error.what();
  }
  const Value y = g.add_one(std::make_shared<WithKernel>(), {x});
  const int keep[] = {y.id()};
  const Plan plan(g, parameters, keep);
  EXPECT_EQ(plan.kernels().at(0).kernel, "scale/own");
  plan.view(x.id()).write(std::vector<float>{2});
  plan.run();
  EXPECT_EQ(plan.view(y.id()).read()[0], 42);
}

TEST(Fuse, JoinsActivationsAndChangesNoBit) {
  Graph g;
  const Value x = g.input("x", {2, 6, 6, 3});
  const Value y = relu(conv2d(x, 8, 3) + relu(conv2d(x, 8, 1)));
  const Device device = cpu_device({.threads = 1});
  Graph fused = g.clone();
  EXPECT_EQ(fuse(fused, device), 2);
  const Parameters parameters(g, device, {.gradients = false});
  const int keep[] = {y.id()};
  const Plan plain(g, parameters, keep), joined(fused, parameters, keep);
  std::vector<float> numbers(2 * 6 * 6 * 3);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i % 7) - 3;
  for (const Plan* plan : {&plain, &joined}) plan->view(g->inputs[0]).write(numbers), plan->run();
  EXPECT_EQ(plain.view(y.id()).read(), joined.view(y.id()).read());
  EXPECT_LT(joined.kernels().size(), plain.kernels().size());
}

/// Checks that the last node of `g`, the slope of an activation, is joined to the node before it and gives the same
/// bits, everything stored as `type` and few inputs positive; returns whether the slope changed any number.
bool slope_is_joined(Graph& g, DType type) {
  for (auto& value : g->values) value.spec.storage = type;
  const int slope = g->nodes.back().outputs[0], before = g->nodes.back().inputs[0];
  const Device device = cpu_device({.threads = 1});
  Graph fused = g.clone();
  EXPECT_EQ(fuse(fused, device), 1);
  const Parameters parameters(g, device, {.gradients = false});
  const int keep[] = {before, slope}, kept[] = {slope};
  const Plan plain(g, parameters, keep), joined(fused, parameters, kept);
  EXPECT_EQ(joined.kernels().size() + 1, plain.kernels().size());
  for (const Plan* plan : {&plain, &joined}) {
    for (std::size_t i = 0; i < g->inputs.size(); ++i) {
      std::vector<float> numbers(static_cast<std::size_t>(g->values[at(g->inputs[i])].spec.shape.elements()));
      for (std::size_t j = 0; j < numbers.size(); ++j)
        numbers[j] = (static_cast<float>((j * (2 * i + 3)) % 11) - 8) / static_cast<float>(3 + i);
      plan->view(g->inputs[i]).write(numbers);
    }
    plan->run();
  }
  EXPECT_EQ(plain.view(slope).read(), joined.view(slope).read());
  return plain.view(slope).read() != plain.view(before).read();
}

TEST(Fuse, JoinsASumToTheSlopeOfAnActivationAndChangesNoBit) {
  for (const DType type : {DType::f32, DType::f16})
    for (const bool also_a_term : {false, true}) {
      Graph g;
      const auto input = [&](const char* name) { return g.input(name, {2, 3, 5, 7}); };
      const Value a = input("a"), b = input("b"), y = also_a_term ? b : input("y");
      g.add_one(std::make_shared<ActivationGradient>(Relu()), {a + b, y});
      EXPECT_TRUE(slope_is_joined(g, type));
    }
}

TEST(Fuse, JoinsTheSlopeOfAReluToThePoolBehindItAndChangesNoBit) {
  for (const DType type : {DType::f32, DType::f16})
    for (const int stride : {2, 1}) {
      SCOPED_TRACE(std::string(name_of(type)) + " " + std::to_string(stride));
      const PoolAttributes pool{2, stride, 0};
      Graph g;
      const Value x = g.input("x", {2, 6, 6, 5});
      const Value d = g.input("d", MaxPool2d(pool).infer(std::vector<ValueSpec>{{x.shape()}})[0].shape);
      g.add_one(std::make_shared<ActivationGradient>(Relu()),
                {g.add_one(std::make_shared<MaxPool2dGradient>(pool), {d, x}), x});
      EXPECT_TRUE(slope_is_joined(g, type));
    }
}

TEST(Fuse, LeavesASlopeAloneThatAPoolCannotTake) {
  for (const bool other_activation : {false, true}) {
    Graph g;
    const Value x = g.input("x", {1, 4, 4, 2}), other = g.input("z", {1, 4, 4, 2}), d_y = g.input("d", {1, 2, 2, 2});
    const Value d = g.add_one(std::make_shared<MaxPool2dGradient>(PoolAttributes{2, 2, 0}), {d_y, x});
    g.add_one(std::make_shared<ActivationGradient>(other_activation ? Activation(Relu6()) : Activation(Relu())),
              {d, other_activation ? x : other});
    EXPECT_EQ(fuse(g, cpu_device({.threads = 1})), 0);
  }
}

TEST(Fuse, LeavesAValueAloneThatSomebodyElseReads) {
  Graph g;
  const Value u = conv2d(g.input("x", {1, 4, 4, 2}), 4, 3);
  relu(u) + u;
  EXPECT_EQ(fuse(g, cpu_device({.threads = 1})), 0);
}

TEST(Fuse, LeavesASumAloneThatIsStoredOtherwiseThanTheSlope) {
  Graph g;
  const Value a = g.input("a", {1, 1, 1, 4}), d = g.add_one(std::make_shared<Add>(), {a, a});
  g->values[at(d.id())].spec.storage = Storage::fixed(4, 4);
  g.add_one(std::make_shared<ActivationGradient>(Relu()), {d, a});
  EXPECT_EQ(fuse(g, cpu_device({.threads = 1})), 0);
}

TEST(Fuse, ComesAfterDifferentiate) {
  Graph g;
  const Value loss = mean_squared_error(relu(dense(g.input("x", {2, 1, 1, 3}), 4)), g.input("t", {2, 1, 1, 4}));
  fuse(g, cpu_device({.threads = 1}));
  try {
    differentiate(g, loss);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("dense1: an activation is joined to it"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace halftone
