#include <gtest/gtest.h>

#include <algorithm>

#include "halftone/halftone.hpp"
#include "tests/cli/program.hpp"
#include "tests/cli/small_mnist.hpp"

namespace halftone {
namespace {

/// The test error by all views together, from a checkpoint and without the program.
double error_by_views(const std::string& model, const std::string& data) {
  const Loader test = mnist(data, Split::test, {.batch = 25});
  Graph graph;
  Predictor predictor(airbench94(inputs(graph, test).images), {.device = cpu_device()});
  predictor.load(model);
  std::vector<float> sum(static_cast<std::size_t>(test.size() * 10));
  for (const View& view : six_views()) {
    const std::vector<float> logits = predictor(test.in_order(view));
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += logits[i] * view.weight;
  }
  std::int64_t wrong = 0;
  for (std::int64_t i = 0; i < test.size(); ++i) {
    const auto row = sum.begin() + 10 * i;
    wrong += std::max_element(row, row + 10) - row != test.dataset().labels[static_cast<std::size_t>(i)];
  }
  return static_cast<double>(wrong) / static_cast<double>(test.size());
}

TEST(RecipeOptions, AllTogetherTestTheEndBySixViewsAndResume) {
  const Folder folder;
  testing::write_small_mnist(folder / "");
  const auto run = [&](const std::string& out, const std::string& epochs, std::vector<std::string> more) {
    std::vector<std::string> words{"train", "--recipe", "airbench94", "--data", "mnist", "--data-dir", folder / ""};
    words.insert(words.end(), {"--batch", "16", "--lr", "0.05", "--freeze", "whitening:1", "--freeze", "group1.conv1"});
    words.insert(words.end(), {"--epochs", epochs, "--threads", "2", "--out", out, "--json", folder / "r.json"});
    words.insert(words.end(), {"--schedule", "constant", "--precision", "f16"});
    words.insert(words.end(), more.begin(), more.end());
    Program program(words);
    EXPECT_EQ(program.wait(), 0) << program.err();
  };
  run(folder / "out", "3", {});
  const nlohmann::json j = json_of(folder / "r.json");
  EXPECT_EQ(j["views"], 6);
  EXPECT_TRUE(j["epochs"][0]["test_accuracy"].is_null());
  EXPECT_FALSE(j["epochs"][2]["test_accuracy"].is_null());
  EXPECT_NEAR(j["final"]["test_error"].get<double>(), error_by_views(folder / "out/model.safetensors", folder / ""),
              0.021);  // f32 there: an image of 50 may tip over
  run(folder / "parts", "1", {});
  run(folder / "parts", "3", {"--resume", folder / "parts"});
  EXPECT_EQ(text_of(folder / "parts/model.safetensors"), text_of(folder / "out/model.safetensors"));
}

TEST(RecipeOptions, ClassWeightsAreTheLosss) {
  const Folder folder;
  const auto run = [&](const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> words{"train", "--net", "lenet5", "--data", "digits", "--limit", "256", "--threads", "1"};
    words.insert(words.end(), {"--out", folder / out});
    words.insert(words.end(), more.begin(), more.end());
    Program program(words);
    EXPECT_EQ(program.wait(), 0) << program.err();
    return program.out();
  };
  const auto model = [&](const std::string& out) { return text_of(folder / (out + "/model.safetensors")); };
  const std::string ones = "1,1,1,1,1,1,1,1,1,1", eights = "8,1,1,1,1,1,1,1,1,1";
  run("none", {"--epochs", "1"});
  run("ones", {"--epochs", "1", "--class-weights", ones});
  run("eights", {"--epochs", "1", "--class-weights", eights});
  EXPECT_EQ(model("ones"), model("none"));
  EXPECT_NE(model("eights"), model("none"));
  const std::string resumed = run("eights", {"--epochs", "2", "--resume", folder / "eights"});
  EXPECT_NE(resumed.find("changed: class-weights was " + eights), std::string::npos) << resumed;
}

}  // namespace
}  // namespace halftone
