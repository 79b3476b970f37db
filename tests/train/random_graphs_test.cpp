#include <gtest/gtest.h>

#include <random>

#include "halftone/graph/differentiate.hpp"
#include "halftone/halftone.hpp"
#include "halftone/train/pipeline.hpp"

// Random nets of views, shared values, parameters in two roles and losses made of losses: whatever memory a plan saves
// and whatever it fuses, no gradient may change by a bit.
namespace halftone {
namespace {

class RandomNet {
 public:
  explicit RandomNet(unsigned seed) : random_(seed), smooth_(seed % 2 == 0) {
    const Shape shape{2, 4, 4, 8};
    const Value x = graph.input("x", shape), target = graph.input("target", shape);
    filters_ = graph.parameter("filters", {8, 3, 3, 8}, uniform(0.2f), 4);
    factors_ = graph.parameter("factors", shape, uniform(1), 4);
    matrix_ = graph.parameter("matrix", Shape::matrix(8, 8), uniform(0.4f), 2);
    values_ = {conv2d(x, 8, 3)};
    for (std::size_t i = 0, count = 4 + draw(14); i < count; ++i) add_one();
    Value sum = values_.back();
    for (const Value& value : values_)
      if (draw(2)) sum = sum + value;
    loss = mean_squared_error(layer_norm(sum), target);
    for (const Value& other : losses_) loss = draw(2) ? loss + scale(other, 0.1f) : scale(other, 0.1f) + loss;
    for (auto& numbers : inputs) {
      numbers.resize(static_cast<std::size_t>(shape.elements()));
      for (float& number : numbers) number = static_cast<float>(static_cast<int>(draw(2001)) - 1000) / 700;
    }
  }

  bool smooth() const { return smooth_; }
  unsigned draw(unsigned below) { return static_cast<unsigned>(random_() % below); }

  Graph graph;
  Value loss;
  std::vector<std::vector<float>> inputs{2};

 private:
  Value some() { return values_[draw(static_cast<unsigned>(values_.size()))]; }

  void add_one() {
    const Value a = some(), b = some();
    switch (draw(17)) {
      case 0:
        return values_.push_back(a + b);
      case 1:
        return values_.push_back(smooth_ ? tanh(a) : relu(a));
      case 2:
        return values_.push_back(a * b);
      case 3:
        return values_.push_back(conv2d(a, 8, 3, {.groups = draw(2) ? 8 : 2}));
      case 4:
        return values_.push_back(scale(a, 0.5f));
      case 5:
        return values_.push_back(batch_norm(a));
      case 6:
        return values_.push_back(conv2d(a, filters_, {}));
      case 7:
        return values_.push_back(a + factors_);
      case 8:
        return values_.push_back(a * factors_);
      case 9:
        return values_.push_back(reshape(conv2d(reshape(a, {-1, 2, 8, 8}), filters_, {}), {-1, 4, 4, 8}));
      case 10:
        return values_.push_back(cast(a, DType::f32));
      case 11:
        return values_.push_back(conv2d(concat({a, b}), 8, 1));
      case 12:
        return values_.push_back(dropout(a, 0.3f));
      case 13:
        return values_.push_back(reshape(dense(reshape(a, {32, 1, 1, 8}), matrix_), {2, 4, 4, 8}));
      case 14:
        return values_.push_back(gelu(a));
      case 15:
        return values_.push_back(smooth_ ? silu(a + b) : hard_tanh(a + b));
      default:
        losses_.push_back(mean_squared_error(a, b));
        if (draw(2)) losses_.push_back(losses_.back());
    }
  }

  std::mt19937 random_;
  bool smooth_;
  Value filters_, factors_, matrix_;
  std::vector<Value> values_, losses_;
};

/// Loss and all gradients of the second of two runs, so that what the first one left behind would show.
std::vector<std::vector<float>> gradients(const RandomNet& net, const Graph& graph, const Device& device,
                                          bool keep_all) {
  std::vector<int> keep = {net.loss.id()};
  if (keep_all)
    for (const Node& node : graph->nodes)
      for (int id : node.outputs)
        if (graph.info(id).store == Store::none) keep.push_back(id);
  const Parameters parameters(graph, device, {});
  const Plan plan(graph, parameters, keep);
  for (int run = 0; run < 2; ++run) {
    for (std::size_t i = 0; i < 2; ++i) plan.view(graph->inputs[i]).write(net.inputs[i]);
    plan.run();
  }
  std::vector<std::vector<float>> result = {plan.view(net.loss.id()).read()};
  for (const auto& slot : parameters.entries)
    if (slot.trainable) result.push_back(parameters.gradient(slot).read());
  return result;
}

TEST(RandomGraphs, NeitherSharedMemoryNorFusionNorThreadsChangeAGradient) {
  const Device one = cpu_device({.threads = 1}), three = cpu_device({.threads = 3});
  for (unsigned seed = 0; seed < 80; ++seed) {
    RandomNet net(seed);
    for (Precision precision : {Precision::f32(), Precision::bf16(), Precision::f16()}) {
      SCOPED_TRACE(precision.name + " " + std::to_string(seed));
      precision.loss_scale = LossScale::none();
      if (net.draw(2)) precision = precision.except("conv1", RoleStorage::all(DType::f32));
      if (net.draw(2)) precision.storage.weight_gradients = DType::f32;
      if (net.draw(3) == 0) precision.storage.activation_gradients = DType::f32;
      const Graph fused = for_training(net.graph, net.loss.id(), {.device = one, .precision = precision});
      const auto expected = gradients(net, fused, one, false);
      ASSERT_EQ(gradients(net, fused, one, true), expected) << "memory";
      ASSERT_EQ(gradients(net, fused, three, false), expected) << "threads";
      if (precision.name != "f32") continue;  // else a fused activation is rounded once less
      Graph plain = net.graph.clone();
      differentiate(plain, plain.value(net.loss.id()));
      narrow(plain, precision);
      ASSERT_EQ(gradients(net, plain, one, true), expected) << "fusion";
    }
  }
}

TEST(RandomGraphs, GradientsAreDerivatives) {
  for (unsigned seed = 0; seed < 24; ++seed) {
    const RandomNet net(seed);
    if (!net.smooth()) continue;
    const GradientReport report =
        check_gradient(net.loss, net.inputs,
                       {.also = {graph_of(net.loss).value(net.graph->inputs[0])}, .directions = 2, .tolerance = 2e-2});
    EXPECT_TRUE(report.passed()) << seed << '\n' << report;
  }
}

}  // namespace
}  // namespace halftone
