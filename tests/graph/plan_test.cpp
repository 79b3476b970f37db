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
    for (std::size_t i = 0; i < g.values.size(); ++i)
      if (g.values[i].store == Store::none) everything.push_back(static_cast<int>(i));
    const int keep[] = {result.id};
    const Plan small(g, parameters, keep), large(g, parameters, everything);
    std::vector<float> x(2 * 4 * 4 * 8);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 13) * 0.1f - 0.6f;
    for (const Plan* plan : {&small, &large}) plan->view(g.inputs[0]).write(x), plan->run();
    EXPECT_EQ(small.view(result.id).read(), large.view(result.id).read());
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

TEST(Graph, ErrorsNameTheNodeByScope) {
  Graph g;
  const Value x = g.input("x", {2, 8, 8, 3});
  Scope scope(g, "stem");
  try {
    conv2d(x, 4, 11, {.padding = 0});
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("stem.conv1: the kernel 11x11 is larger"), std::string::npos)
        << error.what();
  }
  EXPECT_THROW(x + relu(g.input("y", {2, 8, 8, 4})), Error);
}

TEST(Graph, RefusesNothingAndEmptyExtents) {
  Graph g;
  EXPECT_THROW(relu(Value{}), Error);
  EXPECT_THROW(g.input("x", {0, 4, 4, 3}), Error);
  EXPECT_THROW(g.parameter("p", {4, 0, 1, 1}, constant(0), 4), Error);
}

TEST(Graph, CountsNamesWithinAScope) {
  Graph g;
  const Value x = g.input("x", {1, 8, 8, 3});
  conv2d(x, 4, 3), conv2d(x, 4, 3);
  {
    Scope scope(g, "block");
    conv2d(x, 4, 3);
  }
  std::vector<std::string> names;
  for (const auto& p : g.parameters) names.push_back(p.name);
  EXPECT_EQ(names, (std::vector<std::string>{"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias",
                                             "block.conv1.weight", "block.conv1.bias"}));
}

TEST(Fuse, JoinsActivationsAndChangesNoBit) {
  Graph g;
  const Value x = g.input("x", {2, 6, 6, 3});
  const Value y = relu(conv2d(x, 8, 3) + relu(conv2d(x, 8, 1)));
  const Device device = cpu_device({.threads = 1});
  Graph fused = g;
  EXPECT_EQ(fuse(fused, device), 2);
  const Parameters parameters(g, device, {.gradients = false});
  const int keep[] = {y.id};
  const Plan plain(g, parameters, keep), joined(fused, parameters, keep);
  std::vector<float> numbers(2 * 6 * 6 * 3);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i % 7) - 3;
  for (const Plan* plan : {&plain, &joined}) plan->view(g.inputs[0]).write(numbers), plan->run();
  EXPECT_EQ(plain.view(y.id).read(), joined.view(y.id).read());
  EXPECT_LT(joined.kernels().size(), plain.kernels().size());
}

