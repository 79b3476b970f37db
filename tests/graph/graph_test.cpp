#include "halftone/graph/graph.hpp"

#include <gtest/gtest.h>

#include "halftone/graph/differentiate.hpp"
#include "halftone/halftone.hpp"

namespace halftone {
namespace {

/// The error that `f` ends with.
std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

struct Net {
  Graph graph;
  Value loss;
};

Net net() {
  Net result;
  const Value x = result.graph.input("x", {2, 1, 1, 3}), target = result.graph.input("target", {2, 1, 1, 2});
  result.loss = mean_squared_error(dense(x, 2), target);
  return result;
}

float loss_of(const Value& loss) {
  Trainer trainer(loss, {.device = cpu_device({.threads = 1})});
  const std::vector<float> x(6, 0.5f), target(4, 1);
  const std::span<const std::byte> inputs[] = {std::as_bytes(std::span(x)), std::as_bytes(std::span(target))};
  return trainer.step(inputs).loss;
}

TEST(Graph, AStructOfGraphAndValueMayBeMoved) {
  const float expected = loss_of(net().loss);
  std::vector<Net> nets;
  for (int i = 0; i < 5; ++i) nets.push_back(net());  // moved as the vector grows
  Net moved = std::move(nets[0]);
  EXPECT_EQ(graph_of(moved.loss), moved.graph);
  EXPECT_FALSE(graph_of(moved.loss) == nets[1].graph);
  EXPECT_EQ(loss_of(moved.loss), expected);
  EXPECT_EQ(loss_of(moved.loss + scale(moved.graph.value(moved.loss.id()), 1)), 2 * expected);
}

TEST(Graph, AValueOutlivesItsGraph) {
  Value loss, labels;
  {
    Graph graph;
    labels = graph.input("labels", {2, 1, 1, 1}, DType::i32);
    const Scope scope(graph, "inner");
    loss = net().loss;
  }
  EXPECT_EQ(labels.shape(), (Shape{2, 1, 1, 1}));
  EXPECT_EQ(graph_of(labels)->scope, "");
  EXPECT_EQ(graph_of(loss)->nodes.size(), 2u);
  EXPECT_EQ(loss_of(loss), loss_of(net().loss));
}

TEST(Graph, CopiesAreTheSameGraphAndClonesAreNot) {
  const Net original = net();
  Graph copy = original.graph, clone = original.graph.clone();
  EXPECT_EQ(copy, original.graph);
  EXPECT_FALSE(clone == original.graph);
  EXPECT_NE(clone.identity(), original.graph.identity());
  const std::size_t nodes = clone->nodes.size();
  scale(copy.value(original.loss.id()), 2);
  EXPECT_EQ(original.graph->nodes.size(), nodes + 1);
  EXPECT_EQ(clone->nodes.size(), nodes);
  EXPECT_EQ(clone.value(original.loss.id()).shape(), original.loss.shape());  // a number means the same in both
  EXPECT_EQ(clone.info(original.loss.id()).name, original.graph.info(original.loss.id()).name);
}

TEST(Graph, InputsThatANodeCannotTakeAreErrorsThatNameIt) {
  Graph g, other;
  const Value x = g.input("x", {2, 4, 4, 3}), stranger = other.input("x", {2, 4, 4, 3});
  const Scope scope(g, "stage1");
  const auto named = [&](const std::function<void()>& f, const std::string& text) {
    const std::string message = message_of(f);
    EXPECT_TRUE(message.starts_with("stage1." + text)) << message;
  };
  const auto add = [&](std::shared_ptr<const Op> op, const std::vector<Value>& inputs) {
    return [&g, op, inputs] { g.add_one(op, inputs); };
  };
  named(add(std::make_shared<Add>(), {x}), "add1: add takes 2 inputs, not 1");
  named(add(std::make_shared<Add>(), {x, x, x}), "add2: add takes 2 inputs, not 3");
  named(add(std::make_shared<Add>(), {}), "add3: add takes 2 inputs, not 0");
  named(add(std::make_shared<Concat>(), {}), "concat1: concat takes at least 1 inputs, not 0");
  named(add(std::make_shared<Dense>(), {x}), "dense1: dense takes 2 to 3 inputs, not 1");
  named(add(std::make_shared<Dense>(), {x, x, x, x}), "dense2: dense takes 2 to 3 inputs, not 4");
  named([&] { x + stranger; }, "add4: a value belongs to another graph");
  named([&] { x + Value{}; }, "add5: a value is missing");
  named([&] { g.add_writing(std::make_shared<Add>(), {x}, {x}); }, "add6: add takes 2 inputs, not 1");
  named([&] { g.add_writing(std::make_shared<Add>(), {x, x}, {stranger}); }, "add7: a value belongs to another graph");
  named([&] { g.add_writing(std::make_shared<Add>(), {x, x}, {Value{}}); }, "add8: a value is missing");
  EXPECT_TRUE(g->nodes.empty());
  x + x;  // the control
  EXPECT_EQ(g->nodes.size(), 1u);
}

TEST(Graph, RefusesMoreElementsThanCanBeCounted) {
  constexpr std::int64_t many = std::int64_t{1} << 32;
  Graph g;
  const Value x = g.input("x", {2, 1, 1, 3});
  for (const Shape& shape : {Shape{many, many, 1, 1}, Shape{many, many, many, many}, Shape{1, many, 1, many / 2},
                             Shape::vector(std::numeric_limits<std::int64_t>::max())}) {
    for (const std::string& message :
         {message_of([&] { g.input("huge", shape); }), message_of([&] { g.parameter("huge", shape, constant(0), 4); }),
          message_of([&] {
            custom({x}, {.name = "huge", .shape = [&](auto) { return shape; }, .forward = [](auto, auto) {}});
          })}) {
      EXPECT_NE(message.find("huge"), std::string::npos) << message;
      EXPECT_NE(message.find("elements"), std::string::npos) << message;
    }
  }
  EXPECT_THROW(g.statistic("s", Shape::vector(many * (many / 4)), 0), Error);
  scale(x, 2);
  EXPECT_THROW(with_batch(g, std::numeric_limits<std::int64_t>::max()), Error);
  EXPECT_THROW(with_batch(g, 0), Error);
  EXPECT_EQ(with_batch(g, many).info(x.id()).spec.shape, (Shape{many, 1, 1, 3}));  // the control
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
  for (const auto& p : g->parameters) names.push_back(p.name);
  EXPECT_EQ(names, (std::vector<std::string>{"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias",
                                             "block.conv1.weight", "block.conv1.bias"}));
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
  EXPECT_EQ(g->parameters.size(), 4u);
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
  named([&] { cross_entropy(dense(x, 2), labels, {.label_smoothing = 1}); }, "cross_entropy1");
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
      return {request.d_outputs[0] + graph_of(request.d_outputs[0]).input("other", {1, 1, 1, 5})};
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
  for (const Node& node : g->nodes)
    for (int id : node.outputs) {
      const ValueInfo& info = g.info(id);
      if (info.spec.shape == Shape{}) {
        EXPECT_EQ(to_string(info.spec.storage), "f32") << info.name;  // losses and their gradients
      } else if (info.spec.shape == Shape::matrix(4, 3)) {
        EXPECT_TRUE(info.spec.role == Role::weight || info.spec.role == Role::weight_gradient) << info.name;
      }
    }
}

}  // namespace
}  // namespace halftone
