#include <gtest/gtest.h>

#include <algorithm>

#include "halftone/data/rendered_digits.hpp"
#include "halftone/io/safetensors.hpp"
#include "tests/cli/program.hpp"
#include "tests/data/own_files.hpp"

namespace halftone {
namespace {

using Words = std::vector<std::string>;

std::string run(Words words) {
  words.insert(words.end(), {"--threads", "1"});
  Program program(words);
  EXPECT_EQ(program.wait(), 0) << program.err();
  return program.out();
}

std::string refusal(Words words, int status = 2) {
  words.insert(words.end(), {"--threads", "1"});
  Program program(words);
  EXPECT_EQ(program.wait(), status);
  return program.err();
}

Words joined(Words words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

/// A trained net of ten digits, and a set of the digits below four.
struct FineTuneProgram : ::testing::Test {
  Folder folder;
  const Words train_four = {"train",   "--net",    "lenet5",   "--data", "npz:" + folder / "four.npz",
                            "--batch", "20",       "--epochs", "1",      "--validation",
                            "0.25",    "--layout", "nhwc"};

  FineTuneProgram() {
    run({"train", "--net", "lenet5", "--data", "digits", "--limit", "200", "--batch", "20", "--epochs", "1", "--out",
         folder / "ten"});
    const Dataset digits = rendered_digits(Split::train, 200);
    std::string pixels, labels;
    for (std::size_t i = 0; i < digits.labels.size(); ++i) {
      if (digits.labels[i] >= 4) continue;
      pixels.append(reinterpret_cast<const char*>(digits.at(static_cast<std::int64_t>(i))), 784);
      labels.append(1, static_cast<char>(digits.labels[i]));
    }
    const std::string count = std::to_string(labels.size());
    std::ofstream(folder / "four.npz", std::ios::binary)
        << testing::zip({{"x.npy", testing::npy("|u1", "(" + count + ", 28, 28, 1)", pixels)},
                         {"y.npy", testing::npy("|u1", "(" + count + ",)", labels)}});
  }

  SafeTensors model(const std::string& name) const { return read_safetensors(folder / name + "/model.safetensors"); }
};

TEST_F(FineTuneProgram, ANewHeadOnATrunkThatStaysOrLearns) {
  EXPECT_NE(refusal(joined(train_four, {"--init-from", folder / "ten"}), 1).find("tensor dense3.weight is [10, 84]"),
            std::string::npos);
  EXPECT_NE(refusal(joined(train_four, {"--new-head"})).find("--new-head: --init-from must say"), std::string::npos);
  const Words tuned = joined(train_four, {"--init-from", folder / "ten", "--new-head"});
  EXPECT_NE(refusal(joined(tuned, {"--freeze", "conv7"})).find("--freeze conv7: no parameter lies in it"),
            std::string::npos);
  run(joined(tuned, {"--freeze", "conv1", "--out", folder / "four", "--tensorboard", folder / "logs"}));
  const SafeTensors ten = model("ten"), four = model("four");
  EXPECT_EQ(four.at("conv1.weight").data, ten.at("conv1.weight").data);
  EXPECT_NE(four.at("conv2.weight").data, ten.at("conv2.weight").data);
  EXPECT_EQ(four.at("dense3.weight").shape, (std::vector<std::int64_t>{4, 84}));
  for (const char* kept : {"mean", "stddev"}) EXPECT_EQ(four.metadata.at(kept), ten.metadata.at(kept)) << kept;
  const auto logs = std::filesystem::directory_iterator(folder / "logs");
  EXPECT_NE(text_of(logs->path()).find("gradient_norm/conv2"), std::string::npos);
  EXPECT_EQ(text_of(logs->path()).find("gradient_norm/conv1"), std::string::npos) << "it has none";

  // It goes on only with the same frozen, and from its own numbers.
  Words more = joined(train_four, {"--resume", folder / "four", "--epochs", "2", "--out", folder / "more"});
  more.erase(more.begin() + 7, more.begin() + 9);
  EXPECT_NE(refusal(more).find("has freeze conv1, not none"), std::string::npos);
  run(joined(more, {"--freeze", "conv1"}));
  EXPECT_EQ(model("more").at("conv1.weight").data, ten.at("conv1.weight").data);
  EXPECT_NE(refusal(joined(more, {"--init-from", folder / "ten"})).find("--init-from: --resume"), std::string::npos);
}

TEST_F(FineTuneProgram, PatienceEndsTheRunAlsoAcrossAResume) {
  Words train = {"train", "--net", "lenet5", "--data", "digits",          "--limit", "60",          "--batch",
                 "20",    "--lr",  "1e-30",  "--json", folder / "r.json", "--out",   folder / "run"};
  EXPECT_NE(run(joined(train, {"--epochs", "9", "--patience", "2"})).find("no better test accuracy for 2 epochs"),
            std::string::npos);
  EXPECT_EQ(json_of(folder / "r.json")["epochs"].size(), 3u);
  const Words resumed = joined(train, {"--resume", folder / "run", "--epochs", "9"});
  EXPECT_NE(refusal(joined(resumed, {"--patience", "2"})).find("--patience 2: the checkpoint in"), std::string::npos);
  run(joined(resumed, {"--patience", "3"}));
  EXPECT_EQ(json_of(folder / "r.json")["epochs"].size(), 1u) << "epoch 4";
  run(joined(train, {"--epochs", "2", "--patience", "3"}));
  train = joined(train, {"--resume", folder / "run", "--epochs", "9", "--patience", "3"});
  run(train);
  EXPECT_EQ(json_of(folder / "r.json")["epochs"].size(), 2u) << "epochs 3 and 4";
  const SafeTensors state = read_safetensors(folder / "run/state.safetensors");
  for (const auto& [key, value] : {std::pair("patience_epochs", "1e300"),
                                   {"patience_epochs", "-5"},
                                   {"patience_epochs", "0.5"},
                                   {"patience_best", "nan"},
                                   {"patience_best", "x"},
                                   {"patience_best", "1e300"}}) {
    Metadata hostile = state.metadata;
    hostile[key] = value;
    write_safetensors(state.file, state.tensors, hostile);
    EXPECT_NE(refusal(train, 1).find(std::string(key) + ": '" + value + "'"), std::string::npos) << key << value;
  }
}

}  // namespace
}  // namespace halftone
