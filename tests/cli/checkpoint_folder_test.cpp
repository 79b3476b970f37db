#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <thread>

#include "halftone/io/safetensors.hpp"
#include "tests/cli/program.hpp"
#include "tests/cli/small_mnist.hpp"

namespace halftone {
namespace {

namespace fs = std::filesystem;

struct CheckpointFolder : ::testing::Test {
  Folder folder;
  const std::string out = folder / "out";

  CheckpointFolder() { testing::write_small_mnist(folder / ""); }

  std::vector<std::string> train(int epochs, std::vector<std::string> more = {}) const {
    std::vector<std::string> words{
        "train", "--net",     "mlp", "--data", "mnist", "--data-dir", folder / "",           "--batch", "32", "--lr",
        "0.02",  "--threads", "1",   "--out",  out,     "--epochs",   std::to_string(epochs)};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }

  std::vector<std::string> names_in(const std::string& place) const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(place)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
};

const std::vector<std::string> two_files = {"model.safetensors", "state.safetensors"};

TEST_F(CheckpointFolder, ASecondTrainingIsToldAndAKillLeavesNoLock) {
  Program first(train(1000000));
  while (!fs::exists(out + "/model.safetensors")) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  for (const auto& more : {std::vector<std::string>{}, {"--resume", out}}) {
    Program second(train(1000000, more));
    EXPECT_EQ(second.wait(), 1);
    EXPECT_EQ(second.err(),
              "halftone: --out " + out + ": the folder '" + out + "' is in use: another training writes into it\n");
    EXPECT_EQ(second.out(), "");
  }
  Program reader({"eval", "--checkpoint", out, "--data-dir", folder / "", "--threads", "1"});
  EXPECT_EQ(reader.wait(), 0) << reader.err();
  ::kill(first.id(), SIGKILL);
  EXPECT_EQ(first.wait(), -SIGKILL);
  std::ofstream(out + "/model.safetensors.partial-0123456789abcdef") << "of a process that was killed";
  Program third(train(1000000, {"--resume", out, "--accumulate", "1"}));
  const auto state = fs::last_write_time(out + "/state.safetensors");
  while (fs::last_write_time(out + "/state.safetensors") == state)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  ::kill(third.id(), SIGINT);
  EXPECT_EQ(third.wait(), 130) << third.err();
  EXPECT_EQ(names_in(out), two_files);
}

TEST_F(CheckpointFolder, ManyEvaluationsBesideATrainingSeeWholeModels) {
  Program training(train(1000000));
  while (!fs::exists(out + "/model.safetensors")) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  for (int i = 0; i < 10; ++i) {
    Program reader({"eval", "--checkpoint", out, "--data-dir", folder / "", "--threads", "1"});
    EXPECT_EQ(reader.wait(), 0) << reader.err();
    EXPECT_NO_THROW(read_safetensors(out + "/state.safetensors"));
  }
  ::kill(training.id(), SIGKILL);
}

double best_of(const nlohmann::json& report) {
  double best = 0;
  for (const auto& epoch : report["epochs"]) best = std::max(best, epoch["test_accuracy"].get<double>());
  return best;
}

TEST_F(CheckpointFolder, KeepsTheBestModelAlsoAcrossAResume) {
  const auto accuracy_of_kept = [&] {
    Program eval({"eval", "--checkpoint", out + "/best", "--data-dir", folder / "", "--json", folder / "eval.json",
                  "--threads", "1"});
    EXPECT_EQ(eval.wait(), 0) << eval.err();
    return json_of(folder / "eval.json")["test_accuracy"].get<double>();
  };
  Program first(train(6, {"--keep-best", "--json", folder / "a.json"}));
  EXPECT_EQ(first.wait(), 0) << first.err();
  const double before = best_of(json_of(folder / "a.json"));
  EXPECT_EQ(accuracy_of_kept(), before);
  EXPECT_EQ(names_in(out + "/best"), (std::vector<std::string>{"model.safetensors"}));

  // Nothing is better than a best of all; unless it is another training's.
  const auto claim = [](const std::string& file, const char* key) {
    SafeTensors content = read_safetensors(file);
    content.metadata.at(key) = "1";
    write_safetensors(file, content.tensors, content.metadata);
  };
  claim(out + "/best/model.safetensors", "test_accuracy");
  claim(out + "/state.safetensors", "best_test_accuracy");
  const std::string kept = text_of(out + "/best/model.safetensors");
  Program second(train(8, {"--keep-best", "--resume", out, "--json", folder / "b.json"}));
  EXPECT_EQ(second.wait(), 0) << second.err();
  ASSERT_LT(best_of(json_of(folder / "b.json")), 1);
  EXPECT_TRUE(text_of(out + "/best/model.safetensors") == kept);
  Program third(train(9, {"--resume", out, "--json", folder / "c.json"}));  // keeps no best, and forgets it
  EXPECT_EQ(third.wait(), 0) << third.err();
  Program fourth(train(10, {"--keep-best", "--resume", out, "--json", folder / "c.json"}));
  EXPECT_EQ(fourth.wait(), 0) << fourth.err();
  EXPECT_EQ(accuracy_of_kept(), best_of(json_of(folder / "c.json")));

  Program anew(train(1, {"--keep-best", "--json", folder / "d.json"}));
  EXPECT_EQ(anew.wait(), 0) << anew.err();
  EXPECT_EQ(accuracy_of_kept(), best_of(json_of(folder / "d.json"))) << "a training from the start knows no best";
}

TEST_F(CheckpointFolder, TheBestIsTheSameWithAndWithoutAPause) {
  Program straight(train(6, {"--keep-best"}));
  EXPECT_EQ(straight.wait(), 0) << straight.err();
  const std::string best = text_of(out + "/best/model.safetensors"), state = text_of(out + "/state.safetensors");
  fs::remove_all(out);
  for (int epochs = 1; epochs <= 6; ++epochs) {
    std::vector<std::string> more{"--keep-best"};
    if (epochs > 1) more.insert(more.end(), {"--resume", out});
    Program part(train(epochs, more));
    EXPECT_EQ(part.wait(), 0) << part.err();
  }
  EXPECT_TRUE(text_of(out + "/best/model.safetensors") == best);
  EXPECT_TRUE(text_of(out + "/state.safetensors") == state);
}

TEST_F(CheckpointFolder, KeepBestNeedsAPlaceOfItsOwn) {
  Program nowhere({"train", "--net", "mlp", "--data", "mnist", "--keep-best"});
  EXPECT_EQ(nowhere.wait(), 2);
  EXPECT_EQ(nowhere.err(), "halftone: --keep-best: --out must say where\n");
  Program taken(train(1, {"--keep-best", "--json", out + "/best/model.safetensors"}));
  EXPECT_EQ(taken.wait(), 2);
  EXPECT_FALSE(fs::exists(out));
}

TEST_F(CheckpointFolder, AResumeTellsThatItsDataIsOther) {
  ASSERT_EQ(Program(train(1)).wait(), 0);
  Program same(train(2, {"--resume", out}));
  EXPECT_EQ(same.wait(), 0) << same.err();
  EXPECT_EQ(same.out().find("changed"), std::string::npos) << same.out();
  std::fstream(folder / "t10k-labels-idx1-ubyte", std::ios::binary | std::ios::in | std::ios::out).seekp(8).put(9);
  Program other(train(3, {"--resume", out}));
  EXPECT_EQ(other.wait(), 0) << other.err();
  EXPECT_NE(other.out().find("changed: data-checksum was "), std::string::npos) << other.out();
}

TEST_F(CheckpointFolder, InfoSaysWhereItsDataLies) {
  const fs::path raw = fs::path(folder / "data") / "mnist/MNIST/raw";
  fs::create_directories(raw);
  testing::write_small_mnist(raw);
  const char* before = std::getenv("HALFTONE_DATA");
  const std::string kept = before ? before : "";
  ::setenv("HALFTONE_DATA", (folder / "data").c_str(), 1);
  Program info({"info", "--data", "mnist"});
  before ? ::setenv("HALFTONE_DATA", kept.c_str(), 1) : ::unsetenv("HALFTONE_DATA");
  EXPECT_EQ(info.wait(), 0) << info.err();
  EXPECT_EQ(info.out(), raw.string() + "\n");
}

TEST_F(CheckpointFolder, AWarmupAsLongAsTheRunIsAnError) {
  for (const char* warmup : {"2", "2.5", "1e6"}) {
    Program program(train(2, {"--warmup", warmup}));
    EXPECT_EQ(program.wait(), 2) << warmup;
    EXPECT_NE(program.err().find("--warmup"), std::string::npos) << program.err();
  }
  EXPECT_FALSE(fs::exists(out));
}

}  // namespace
}  // namespace halftone
