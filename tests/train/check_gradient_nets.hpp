#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <sstream>

#include "halftone/nn/models.hpp"
#include "halftone/ops/custom.hpp"
#include "halftone/ops/loss.hpp"
#include "halftone/train/check_gradient.hpp"

namespace halftone::test {

/// A shipped net on a few random images.
struct CheckedNet {
  Graph graph;
  Value loss;
  std::vector<std::vector<float>> inputs;

  CheckedNet(std::string_view name, std::int64_t batch, std::int64_t extent, unsigned seed) : inputs(2) {
    const Net& net = net_by_name(name);
    const Value images = graph.input("images", {batch, extent, extent, net.image.c});
    const Value labels = graph.input("labels", {batch, 1, 1, 1}, DType::i32);
    loss = cross_entropy(net.build(images, net.classes), labels);
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (std::int64_t i = 0; i < images.shape().elements(); ++i) inputs[0].push_back(normal(random));
    for (std::int64_t i = 0; i < batch; ++i)
      inputs[1].push_back(static_cast<float>(random() % static_cast<unsigned>(net.classes)));
  }

  GradientReport check(std::uint64_t seed, int directions) const {
    return check_gradient(loss, inputs, {.directions = directions, .seed = seed});
  }

  /// Scales the gradient of a parameter: its readers read it through a node whose slope is not 1 but `factor`.
  void distort(std::size_t parameter, float factor) {
    const int id = graph->parameters[parameter].value;
    CustomOptions options{.name = "distorted"};
    options.forward = [](std::span<const FloatTensor> in, std::span<const FloatTensor> out) {
      std::copy(in[0].values.begin(), in[0].values.end(), out[0].values.begin());
    };
    options.backward = [factor](std::span<const FloatTensor> in, std::span<const FloatTensor> out) {
      for (std::size_t i = 0; i < out[0].values.size(); ++i) out[0].values[i] = factor * in[2].values[i];
    };
    const Value through = custom({graph.value(id)}, options);
    for (Node& node : graph->nodes)
      if (node.outputs[0] != through.id()) std::replace(node.inputs.begin(), node.inputs.end(), id, through.id());
    std::rotate(graph->nodes.begin(), graph->nodes.end() - 1, graph->nodes.end());
  }
};

inline std::string text_of(const GradientReport& report) {
  std::ostringstream text;
  text << report;
  return text.str();
}

}  // namespace halftone::test
