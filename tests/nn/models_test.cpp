#include "halftone/nn/models.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "halftone/nn/blocks.hpp"

namespace halftone {
namespace {

TEST(Models, HaveTheParametersOfTheirPapers) {
  const std::pair<const char*, std::int64_t> counts[] = {
      {"lenet5", 61'706},       {"gupta", 37'610},         {"mlp", 932'362},        {"resnet20", 272'474},
      {"resnet18", 11'173'962}, {"airbench94", 1'972'792}, {"resnet50", 25'557'032}};
  EXPECT_EQ(std::size(counts), nets().size());
  for (const auto& [name, count] : counts) EXPECT_EQ(parameter_count(net_by_name(name)), count) << name;
}

TEST(Models, ReturnLogitsForAnyBatchAndNumberOfClasses) {
  for (const Net& net : nets()) {
    Graph graph;
    Shape images = net.image;
    images.n = 3;
    EXPECT_EQ(net.build(graph.input("images", images), 7).shape(), (Shape{3, 1, 1, 7})) << net.name;
  }
}

TEST(Models, GiveNodesAndParametersNamesOfTheirOwn) {
  for (const Net& net : nets()) {
    Graph graph;
    net.build(graph.input("images", net.image), net.classes);
    std::set<std::string> nodes, tensors;
    for (const Node& node : graph->nodes) EXPECT_TRUE(nodes.insert(node.name).second) << net.name << ": " << node.name;
    for (const auto& p : graph->parameters) EXPECT_TRUE(tensors.insert(p.name).second) << net.name << ": " << p.name;
    for (const auto& s : graph->statistics) EXPECT_TRUE(tensors.insert(s.name).second) << net.name << ": " << s.name;
  }
}

TEST(Models, TheConvolutionsOfAirbenchBeginAsTheIdentity) {
  Graph graph;
  airbench94(graph.input("images", {1, 32, 32, 3}));
  int convolutions = 0;
  for (const ParameterInfo& p : graph->parameters) {
    const Shape shape = graph.info(p.value).spec.shape;
    if (p.rank != 4 || shape.h != 3) continue;
    ++convolutions;
    std::vector<float> values(static_cast<std::size_t>(shape.elements()));
    p.initializer(values, 1, 0);
    const float bound = 1 / std::sqrt(static_cast<float>(shape.features()));
    for (std::int64_t k = 0, at = 0; k < shape.n; ++k)
      for (std::int64_t i = 0; i < shape.features(); ++i, ++at) {
        const float value = values[static_cast<std::size_t>(at)];
        if (k < shape.c)
          ASSERT_EQ(value, i == 4 * shape.c + k) << p.name << " " << k << " " << i;
        else
          ASSERT_LE(std::abs(value), bound);
      }
    EXPECT_EQ(shape.n > shape.c, values.back() != 0 && values.back() != 1) << p.name;
  }
  EXPECT_EQ(convolutions, 6);
}

TEST(Models, NameParametersByStageAndBlock) {
  Graph graph;
  resnet20(graph.input("images", {1, 32, 32, 3}));
  std::set<std::string> names;
  for (const auto& p : graph->parameters) names.insert(p.name);
  for (const char* name : {"conv1.weight", "norm1.weight", "stage1.block0.conv1.weight", "stage3.block2.norm2.bias",
                           "stage2.block0.shortcut.conv1.weight", "dense1.bias"})
    EXPECT_TRUE(names.contains(name)) << name;
  EXPECT_FALSE(names.contains("stage1.block0.shortcut.conv1.weight"));
  EXPECT_FALSE(names.contains("conv1.bias"));
}

TEST(Models, HalveTheImageStageByStage) {
  Graph graph;
  const Value images = graph.input("images", {2, 32, 32, 16});
  EXPECT_EQ(basic_block(images, 16).shape(), (Shape{2, 32, 32, 16}));
  const Scope scope(graph, "next");
  EXPECT_EQ(basic_block(images, 32, 2).shape(), (Shape{2, 16, 16, 32}));
  const Scope last(graph, "last");
  EXPECT_EQ(bottleneck_block(images, 8, 2).shape(), (Shape{2, 16, 16, 32}));
}

TEST(Models, AnUnknownNameIsAnErrorThatListsTheKnownOnes) {
  try {
    net_by_name("lenet7");
    FAIL();
  } catch (const Error& error) {
    for (const char* part : {"lenet7", "lenet5", "resnet50"})
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace halftone
