#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <numeric>
#include <sstream>
#include <thread>

#include "tests/cli/program.hpp"

namespace halftone {
namespace {

using Words = std::vector<std::string>;
using Json = nlohmann::json;

Words train(Words words, const char* threads = "1") {
  Words run{"train",   "--net", "lenet5", "--data", "digits",    "--limit", "256",
            "--batch", "32",    "--lr",   "0.02",   "--threads", threads};
  run.insert(run.end(), words.begin(), words.end());
  return run;
}

/// What it prints.
std::string expect_success(const Words& words) {
  Program program(words);
  EXPECT_EQ(program.wait(), 0) << program.err();
  EXPECT_EQ(program.err(), "");
  return program.out();
}

std::string checkpoint_of(const std::string& folder) {
  return text_of(folder + "/model.safetensors") + text_of(folder + "/state.safetensors");
}

std::int64_t lines_of(const std::string& file) {
  const std::string text = text_of(file);
  return std::count(text.begin(), text.end(), '\n');
}

std::vector<std::string> keys_of(const Json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}

TEST(Cli, ReportsWhatItDid) {
  const Folder folder;
  Program program(train({"--epochs", "2", "--precision", "f16", "--json", folder / "r.json", "--seed", "7"}));
  ASSERT_EQ(program.wait(), 0) << program.err();
  EXPECT_NE(program.out().find("digits (synthetic)"), std::string::npos);
  const Json j = json_of(folder / "r.json");
  EXPECT_EQ(j["net"], "lenet5");
  EXPECT_EQ(j["data"], "digits");
  EXPECT_EQ(j["synthetic"], true);
  EXPECT_EQ(j["device"], "cpu");
  EXPECT_EQ(j["precision"], "f16");
  EXPECT_EQ(j["seed"], 7);
  EXPECT_EQ(j["parameters"], 61706);
  ASSERT_EQ(j["epochs"].size(), 2u);
  EXPECT_EQ(keys_of(j["epochs"][0]), (std::vector<std::string>{"epoch", "images_per_second", "loss_scale", "seconds",
                                                               "skipped_steps", "test_accuracy", "train_loss"}));
  EXPECT_EQ(j["epochs"][1]["epoch"], 2);
  EXPECT_EQ(keys_of(j["final"]), (std::vector<std::string>{"best_test_error", "test_error", "train_loss"}));
  const double accuracy = j["epochs"][1]["test_accuracy"], error = j["final"]["test_error"];
  EXPECT_EQ(accuracy, std::round(4000 * accuracy) / 4000);  // of 4000 images
  EXPECT_EQ(error, std::round(4000 * (1 - accuracy)) / 4000);
  EXPECT_EQ(keys_of(j["memory"]), (std::vector<std::string>{"activations", "gradients", "masters", "optimizer", "peak",
                                                            "weights", "workspace"}));
  EXPECT_GE(j["memory"]["masters"], 61706 * 4);
  EXPECT_EQ(keys_of(j["numerics"]), (std::vector<std::string>{"nonfinite", "roles", "skipped_steps", "tensors",
                                                              "unchanged_weights", "zero_weight_gradients"}));
}

TEST(Cli, TracesEveryStep) {
  const Folder folder;
  expect_success(train(
      {"--epochs", "2", "--precision", "f16", "--loss-scale", "dynamic:1073741824", "--trace", folder / "t.csv"}));
  std::ifstream in(folder / "t.csv");
  std::string line;
  std::getline(in, line);
  EXPECT_EQ(line, "step,loss,scale,skipped,reason,gradient_norm,learning_rate");
  std::getline(in, line);
  EXPECT_TRUE(line.starts_with("1,")) << line;
  EXPECT_NE(line.find(",1073741824,1,"), std::string::npos) << line;  // skipped, at the scale it used
  std::getline(in, line);
  EXPECT_NE(line.find(",536870912,"), std::string::npos) << line;
  EXPECT_EQ(lines_of(folder / "t.csv"), 1 + 16);
}

TEST(Cli, OptionsBesideARecipeWinWhereverTheyStand) {
  const Folder folder;
  for (const Words& order :
       {Words{"--lr", "0.125", "--recipe", "lenet5"}, Words{"--recipe", "lenet5", "--lr", "0.125"}}) {
    Words words{"train",      "--data",   "digits",    "--limit", "256",     "--epochs",      "1",
                "--schedule", "constant", "--threads", "1",       "--trace", folder / "t.csv"};
    words.insert(words.end(), order.begin(), order.end());
    expect_success(words);
    EXPECT_NE(text_of(folder / "t.csv").find(",0.125\n"), std::string::npos);
  }
}

TEST(Cli, ResumesBitForBit) {
  const Folder folder;
  const auto run = [](const char* epochs, const char* threads, Words more) {
    more.insert(more.end(), {"--precision", "f16", "--crop", "2", "--epochs", epochs});
    expect_success(train(more, threads));
  };
  run("2", "2", {"--out", folder / "whole"});
  run("1", "1", {"--out", folder / "half"});
  run("2", "1", {"--resume", folder / "half", "--out", folder / "resumed", "--trace", folder / "t.csv"});
  EXPECT_EQ(checkpoint_of(folder / "whole"), checkpoint_of(folder / "resumed"));
  EXPECT_NE(checkpoint_of(folder / "whole"), checkpoint_of(folder / "half"));
  EXPECT_EQ(lines_of(folder / "t.csv"), 1 + 8);
}

TEST(Cli, AResumeTellsWhatHasChanged) {
  const Folder folder;
  const auto run = [&](Words more) {
    const Words base = {"train", "--net", "mlp", "--data", "digits", "--limit", "256", "--batch", "32"};
    more.insert(more.begin(), base.begin(), base.end());
    return expect_success(more);
  };
  const std::string first = run({"--epochs", "1", "--crop", "2", "--out", folder / "a"});
  EXPECT_EQ(first.find("changed"), std::string::npos) << first;
  const Words next = {"--epochs", "2", "--resume", folder / "a"};
  const auto also = [&](Words more) {
    more.insert(more.begin(), next.begin(), next.end());
    return run(more);
  };
  const std::string same = also({"--crop", "2"});
  EXPECT_EQ(same.find("changed"), std::string::npos) << same;
  const std::string other = also({"--flip", "--lr", "0.125", "--schedule", "cosine", "--warmup", "0.5", "--momentum",
                                  "0.5", "--weight-decay", "0.25", "--clip-norm", "3"});
  for (const char* line :
       {"changed: lr was 0.05, is 0.125\n", "changed: schedule was constant, is cosine over 2 epochs\n",
        "changed: warmup was 0, is 0.5\n", "changed: momentum was 0.9, is 0.5\n",
        "changed: weight-decay was 0.0005, is 0.25\n", "changed: crop was 2, is 0\n", "changed: flip was off, is on\n",
        "changed: clip-norm was 0, is 3\n"})
    EXPECT_NE(other.find(line), std::string::npos) << line << other;
  run({"--epochs", "1", "--vector-lr", "2", "--freeze", "dense1:2", "--out", folder / "a"});
  const std::string by_scope = also({"--vector-lr", "3", "--no-decay", "norms,biases"});
  for (const char* line : {"changed: vector-lr was 2, is 3\n", "changed: no-decay was none, is norms,biases\n",
                           "changed: freeze-after was dense1:2, is none\n"})
    EXPECT_NE(by_scope.find(line), std::string::npos) << line << by_scope;
}

TEST(Cli, KeepsRolesWiderAndGoesOnInALongerWord) {
  const Folder folder;
  const std::string gupta = "fixed:4.12:stochastic";
  const auto run = [&](Words more) {
    more.insert(more.end(), {"--json", folder / "r.json"});
    return expect_success(train(more));
  };
  run({"--precision", gupta, "--keep", "update=f32", "--keep", "conv1=bf16", "--epochs", "1", "--out",
       folder / "kept"});
  EXPECT_EQ(json_of(folder / "r.json")["precision"], gupta + "+update=f32+conv1=bf16");
  EXPECT_GE(json_of(folder / "r.json")["memory"]["masters"], 61706 * 4);
  Program(Words{"eval", "--checkpoint", folder / "kept", "--json", folder / "e.json"}).wait();
  EXPECT_EQ(json_of(folder / "e.json")["test_error"], json_of(folder / "r.json")["final"]["test_error"]);

  run({"--precision", gupta, "--epochs", "1", "--out", folder / "short"});
  const std::string out = run({"--precision", "fixed:4.16:stochastic", "--epochs", "2", "--resume", folder / "short",
                               "--convert", "--out", folder / "long"});
  EXPECT_NE(out.find("changed: precision was " + gupta + ", is fixed:4.16:stochastic\n"), std::string::npos) << out;
  EXPECT_NE(out.find("continues after step 8\n"), std::string::npos) << out;
  run({"--precision", "fixed:4.16:stochastic", "--epochs", "3", "--resume", folder / "long"});
}

TEST(Cli, TellsOfBatchesThatMadeNoStep) {
  const Folder folder;
  const std::string out =
      expect_success(train({"--accumulate", "3", "--epochs", "1", "--json", folder / "r.json"}, "1"));
  EXPECT_NE(out.find("--accumulate 3: the last 2 batches made no step"), std::string::npos) << out;
  EXPECT_EQ(json_of(folder / "r.json")["left_over_batches"], 2);
}

/// Every gradient overflows f16; what the run has to say is written all the same.
TEST(Cli, ARunThatCommitsNothingFails) {
  const Folder folder;
  Program program(train({"--precision", "f16", "--loss-scale", "65536", "--stress", "1048576", "--out", folder / "out",
                         "--trace", folder / "t.csv", "--json", folder / "r.json"},
                        "1"));
  EXPECT_EQ(program.wait(), 1);
  const std::string err = program.err();
  EXPECT_EQ(std::count(err.begin(), err.end(), '\n'), 1) << err;
  EXPECT_NE(err.find("committed no step"), std::string::npos) << err;
  EXPECT_NE(err.find("weight gradients"), std::string::npos) << err;
  EXPECT_EQ(json_of(folder / "r.json")["numerics"]["skipped_steps"], lines_of(folder / "t.csv") - 1);
  EXPECT_TRUE(std::filesystem::exists(folder / "out/state.safetensors"));
}

TEST(Cli, AnInterruptKeepsTheStepsSoFar) {
  const Folder folder;
  const Words base{"train", "--net", "gupta", "--data",   "digits", "--limit",   "4000", "--batch",
                   "20",    "--lr",  "0.02",  "--epochs", "4",      "--threads", "1"};
  const auto with = [&](Words more) {
    more.insert(more.begin(), base.begin(), base.end());
    return more;
  };
  Program program(with({"--out", folder / "part", "--trace", folder / "t.csv", "--json", folder / "r.json"}));
  while (program.out().find("epoch 1/4") == std::string::npos)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  ::kill(program.id(), SIGINT);
  EXPECT_EQ(program.wait(), 130);
  const std::string err = program.err();
  EXPECT_EQ(std::count(err.begin(), err.end(), '\n'), 1) << err;

  const Json j = json_of(folder / "r.json");
  EXPECT_EQ(j["interrupted"], true);
  const std::int64_t steps = lines_of(folder / "t.csv") - 1;
  EXPECT_NE(err.find("after step " + std::to_string(steps)), std::string::npos) << err << steps;
  ASSERT_GE(steps, 200);
  ASSERT_LT(steps, 800);

  std::ofstream(folder / "t.csv", std::ios::app) << steps + 1 << ",of a step that the checkpoint does not have\n";
  expect_success(with({"--resume", folder / "part", "--out", folder / "part", "--trace", folder / "t.csv"}));
  expect_success(with({"--out", folder / "whole", "--trace", folder / "whole.csv"}));
  EXPECT_EQ(text_of(folder / "t.csv"), text_of(folder / "whole.csv"));
  EXPECT_EQ(checkpoint_of(folder / "part"), checkpoint_of(folder / "whole"));
}

TEST(Cli, AnInterruptEndsTheSearchForRanges) {
  Program program({"train", "--net", "gupta", "--data", "digits", "--limit", "200", "--batch", "20", "--precision",
                   "dynamic_fixed:10/12", "--range-steps", "5000", "--threads", "1"});
  while (program.out().empty()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  ::kill(program.id(), SIGINT);
  EXPECT_EQ(program.wait(), 130);
  EXPECT_EQ(program.err(), "halftone: interrupted after step 0\n");
}

TEST(Cli, ABinaryNetIsAnotherNet) {
  const Folder folder;
  for (const auto& [trained, other] : {std::pair("f32", "binary"), {"binary", "f32"}, {"binary:shift", "binary"}}) {
    expect_success({"train", "--net", "mlp", "--data", "digits", "--limit", "256", "--epochs", "1", "--precision",
                    trained, "--out", folder / "out"});
    for (const char* command : {"eval", "predict"}) {
      Program program({command, "--checkpoint", folder / "out", "--precision", other});
      EXPECT_EQ(program.wait(), 2);
      EXPECT_EQ(program.err(),
                fmt::format("halftone: --precision {}: the net was trained in {}, and {} is another net\n", other,
                            trained, trained == std::string("binary:shift") ? trained : "binary"));
    }
  }
}

TEST(Cli, EvaluatesWhatItTrained) {
  const Folder folder;
  expect_success(train({"--epochs", "1", "--out", folder / "out", "--json", folder / "train.json"}));
  expect_success({"eval", "--threads", "1", "--checkpoint", folder / "out", "--json", folder / "eval.json"});
  const Json trained = json_of(folder / "train.json"), evaluated = json_of(folder / "eval.json");
  EXPECT_EQ(trained["final"]["test_error"], evaluated["test_error"]);
  expect_success(
      {"eval", "--threads", "1", "--checkpoint", folder / "out", "--batch", "77", "--json", folder / "other.json"});
  EXPECT_EQ(json_of(folder / "other.json")["test_error"], evaluated["test_error"]);
  EXPECT_EQ(evaluated["synthetic"], true);
  EXPECT_EQ(evaluated["weights"], "raw");
  expect_success({"eval", "--checkpoint", folder / "out", "--precision", "bf16", "--threads", "1"});
}

TEST(Cli, APackedNetSaysTheSame) {
  const Folder folder;
  expect_success({"train", "--net", "mlp", "--data", "digits", "--limit", "512", "--epochs", "1", "--precision",
                  "binary", "--threads", "1", "--out", folder / "out"});
  const std::string packed = folder / "packed.safetensors";
  const std::string said = expect_success({"export", "--checkpoint", folder / "out", "--packed", packed});
  EXPECT_NE(said.find("524288 of 935434 weights are a bit each, 65536 bytes instead of 2097152"), std::string::npos);
  const auto size = [](const std::string& file) { return static_cast<std::int64_t>(text_of(file).size()); };
  EXPECT_NEAR(static_cast<double>(size(folder / "out/model.safetensors") - size(packed)), 2097152 - 65536, 512);
  for (const std::string& net : {folder / "out", packed}) {
    expect_success({"eval", "--checkpoint", net, "--json", net + ".json"});
    expect_success({"predict", "--checkpoint", net, "--out", net + ".csv"});
  }
  EXPECT_EQ(text_of(folder / "out.json"), text_of(packed + ".json"));
  EXPECT_EQ(text_of(folder / "out.csv"), text_of(packed + ".csv"));
  expect_success({"export", "--checkpoint", packed, "--packed", folder / "again"});
  EXPECT_EQ(text_of(folder / "again"), text_of(packed));

  expect_success({"train", "--net", "mlp", "--data", "digits", "--limit", "256", "--epochs", "1", "--precision",
                  "binary", "--ema", "0.9", "--out", folder / "ema"});
  expect_success({"export", "--checkpoint", folder / "ema", "--packed", folder / "averages"});
  Program raw({"eval", "--checkpoint", folder / "averages", "--raw"});
  EXPECT_EQ(raw.wait(), 1);
  EXPECT_NE(raw.err().find("averages: it holds averaged weights, no raw ones"), std::string::npos) << raw.err();
  Program over(
      {"export", "--checkpoint", folder / "ema/model.safetensors", "--packed", folder / "ema/state.safetensors"});
  EXPECT_EQ(over.wait(), 2);
  EXPECT_NE(over.err().find("that is taken by --checkpoint"), std::string::npos) << over.err();

  expect_success(train({"--epochs", "1", "--out", folder / "f32"}));
  Program program({"export", "--checkpoint", folder / "f32", "--packed", folder / "none"});
  EXPECT_EQ(program.wait(), 2);
  EXPECT_EQ(program.err(), "halftone: --packed: no weight of lenet5 in f32 is a sign\n");
  EXPECT_FALSE(std::filesystem::exists(folder / "none"));
}

TEST(Cli, PredictsWhatItEvaluates) {
  const Folder folder;
  expect_success(train({"--epochs", "1", "--out", folder / "out", "--json", folder / "train.json"}));
  expect_success({"eval", "--threads", "1", "--checkpoint", folder / "out", "--json", folder / "eval.json"});
  const std::string csv = folder / "p.csv";
  Program program({"predict", "--threads", "1", "--checkpoint", folder / "out", "--out", csv});
  ASSERT_EQ(program.wait(), 0) << program.err();
  const Json evaluated = json_of(folder / "eval.json");

  std::ifstream in(csv);
  std::string line;
  std::getline(in, line);
  EXPECT_EQ(line, "index,label,predicted,p0,p1,p2,p3,p4,p5,p6,p7,p8,p9");
  std::vector<std::vector<std::int64_t>> counts(10, std::vector<std::int64_t>(10));
  std::int64_t rows = 0, right = 0, top5 = 0;
  double loss = 0;
  for (; std::getline(in, line); ++rows) {
    std::vector<double> numbers;
    std::stringstream words(line);
    for (std::string word; std::getline(words, word, ',');) numbers.push_back(std::stod(word));
    ASSERT_EQ(numbers.size(), 13u) << line;
    EXPECT_EQ(numbers[0], static_cast<double>(rows));
    const auto label = static_cast<std::size_t>(numbers[1]), predicted = static_cast<std::size_t>(numbers[2]);
    const std::vector<double> shares(numbers.begin() + 3, numbers.end());
    EXPECT_NEAR(std::accumulate(shares.begin(), shares.end(), 0.0), 1, 1e-6);
    EXPECT_EQ(static_cast<std::size_t>(std::max_element(shares.begin(), shares.end()) - shares.begin()), predicted);
    top5 += std::count_if(shares.begin(), shares.end(), [&](double p) { return p > shares[label]; }) < 5;
    loss -= std::log(shares[label]);
    right += label == predicted;
    ++counts[label][predicted];
  }
  EXPECT_EQ(rows, evaluated["images"]);
  const auto images = static_cast<double>(rows);
  EXPECT_EQ(static_cast<double>(right) / images, evaluated["test_accuracy"]);
  EXPECT_EQ(static_cast<double>(top5) / images, evaluated["top5_accuracy"]);
  EXPECT_NEAR(loss / images, evaluated["test_loss"], 1e-5);
  ASSERT_EQ(evaluated["by_class"].size(), 10u);
  const std::string out = program.out();
  for (std::size_t label = 0; label < 10; ++label) {
    const auto of_class = std::accumulate(counts[label].begin(), counts[label].end(), std::int64_t{0});
    EXPECT_EQ(evaluated["by_class"][label]["images"], of_class);
    EXPECT_EQ(evaluated["by_class"][label]["accuracy"],
              static_cast<double>(counts[label][label]) / static_cast<double>(of_class));
    std::string row, expected = fmt::format("{0} {0}", label);  // the matrix's line, its blanks made one
    for (const std::int64_t count : counts[label]) expected += fmt::format(" {}", count);
    std::stringstream text(out.substr(out.find(fmt::format("\n{} ", label)) + 1));
    std::getline(text, line);
    std::stringstream cells(line);
    for (std::string cell; cells >> cell;) row += (row.empty() ? cell : ' ' + cell);
    EXPECT_EQ(row, expected) << out;
  }

  expect_success({"predict", "--threads", "1", "--checkpoint", folder / "out", "--precision", "f16", "--split", "train",
                  "--batch", "77", "--out", folder / "t.csv"});
  EXPECT_EQ(lines_of(folder / "t.csv"), 20001);
}

TEST(Cli, EvaluatesTheAverageThatItReported) {
  const Folder folder;
  for (const char* precision : {"f32", "f16", "fixed:6.10:stochastic"}) {
    expect_success({"train", "--net", "lenet5", "--data", "digits", "--limit", "512", "--ema", "0.9", "--epochs", "1",
                    "--threads", "1", "--precision", precision, "--out", folder / "out", "--json", folder / "t.json"});
    const auto evaluated = [&](const Words& more) {
      Words words{"eval", "--threads", "1", "--checkpoint", folder / "out", "--json", folder / "e.json"};
      words.insert(words.end(), more.begin(), more.end());
      expect_success(words);
      return json_of(folder / "e.json");
    };
    const double reported = json_of(folder / "t.json")["final"]["test_error"];
    const Json averaged = evaluated({}), raw = evaluated({"--raw"});
    EXPECT_EQ(averaged["test_error"], reported) << precision;
    EXPECT_EQ(averaged["weights"], "averaged");
    EXPECT_NE(raw["test_loss"], averaged["test_loss"]) << precision;
    EXPECT_EQ(raw["weights"], "raw");
    std::filesystem::remove(folder / "out/state.safetensors");  // the model is complete in itself
    EXPECT_EQ(evaluated({}), averaged);
    EXPECT_EQ(evaluated({"--raw"}), raw);
  }
}

TEST(Cli, BenchmarksAndInforms) {
  const Folder folder;
  expect_success({"bench", "--threads", "1", "--net", "lenet5", "--precision", "bf16", "--batch", "8", "--seconds",
                  "0.1", "--profile", "kernels", "--json", folder / "b.json"});
  const Json j = json_of(folder / "b.json");
  EXPECT_GT(j["images_per_second"], 0);
  EXPECT_GT(j["memory"]["peak"], 0);
  EXPECT_GT(j["multiply_add_peak"], 1e8);
  double operations = 0;
  for (const Json& kernel : j["profile"]) {
    EXPECT_GT(kernel["bytes"], 0);
    operations += kernel["operations"].get<double>();
    EXPECT_EQ(kernel["share_of_peak"].is_null(), kernel["operations"] == 0) << kernel["name"];
  }
  // Multiply-adds of LeNet-5: no data gradient of the first layer.
  constexpr double first = 28 * 28 * 6 * 25, others = 10 * 10 * 16 * 150 + 400 * 120 + 120 * 84 + 84 * 10;
  EXPECT_EQ(operations, 8 * 2 * (2 * first + 3 * others));
  Program info({"info"});
  EXPECT_EQ(info.wait(), 0);
  for (const char* part : {"cpu", "bf16", "resnet18", "11173962"})
    EXPECT_NE(info.out().find(part), std::string::npos) << part;
  Program kernels({"info", "--net", "resnet20", "--precision", "f16", "--batch", "2"});
  EXPECT_EQ(kernels.wait(), 0);
  EXPECT_NE(kernels.out().find("conv2d/"), std::string::npos);
  Program help({"train", "--help"});
  EXPECT_EQ(help.wait(), 0);
  EXPECT_NE(help.out().find("--loss-scale"), std::string::npos);
}

}  // namespace
}  // namespace halftone
