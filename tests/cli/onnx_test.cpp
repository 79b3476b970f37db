#include "halftone/train/onnx.hpp"

#include <gtest/gtest.h>

#include "halftone/nn/models.hpp"
#include "tests/cli/program.hpp"

namespace halftone {
namespace {

std::string run(const std::vector<std::string>& words) {
  Program program(words);
  EXPECT_EQ(program.wait(), 0) << program.err();
  return program.out();
}

TEST(OwnNet, AnOnnxFileStandsForANetAndIsNotNeededLater) {
  if (!has_onnx()) GTEST_SKIP() << "built without libonnx";
  const Folder folder;
  Graph graph;
  const Value logits = lenet5(graph.input("images", {1, 28, 28, 1}));
  const int wanted[] = {logits.id()};
  const Parameters parameters(for_inference(graph, wanted), cpu_device(), {.gradients = false});
  const std::string file = folder / "my.onnx";
  write_onnx(file, logits, parameters);

  const std::string out = run({"train",
                               "--net",
                               file,
                               "--data",
                               "digits",
                               "--limit",
                               "200",
                               "--batch",
                               "20",
                               "--epochs",
                               "1",
                               "--precision",
                               "f16",
                               "--out",
                               folder / "run",
                               "--json",
                               folder / "r.json",
                               "--threads",
                               "1",
                               "--no-decay",
                               "norms,biases"});
  EXPECT_NE(out.find("my.onnx (61706 parameters) on digits (synthetic) in f16"), std::string::npos) << out;
  EXPECT_NE(out.find("my.onnx has no batch norm"), std::string::npos) << out;
  EXPECT_EQ(json_of(folder / "r.json")["net"], "my.onnx");
  EXPECT_NE(run({"info", "--net", file}).find("conv1"), std::string::npos);
  EXPECT_NE(run({"bench", "--net", file, "--batch", "2", "--seconds", "0"}).find("my.onnx"), std::string::npos);

  std::filesystem::remove(file);
  run({"eval", "--checkpoint", folder / "run", "--json", folder / "e.json", "--threads", "1"});
  EXPECT_EQ(json_of(folder / "e.json")["test_accuracy"], json_of(folder / "r.json")["epochs"][0]["test_accuracy"]);
  run({"export", "--checkpoint", folder / "run", "--onnx", folder / "trained.onnx"});
  EXPECT_GT(std::filesystem::file_size(folder / "trained.onnx"), 61706u * 4);

  // The file is a net to use as well, normalised as it says itself.
  const std::string trained = folder / "trained.onnx";
  run({"eval", "--checkpoint", folder / "run", "--precision", "f32", "--json", folder / "e.json", "--threads", "1"});
  run({"eval", "--checkpoint", trained, "--data", "digits", "--json", folder / "o.json", "--threads", "1"});
  EXPECT_EQ(json_of(folder / "o.json")["test_accuracy"], json_of(folder / "e.json")["test_accuracy"]);
  EXPECT_NEAR(json_of(folder / "o.json")["test_loss"].get<double>(),
              json_of(folder / "e.json")["test_loss"].get<double>(), 1e-5);
  run({"predict", "--checkpoint", trained, "--data", "digits", "--precision", "bf16", "--out", folder / "p.csv"});
  Program raw({"eval", "--checkpoint", trained, "--data", "digits", "--raw"});
  EXPECT_EQ(raw.wait(), 2);
  Program nowhere({"eval", "--checkpoint", trained});
  EXPECT_EQ(nowhere.wait(), 2);
  EXPECT_NE(nowhere.err().find("--data is missing: " + trained + " does not say"), std::string::npos) << nowhere.err();

  write_onnx(file, logits, parameters);
  const std::vector<std::string> study = {
      "study", "--net",   file, "--data", "digits",         "--limit",   "100", "--batch",      "20", "--epochs",
      "1",     "--seeds", "1",  "--out",  folder / "study", "--threads", "1",   "--precisions", "f32"};
  run(study);
  const Parameters others(for_inference(graph, wanted), cpu_device(), {.gradients = false, .seed = 2});
  write_onnx(file, logits, others);
  Program again(study);
  EXPECT_EQ(again.wait(), 2) << "another net by the same name is not the one whose runs are there";
  EXPECT_NE(again.err().find("net"), std::string::npos) << again.err();

  run({"train", "--net", file, "--data", "digits", "--limit", "40", "--batch", "20", "--epochs", "1", "--threads", "1",
       "--capsule", folder / "capsule"});
  std::filesystem::remove(file);
  EXPECT_NE(run({"replay", folder / "capsule", "--threads", "1"}).find(": the same bits"), std::string::npos);

  Program absent({"train", "--net", file, "--data", "digits"});
  EXPECT_EQ(absent.wait(), 1);
  EXPECT_NE(absent.err().find("my.onnx cannot be opened"), std::string::npos);
  Program taken({"export", "--checkpoint", folder / "run", "--onnx", folder / "run/model.safetensors"});
  EXPECT_EQ(taken.wait(), 2);
}

}  // namespace
}  // namespace halftone
