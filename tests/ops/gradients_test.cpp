#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <random>
#include <sstream>

#include "halftone/graph/differentiate.hpp"
#include "halftone/graph/plan.hpp"
#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/custom.hpp"
#include "halftone/ops/dense.hpp"
#include "halftone/ops/initializers.hpp"
#include "halftone/ops/loss.hpp"
#include "halftone/ops/norm.hpp"
#include "halftone/ops/pointwise.hpp"
#include "halftone/ops/pool2d.hpp"
#include "halftone/ops/quantize.hpp"
#include "halftone/ops/softmax.hpp"
#include "halftone/ops/spatial.hpp"
#include "halftone/train/check_gradient.hpp"

namespace halftone {
namespace {

std::vector<float> random_values(std::int64_t count, unsigned seed, float lowest = -1, float highest = 1) {
  std::mt19937 random(seed);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& x : values) x = lowest + (highest - lowest) * static_cast<float>(random() >> 8) * 0x1p-24f;
  return values;
}

/// Numbers none of which is within 0.1 of another, of 0 or of +-1, so that no step meets a kink.
std::vector<float> separate_values(std::int64_t count, unsigned seed) {
  std::vector<float> values;
  for (std::int64_t i = 0; i < count; ++i)
    values.push_back((0.15f + 0.2f * static_cast<float>(i / 2)) * (i % 2 ? -1.0f : 1.0f));
  std::shuffle(values.begin(), values.end(), std::mt19937(seed));
  return values;
}

const Device device = cpu_device({.threads = 1});  // nothing here is large enough for two

using Layer = std::function<Value(Value)>;

/// Checks the gradients of mean((layer(x) - target)^2) with respect to x and all parameters, which are random numbers.
GradientReport check_layer(const Layer& layer, Shape shape, const std::vector<float>& x_values,
                           double tolerance = 1e-3) {
  Graph g;
  const Value x = g.input("x", shape);
  const Value y = layer(x);
  const Value target = g.input("target", y.shape());
  for (auto& parameter : g->parameters) parameter.initializer = uniform(1);
  const Value loss = mean_squared_error(y, target);
  const auto report = check_gradient(loss, {x_values, random_values(y.shape().elements(), 2)},
                                     {.also = {x}, .tolerance = tolerance, .device = device});
  std::ostringstream text;
  text << report;
  EXPECT_TRUE(report.passed()) << text.str();
  EXPECT_EQ(report.tensors.size(), g->parameters.size() + 1);
  for (const auto& tensor : report.tensors)
    EXPECT_LT(tensor.noise, 0.02 * std::abs(tensor.analytic)) << "this shows nothing: " << text.str();
  return report;
}
GradientReport check_layer(const Layer& layer, Shape shape) {
  return check_layer(layer, shape, random_values(shape.elements(), 1));
}

TEST(Gradients, Conv2d) {
  const Conv2dOptions all[] = {{},
                               {.stride = 2},
                               {.stride = {2, 1}, .padding = Extent(0, 1)},
                               {.padding = Extent(2)},
                               {.dilation = 2},
                               {.dilation = {2, 1}, .groups = 2},
                               {.stride = 2, .groups = 4, .bias = false}};
  for (const auto& options : all) check_layer([&](Value x) { return conv2d(x, 8, 3, options); }, {2, 7, 6, 4});
  check_layer([](Value x) { return conv2d(x, 5, 1); }, {2, 3, 4, 3});
  check_layer([](Value x) { return conv2d(x, 4, Extent(5, 2), {.padding = Extent(1, 0)}); }, {1, 6, 5, 1});
  check_layer([](Value x) { return conv2d(x, 33, 3); }, {2, 5, 5, 17});
  check_layer([](Value x) { return conv2d(x, 3, Extent(4, 2)); }, {2, 5, 6, 2});
}

TEST(Gradients, Dense) {
  check_layer([](Value x) { return dense(x, 7); }, {3, 2, 2, 5});
  check_layer([](Value x) { return dense(x, 1, {.bias = false}); }, {5, 1, 1, 9});
}

TEST(Gradients, Pools) {
  const auto separate = [](const Layer& layer, Shape shape) {
    check_layer(layer, shape, separate_values(shape.elements(), 1));
  };
  for (const auto& options :
       {PoolOptions{}, PoolOptions{.stride = Extent(1)}, PoolOptions{.stride = Extent(2, 3), .padding = 1},
        PoolOptions{.stride = Extent(2), .padding = 1, .ceil_mode = true, .count_include_pad = true}}) {
    separate([&](Value x) { return max_pool2d(x, 3, options); }, {2, 7, 6, 3});
    check_layer([&](Value x) { return avg_pool2d(x, 3, options); }, {2, 7, 6, 3});
  }
  separate(global_max_pool, {3, 3, 2, 4});
  check_layer(global_avg_pool, {3, 3, 2, 4});
}

TEST(Gradients, Norms) {
  check_layer([](Value x) { return batch_norm(x); }, {4, 3, 2, 5});
  check_layer([](Value x) { return tanh(batch_norm(x)); }, {4, 3, 3, 16});
  check_layer([](Value x) { return layer_norm(x); }, {3, 2, 2, 12});
  check_layer([](Value x) { return group_norm(x, 3); }, {2, 3, 3, 12});
}

TEST(Gradients, BatchNormByRunningStatistics) {
  const Layer layer = [](Value x) {
    Graph g = graph_of(x);
    std::vector<Value> inputs = {x};
    for (const float number : {1.5f, -0.25f, 0.5f, 2.0f})
      inputs.push_back(g.statistic(fmt::format("s{}", inputs.size()), Shape::vector(5), number));
    return g.add_one(std::make_shared<BatchNormInference>(1e-5f), inputs);
  };
  check_layer(layer, {4, 3, 2, 5});
}

TEST(Gradients, Channels) {
  check_layer([](Value x) { return concat({slice(x, 0, 2), slice(x, 1, 3), slice(x, 3, 2)}); }, {2, 3, 4, 5});
}

TEST(Gradients, Spatial) {
  check_layer([](Value x) { return pad2d(x, {1, 2, 0, -1}); }, {2, 3, 4, 3});
  for (const Interpolation way : {Interpolation::nearest, Interpolation::bilinear})
    check_layer([&](Value x) { return upsample2d(x, {2, 3}, way); }, {2, 3, 2, 3});
  check_layer([](Value x) { return scale_channels(x, sigmoid(dense(global_avg_pool(x), 6))); }, {2, 3, 4, 6});
  check_layer([](Value x) { return add_channels(x, graph_of(x).parameter("b", Shape::vector(3), constant(0), 1)); },
              {2, 3, 4, 3});
}

TEST(Gradients, ConvTranspose2d) {
  const ConvTranspose2dOptions all[] = {{},
                                        {.stride = 2, .padding = 1, .output_padding = 1},
                                        {.stride = {2, 1}, .dilation = {1, 2}, .bias = false},
                                        {.output_padding = 1, .dilation = 2},
                                        {.stride = 2, .groups = 2}};
  for (const auto& options : all)
    check_layer([&](Value x) { return conv_transpose2d(x, 6, 3, options); }, {2, 4, 3, 4});
  check_layer([](Value x) { return conv_transpose2d(x, 5, 2, {.stride = 2}); }, {1, 3, 3, 8});
}

/// Each value of the backward pass is stored as gradients are, those within one operation's too.
TEST(Gradients, HaveTheRoleOfOne) {
  Graph g;
  const Value x = g.input("x", {2, 4, 3, 4});
  const Value y = conv_transpose2d(softmax(conv2d(x, 4, 3)), 6, 3, {.output_padding = 1, .dilation = 2});
  const Value loss = mean_squared_error(y, g.input("target", y.shape()));
  const std::size_t forward = g->values.size();
  differentiate(g, loss);
  EXPECT_GT(g->values.size(), forward + 5);
  for (std::size_t i = forward; i < g->values.size(); ++i)
    EXPECT_NE(g->values[i].spec.role, Role::activation) << g->values[i].name;
}

TEST(Gradients, Softmax) {
  check_layer(softmax, {3, 1, 1, 5});
  check_layer([](Value x) { return softmax(conv2d(x, 4, 3)); }, {2, 3, 2, 3});
}

template <class... F>
void check_activations(TypeList<F...>) {
  const auto check = [](auto f) {
    SCOPED_TRACE(f.name);
    check_layer([&](Value x) { return activate(x, f); }, {2, 2, 3, 2}, separate_values(24, 1));
    check_layer([&](Value x) { return activate(scale(x, 0.5f) + x, f); }, {2, 2, 3, 2}, separate_values(24, 1));
    check_layer([&](Value x) { return activate(dense(x, 24), f); }, {2, 1, 1, 3}, random_values(6, 1), 1e-2);
  };
  (check(F{}), ...);
}

TEST(Gradients, Activations) { check_activations(Activations{}); }

TEST(Gradients, Pointwise) {
  const Shape shape{2, 3, 2, 4};
  const auto branch = [](Value x) { return conv2d(x, 4, 1); };
  check_layer([](Value x) { return scale(x, -1.5f); }, shape);
  check_layer([&](Value x) { return x + branch(x); }, shape);
  check_layer([](Value x) { return x + x; }, shape);
  check_layer([&](Value x) { return x * branch(x); }, shape);
  check_layer([](Value x) { return x * x; }, shape);
  check_layer([&](Value x) { return concat({x, branch(x), x}); }, shape);
  check_layer([](Value x) { return dropout(x, 0.4f); }, shape);
  check_layer([](Value x) { return cast(x, DType::f32); }, shape);
  check_layer([](Value x) { return flatten(tanh(x)); }, shape);
  check_layer([](Value x) { return conv2d(reshape(x, {-1, 2, 4, 3}), 2, 3); }, shape);
}

TEST(Gradients, Losses) {
  for (float smoothing : {0.0f, 0.2f}) {
    Graph g;
    const Value x = g.input("x", {6, 1, 1, 5}), labels = g.input("labels", {6, 1, 1, 1}, DType::i32);
    EXPECT_TRUE(check_gradient(cross_entropy(dense(x, 4), labels, {.label_smoothing = smoothing}),
                               {random_values(30, 1), {0, 3, 1, 2, 2, 0}},
                               {.also = {x}, .tolerance = 1e-3, .device = device})
                    .passed());
  }
  Graph weighted, binary;
  const Value logits = weighted.input("x", {6, 1, 1, 5}), labels = weighted.input("labels", {6, 1, 1, 1}, DType::i32);
  EXPECT_TRUE(check_gradient(
                  cross_entropy(logits, labels, {.label_smoothing = 0.1f, .class_weights = {1, 2, 3, 0.5f, 4}}),
                  {random_values(30, 1), {0, 3, 1, 2, 2, 0}}, {.also = {logits}, .tolerance = 1e-3, .device = device})
                  .passed());
  const Value z = binary.input("z", {6, 1, 1, 5}), t = binary.input("t", {6, 1, 1, 5});
  EXPECT_TRUE(check_gradient(binary_cross_entropy(z, t), {random_values(30, 1), random_values(30, 2, 0, 1)},
                             {.also = {z}, .tolerance = 1e-3, .device = device})
                  .passed());
  Graph g;
  const Value x = g.input("x", {6, 1, 1, 5}), target = g.input("target", {6, 1, 1, 5});
  EXPECT_TRUE(check_gradient(mean_squared_error(x, target), {random_values(30, 1), random_values(30, 2)},
                             {.also = {x, target}, .tolerance = 1e-3, .device = device})
                  .passed());
}

/// x^3 with `factor` x^2 as its slope.
Value cube(Value x, float factor) {
  CustomOptions options{.name = "cube"};
  options.forward = [](std::span<const FloatTensor> in, std::span<const FloatTensor> out) {
    for (std::size_t i = 0; i < in[0].values.size(); ++i)
      out[0].values[i] = in[0].values[i] * in[0].values[i] * in[0].values[i];
  };
  options.backward = [factor](std::span<const FloatTensor> in, std::span<const FloatTensor> out) {
    for (std::size_t i = 0; i < in[0].values.size(); ++i)
      out[0].values[i] = factor * in[0].values[i] * in[0].values[i] * in[2].values[i];
  };
  return custom({x}, options);
}

TEST(Gradients, Custom) {
  check_layer([](Value x) { return cube(x, 3); }, {2, 2, 2, 3});
}

TEST(CheckGradient, ReportsAWrongBackwardAndOnlyWhatItReaches) {
  Graph g;
  const Value x = g.input("x", {4, 1, 1, 6}), target = g.input("target", {4, 1, 1, 2});
  const Value y = dense(cube(dense(x, 5, {.name = "before"}), 2.9f), 2, {.name = "after"});
  const auto report = check_gradient(mean_squared_error(y, target), {random_values(24, 1), random_values(8, 2)},
                                     {.also = {x}, .device = device});
  EXPECT_FALSE(report.passed());
  for (const auto& tensor : report.tensors)
    EXPECT_EQ(tensor.relative_error > report.tolerance, !tensor.name.starts_with("after")) << tensor.name;
  std::ostringstream text;
  text << report;
  EXPECT_NE(text.str().find("before.weight"), std::string::npos);
}

TEST(BatchNorm, TrainingNeedsTwoValuesAChannel) {
  Graph g;
  const Value one = g.input("one", {1, 1, 1, 6}), two = g.input("two", {2, 1, 1, 6});
  const Value target = g.input("target", {1, 1, 1, 6}), targets = g.input("targets", {2, 1, 1, 6});
  const Value bad = mean_squared_error(batch_norm(one, {.name = "lonely"}), target),
              good = mean_squared_error(batch_norm(two), targets);
  Graph differentiated = g.clone(), committed = g.clone();
  for (const auto& wrong : {std::function([&] { differentiate(differentiated, differentiated.value(bad.id())); }),
                            std::function([&] { add_commits(committed); })})
    try {
      wrong();
      ADD_FAILURE() << "one value a channel is taken";
    } catch (const Error& error) {
      EXPECT_TRUE(std::string(error.what()).starts_with("lonely: in training [1, 1, 1, 6]")) << error.what();
    }
  differentiate(g, good);
}

TEST(CheckGradient, RefusesInputsThatDoNotFit) {
  Graph g;
  const Value x = g.input("x", {4, 1, 1, 6}), target = g.input("target", {4, 1, 1, 2});
  const Value loss = mean_squared_error(dense(x, 2), target);
  EXPECT_THROW(check_gradient(loss, {random_values(24, 1)}), Error);
  EXPECT_THROW(check_gradient(loss, {random_values(24, 1), random_values(7, 1)}), Error);
}

TEST(Gradients, WholeNet) {
  Graph g;
  const Value images = g.input("images", {4, 8, 8, 3}), labels = g.input("labels", {4, 1, 1, 1}, DType::i32);
  const auto block = [](Value x, int channels, int stride) {
    const Value y = batch_norm(conv2d(silu(batch_norm(conv2d(x, channels, 3, {.stride = stride}))), channels, 3));
    return silu(y + batch_norm(conv2d(x, channels, 1, {.stride = stride})));
  };
  const Value logits = dense(global_avg_pool(block(block(images, 8, 1), 12, 2)), 10);
  const auto report = check_gradient(cross_entropy(logits, labels, {.label_smoothing = 0.1f}),
                                     {random_values(4 * 64 * 3, 1), {3, 9, 0, 3}},
                                     {.also = {images}, .directions = 2, .tolerance = 5e-3, .device = device});
  std::ostringstream text;
  text << report;
  EXPECT_TRUE(report.passed()) << text.str();
}

/// One plan of a differentiated graph, to be run by hand.
struct Runner {
  Runner(Value loss, const std::vector<Value>& also) : graph(graph_of(loss).clone()) {
    std::vector<Value> wanted;
    for (const Value& value : also) wanted.push_back(graph.value(value.id()));
    d_also = differentiate(graph, graph.value(loss.id()), wanted);
    std::vector<int> keep = {loss.id()};
    for (const Value& d : d_also) keep.push_back(d.id());
    parameters.emplace(graph, device, Parameters::Options{});
    plan.emplace(graph, *parameters, keep);
    this->loss = loss.id();
  }
  double run() const {
    plan->run();
    return static_cast<double>(plan->view(loss).read()[0]);
  }
  Graph graph;
  int loss;
  std::vector<Value> d_also;
  std::optional<Parameters> parameters;
  std::optional<Plan> plan;
};

TEST(Gradients, RoundingsPassStraightThrough) {
  const Shape shape{2, 3, 3, 2};
  const auto x_values = random_values(shape.elements(), 1, -2, 2), target = random_values(shape.elements(), 2);
  const std::pair<Layer, std::function<float(float)>> roundings[] = {
      {[](Value x) { return quantize(x, Grid::fixed(4, 3)); }, [](float v) { return std::nearbyint(v * 8) / 8; }},
      {[](Value x) { return quantize(x, [](float v) { return std::trunc(v); }); },
       [](float v) { return std::trunc(v); }},
      {[](Value x) { return cast(x, DType::bf16); }, [](float v) { return BF16::decode(BF16::encode(v)); }}};
  for (const auto& [layer, rounded] : roundings) {
    Graph g;
    const Value x = g.input("x", shape), t = g.input("target", shape);
    const Runner runner(mean_squared_error(layer(x), t), {x});
    runner.plan->view(x.id()).write(x_values);
    runner.plan->view(t.id()).write(target);
    runner.run();
    const auto d = runner.plan->view(runner.d_also[0].id()).read();
    for (std::size_t i = 0; i < d.size(); ++i) {
      const float expected = 2 * (rounded(x_values[i]) - target[i]) / static_cast<float>(shape.elements());
      EXPECT_NEAR(d[i], expected, 0x1p-22f * std::abs(expected)) << i;
    }
  }
}

/// Number `k` of a tensor.
Value pick(Value x, std::size_t k) {
  CustomOptions options{.name = "pick"};
  options.shape = [](std::span<const Shape>) { return Shape{}; };
  options.forward = [k](std::span<const FloatTensor> in, std::span<const FloatTensor> out) {
    out[0].values[0] = in[0].values[k];
  };
  options.backward = [k](std::span<const FloatTensor> in, std::span<const FloatTensor> out) {
    std::fill(out[0].values.begin(), out[0].values.end(), 0.0f);
    out[0].values[k] = in[2].values[0];
  };
  return custom({x}, options);
}

/// Every element is compared for a net that is quadratic in each tensor, whose central differences are thus exact but
/// for rounding: sums of at most 19 + 13 terms, each no larger than 18 * 0.25 + 0.25 before the square, 82 in all.
TEST(Gradients, FullJacobian) {
  constexpr double step = 0.25, rounding = (19 + 13 + 4) * 0x1p-24 * 82 / step;
  const auto x_values = random_values(32, 1);
  for (std::size_t k = 0; k < 3; ++k) {
    Graph g;
    const Value x = g.input("x", {1, 4, 4, 2});
    const Value y = conv2d(x, 3, 3, {.stride = 2});
    const Value outputs = dense(y * y, 3);
    for (auto& parameter : g->parameters) parameter.initializer = uniform(0.25f);
    const Runner runner(pick(outputs, k), {x});
    const Parameters& parameters = *runner.parameters;
    runner.plan->view(x.id()).write(x_values);
    runner.run();
    std::vector<std::pair<TensorView, std::vector<float>>> all = {
        {runner.plan->view(x.id()), runner.plan->view(runner.d_also[0].id()).read()}};
    for (const auto& slot : parameters.entries)
      all.emplace_back(parameters.weight(slot), parameters.gradient(slot).read());
    for (const auto& [memory, gradient] : all) {
      TensorView tensor = memory;
      const auto values = tensor.read();
      for (std::size_t i = 0; i < values.size(); ++i) {
        const auto at = [&](double moved) {
          auto changed = values;
          changed[i] = static_cast<float>(static_cast<double>(values[i]) + moved);
          tensor.write(changed);
          return runner.run();
        };
        EXPECT_NEAR(gradient[i], (at(step) - at(-step)) / (2 * step), rounding) << "output " << k << " element " << i;
        tensor.write(values);
      }
    }
  }
}

}  // namespace
}  // namespace halftone
