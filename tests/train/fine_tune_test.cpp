#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <iostream>
#include <sstream>

#include "halftone/halftone.hpp"
#include "tests/data/noise.hpp"
#include "tests/io/temporary_folder.hpp"

namespace halftone {
namespace {

namespace fs = std::filesystem;

Loader noise(int classes) {
  Dataset data = test::noise(16, {1, 32, 32, 3}, classes);
  for (std::size_t i = 0; i < data.labels.size(); ++i) data.labels[i] = static_cast<std::int32_t>(i) % classes;
  return Loader(std::make_shared<const Dataset>(std::move(data)), {.batch = 8});
}

/// What docs/guide.md shows.
TEST(FineTune, TheGuidesExample) {
  namespace ht = halftone;
  const TemporaryFolder folder;
  const fs::path before = fs::current_path();
  fs::current_path(folder / "");
  {
    const Loader ten = noise(10);
    Graph trunk;
    const Inputs in = inputs(trunk, ten);
    Trainer(cross_entropy(resnet20(in.images), in.labels)).save("run1");
  }
  const Loader train = noise(3);
  std::ostringstream out;
  std::streambuf* const terminal = std::cout.rdbuf(out.rdbuf());

  ht::Graph graph;
  const auto [images, labels] = ht::inputs(graph, train);
  const ht::Value logits = ht::resnet20(images, train.dataset().classes);
  ht::start_from("run1/model.safetensors", graph, {.left_out = ht::head_of(logits)});
  ht::Trainer trainer(ht::cross_entropy(logits, labels), {.frozen = {"conv1", "norm1", "stage1"}});
  ht::EventFile events("logs");
  trainer.epoch(train, [&](const ht::StepReport& step) {
    const ht::EventScalar scalars[] = {{"loss", step.loss}};
    events.add(step.attempt, scalars);
    return true;
  });
  for (const ht::GradientNorm& layer : trainer.gradient_norms()) std::cout << layer.layer << ' ' << layer.norm << '\n';

  std::cout.rdbuf(terminal);
  EXPECT_EQ(out.str().find("stage1"), std::string::npos) << "nothing there learns";
  EXPECT_NE(out.str().find("stage2"), std::string::npos);
  EXPECT_GT(fs::file_size(events.file()), 100u);
  const SafeTensors file = read_safetensors("run1/model.safetensors");
  const std::vector<float> stem = trainer.parameters().truth(trainer.parameters().find("conv1.weight")).read();
  EXPECT_EQ(std::memcmp(stem.data(), file.at("conv1.weight").data.data(), 4 * stem.size()), 0);
  fs::current_path(before);
}

}  // namespace
}  // namespace halftone