TEST(Fuse, LeavesAValueAloneThatSomebodyElseReads) {
  Graph g;
  const Value u = conv2d(g.input("x", {1, 4, 4, 2}), 4, 3);
  relu(u) + u;
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

TEST(Graph, ChecksRanksAndExtents) {
  Graph g;
  EXPECT_THROW(g.parameter("w", {1, 2, 2, 1}, constant(0), 2), Error);
  EXPECT_THROW(g.parameter("w", {2, 1, 1, 1}, constant(0), 1), Error);
  EXPECT_THROW(g.statistic("s", {2, 1, 1, 3}, 0), Error);
  const Value x = g.input("x", {2, 4, 1, 1});
  EXPECT_THROW(reshape(x, {2, -2, -2, 1}), Error);
  EXPECT_THROW(custom({x}, {.shape = [](auto) { return Shape{0, 1, 1, 3}; }, .forward = [](auto, auto) {}}), Error);
}

TEST(Graph, AFailedLayerLeavesItsNamesFree) {
  Graph g;
  const Value x = g.input("x", {2, 8, 8, 3});
  EXPECT_THROW(conv2d(x, 4, 3, {.stride = 0, .name = "c"}), Error);
  EXPECT_THROW(conv2d(x, 4, 11, {.padding = 0, .name = "c"}), Error);
  conv2d(x, 4, 3, {.name = "c"});
  EXPECT_THROW(group_norm(x, 2, {.name = "n"}), Error);
  group_norm(x, 3, {.name = "n"});
  EXPECT_EQ(g.parameters.size(), 4u);
}

TEST(Graph, EveryErrorNamesItsNode) {
  Graph g;
  const Value x = g.input("x", {2, 8, 8, 3}), labels = g.input("labels", {2, 1, 1, 1}, DType::i32);
  const auto message = [](auto&& f) -> std::string {
    try {
      f();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  Scope scope(g, "stage3");
  const auto named = [&](auto&& f, const char* name) {
    const std::string text = message(f);
    EXPECT_TRUE(text.starts_with(std::string("stage3.") + name + ": ")) << text;
    EXPECT_EQ(text.find("stage3", 1), std::string::npos) << text;  // named once
  };
  named([&] { conv2d(x, 4, 3, {.stride = 0}); }, "conv1");
  named([&] { max_pool2d(x, 0); }, "max_pool2d1");
  named([&] { dropout(x, 1); }, "dropout1");
  named([&] { cross_entropy(dense(x, 2), labels, 1); }, "cross_entropy1");
  named(
      [&] {
        differentiate(
            g, custom({mean_squared_error(dense(x, 2), dense(x, 2))}, {.name = "mine", .forward = [](auto, auto) {}}));
      },
      "mine1");
  struct Wrong final : Op {
    std::string name() const override { return "wrong"; }
    std::vector<ValueSpec> infer(std::span<const ValueSpec> in) const override { return {in[0]}; }
    std::vector<Value> gradient(const GradientRequest& request) const override {
      return {request.d_outputs[0] + request.d_outputs[0].graph->input("other", {1, 1, 1, 5})};
    }
  };
  const Value odd = g.add_one(std::make_shared<Wrong>(), {dense(x, 2)});
  named([&] { differentiate(g, mean_squared_error(odd, dense(x, 2))); }, "wrong1.add1");
  const Value hits = accuracy(dense(x, 2), labels);
  named([&] { differentiate(g, hits); }, "accuracy1");
  EXPECT_NE(message([&] {
              Graph other;
              other.parameter("w", {4, 1, 1, 1}, numbers({1, 2}), 4);
              const Parameters memory(other, cpu_device({.threads = 1}), {});
            }).find("parameter w: 2 initial values"),
            std::string::npos);
}

TEST(Roles, FollowTheValuesThatGradientsBelongTo) {
  Graph g;
  const Value x = g.input("x", {2, 1, 1, 3}), target = g.input("t", {2, 1, 1, 4});
  const Value w = g.parameter("w", Shape::matrix(4, 3), constant(1), 2);
  const Value coarse = quantize(w, [](float v) { return v; }), halved = scale(w, 0.5f);
  EXPECT_EQ(coarse.spec().role, Role::weight);
  EXPECT_EQ(halved.spec().role, Role::weight);
  EXPECT_EQ((dense(x, coarse) * dense(x, halved)).spec().role, Role::activation);
  EXPECT_EQ(quantize(x, Grid::fixed(4, 4)).spec().role, Role::activation);
  const Value loss = scale(cast(mean_squared_error(dense(x, coarse) * dense(x, halved), target), DType::f32), 0.5f);
  differentiate(g, loss);
  narrow(g, Precision::f16());
  for (const Node& node : g.nodes)
    for (int id : node.outputs) {
      const ValueInfo& info = g.info(id);
      if (info.spec.shape == Shape{}) {
        EXPECT_EQ(info.spec.dtype, DType::f32) << info.name;  // losses and their gradients
      } else if (info.spec.shape == Shape::matrix(4, 3)) {
        EXPECT_TRUE(info.spec.role == Role::weight || info.spec.role == Role::weight_gradient) << info.name;
      }
    }
}

}  // namespace
}  // namespace halftone
