#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "halftone/io/safetensors.hpp"
#include "tests/cli/program.hpp"
#include "tests/sanitizers.hpp"

namespace halftone {
namespace {

using Words = std::vector<std::string>;

struct Case {
  Words words;
  std::string names;  // what the line must name
};

/// A short run that is in order but for `words`.
Words but(Words words) {
  Words run{"train", "--net", "lenet5", "--data", "digits", "--limit", "256", "--epochs", "1", "--threads", "1"};
  run.insert(run.end(), words.begin(), words.end());
  return run;
}

void expect_one_line(const Case& c, int status) {
  Program program(c.words);
  EXPECT_EQ(program.wait(), status) << testing::PrintToString(c.words);
  const std::string err = program.err();
  EXPECT_EQ(std::count(err.begin(), err.end(), '\n'), 1) << err;
  EXPECT_LE(err.size(), 400u);
  EXPECT_NE(err.find(c.names), std::string::npos) << err;
}

TEST(Cli, WrongUseIsOneLineThatNamesTheOption) {
  const Case cases[] = {
      {{}, "command"},
      {{"trian", "--net", "x"},
       "unknown command 'trian': there are train, study, doctor, replay, eval, predict, export, info, fetch and bench"},
      {{"--flavour", "train"}, "unknown option --flavour"},
      {{"fetch", "mnist", "cifar10"}, "unexpected word 'cifar10'"},
      {{"train"}, "--net"},
      {{"train", "--net", "lenet5"}, "--data"},
      {{"train", "--net", "lenet7", "--data", "digits"}, "lenet7"},
      {{"train", "--recipe", "nothing"}, "--recipe nothing"},
      {but({"--flavour", "x", "--taste"}), "unknown option --flavour"},
      {but({"--flavour=x", "y"}), "unknown option --flavour"},
      {but({"--precision", "f17"}), "--precision f17"},
      {but({"--keep", "update"}), "--precision f32+update"},
      {but({"--keep", "update=f17"}), "'f17' is none"},
      {but({"--keep", "conv7=f16"}), "--precision f32+conv7=f16: no node and no parameter lies in \"conv7\""},
      {but({"--freeze", "conv7:3"}), "--freeze conv7:3: no parameter lies in it"},
      {but({"--freeze", "conv7"}), "--freeze conv7"},
      {but({"--freeze", ":3"}), "--freeze: it reads SCOPE or SCOPE:EPOCHS"},
      {but({"--convert"}), "--convert"},
      {but({"--batch", "0"}), "--batch"},
      {but({"--batch", "-5"}), "--batch"},
      {but({"--batch", "257"}), "--batch 257"},
      {but({"--batch", "010"}), "--batch"},
      {but({"--batch", " 5"}), "--batch"},
      {but({"--batch", "0x10"}), "--batch"},
      {but({"--lr", "nan"}), "--lr"},
      {but({"--lr", "0"}), "--lr"},
      {but({"--lr", "1e-46"}), "--lr"},
      {but({"--lr", "1e-40"}), "--lr"},
      {but({"--lr", "1e300"}), "--lr"},
      {but({"--lr", "fast"}), "--lr"},
      {but({"--lr"}), "--lr"},
      {but({"--momentum", "2"}), "--momentum"},
      {but({"--momentum", "1"}), "--momentum"},
      {but({"--optimizer", "adam", "--momentum", "0.5"}), "--momentum: adam has none"},
      {but({"--optimizer", "adam", "--nesterov"}), "--nesterov: adam has none"},
      {but({"--accumulate", "0"}), "--accumulate"},
      {but({"--accumulate", "3"}), "--accumulate 3: the run has 2 batches"},
      {but({"--clip-norm", "-1"}), "--clip-norm"},
      {but({"--ema", "1"}), "--ema"},
      {but({"--stress", "0"}), "--stress"},
      {but({"--stress", "1.401298464324817e-45"}), "--stress"},
      {but({"--stress", "1393796574908163946345982392040522594123776"}), "--stress"},
      {but({"--label-smoothing", "1"}), "--label-smoothing"},
      {but({"--label-smoothing", "0.99999999"}), "--label-smoothing"},
      {but({"--class-weights", "1,2"}), "--class-weights: there are 2 for 10 classes"},
      {but({"--class-weights", "1,1,1,1,1,1,1,1,1,0"}), "--class-weights"},
      {but({"--class-weights", "1,heavy"}), "--class-weights"},
      {but({"--class-weights", "1,,1,1,1,1,1,1,1,1,1"}), "--class-weights 1,,1"},
      {but({"--class-weights", "1,1,1,1,1,1,1,1,1,1,"}), "--class-weights 1,1"},
      {but({"--schedule", "sometimes"}), "--schedule"},
      {but({"--schedule", "step:1,2,:0.1"}), "--schedule"},
      {but({"--optimizer", "nobody"}), "--optimizer"},
      {but({"--loss-scale", "-8"}), "--loss-scale"},
      {but({"--loss-scale", "0"}), "--loss-scale"},
      {but({"--loss-scale", "big"}), "--loss-scale"},
      {but({"--loss-scale", "dynamic:"}), "--loss-scale"},
      {but({"--loss-scale", "inf"}), "--loss-scale"},
      {but({"--device", "tpu"}), "--device"},
      {but({"--isa", "mmx"}), "--isa mmx"},
      {{"info", "--threads", "-1"}, "--threads"},
      {{"info", "--threads", "0x10"}, "--threads"},
      {{"info", "--threads", "+5"}, "--threads"},
      {{"info", "--threads", "1025"}, "--threads"},
      {{"info", "--precision", "f17"}, "--precision f17"},
      {but({"--seed", "-1"}), "--seed"},
      {but({"--crop", "28"}), "--crop 28"},
      {but({"--crop", "1.5"}), "--crop: '1.5' is not a whole number"},
      {but({"--patience", "1e3"}), "--patience: '1e3' is not a whole number"},
      {but({"--reflect"}), "--reflect: it says what --crop pads with, and there is no --crop"},
      {but({"--reflect", "--crop", "0"}), "--reflect: "},
      {but({"--alternate", "--crop", "2"}),
       "--alternate: it says when --flip mirrors an image, and there is no --flip"},
      {but({"--recipe", "airbench94", "--crop", "0"}), "(--no-reflect drops a recipe's)"},
      {but({"--recipe", "airbench94", "--no-flip"}), "(--no-alternate drops a recipe's)"},
      {{"train", "--net", "lenet5", "--data", "digits", "--epochs", "many"}, "--epochs"},
      {{"train", "--net", "lenet5", "--data", "digits", "--limit", "1000000"}, "--limit 1000000"},
      {{"train", "--net", "lenet5", "--data", "letters"}, "--data letters"},
      {{"bench", "--net", "lenet5", "--batch", "0"}, "--batch"},
      {{"bench", "--net", "lenet5", "--profile", "all"}, "--profile"},
      {{"info", "--net", "lenet7"}, "lenet7"},
      {{"eval"}, "--checkpoint"},
      {{"predict"}, "--checkpoint"},
      {{"predict", "--checkpoint", "x", "--split", "all"}, "--split"},
      {{"export"}, "--checkpoint"},
      {{"export", "--checkpoint", "x"}, "--packed"},
      {{"fetch", "letters"}, "halftone: data set 'letters' cannot"},
      {{"info", "--data", "letters"}, "--data letters"},
  };
  for (const Case& c : cases) expect_one_line(c, 2);
}

TEST(Cli, AMissingValueIsNeverTakenFromElsewhere) {
  const Folder folder;
  const std::vector<std::pair<std::string, Words>> commands = {
      {"train", {"--recipe", "--resume", "--out", "--json", "--trace", "--loss-scale", "--lr", "--isa", "--data-dir"}},
      {"eval", {"--checkpoint", "--data", "--data-dir", "--precision", "--json"}},
      {"predict", {"--checkpoint", "--split", "--out"}},
      {"export", {"--checkpoint", "--packed"}},
      {"info", {"--net", "--threads"}},
      {"fetch", {"--data-dir", "--out"}},
      {"bench", {"--profile", "--json", "--seconds"}},
  };
  for (const auto& [command, options] : commands)
    for (const std::string& option : options)
      for (const Words& words : {Words{option, ""}, Words{option + "="}, Words{option + "=", "value"},
                                 Words{option, "--help"}, Words{option}}) {
        Words all{command};
        all.insert(all.end(), words.begin(), words.end());
        expect_one_line({all, option + ": a value is missing"}, 2);
      }
}

TEST(Cli, ValuesMayLookLikeOtherWords) {
  const Folder folder;
  Program joined(
      {"bench", "--net=lenet5", "--batch", "1", "--seconds", "0", "--threads=1", "--json=" + folder / "a=b"});
  EXPECT_EQ(joined.wait(), 0) << joined.err();
  EXPECT_TRUE(std::filesystem::exists(folder / "a=b"));
  expect_one_line({{"train", "--net", "train", "--data", "digits"}, "--net train"}, 2);
  expect_one_line({but({"--lr", "-1"}), "--lr: '-1'"}, 2);
}

TEST(Cli, PlacesThatCannotBeWrittenAreFoundBeforeTraining) {
  const Folder folder;
  std::ofstream(folder / "file") << "somebody's";
  std::filesystem::create_directory(folder / "sub");
  std::filesystem::create_directory_symlink("sub", folder / "link");
  std::filesystem::create_symlink("a", folder / "dangling");
  const std::string file = folder / "file";
  for (const Words& words :
       {Words{"--out", file}, Words{"--out", file + "/deeper"}, Words{"--json", file + "/x.json"},
        Words{"--json", folder / "no/x.json"}, Words{"--json", folder / "sub"}, Words{"--trace", folder / "no/x.csv"},
        Words{"--json", folder / "a", "--trace", folder / "a"},
        Words{"--json", folder / "sub/x", "--trace", folder / "link/x"},
        Words{"--json", folder / "a", "--trace", folder / "sub/../a"},
        Words{"--json", folder / "dangling", "--trace", folder / "a"},
        Words{"--json", folder / "o", "--out", folder / "o/"}, Words{"--json", folder / "o/", "--out", folder / "o"},
        Words{"--json", folder / "o/model.safetensors", "--out", folder / "o"},
        Words{"--trace", folder / "sub/state.safetensors", "--out", folder / "link"},
        Words{"--json", folder / "sub/model.safetensors", "--resume", folder / "link"},
        Words{"--json", folder / "o/deeper/x", "--out", folder / "o"}}) {
    Program program(but(words));
    EXPECT_EQ(program.wait(), 2) << words[1];
    EXPECT_EQ(program.out(), "") << words[1];
    EXPECT_NE(program.err().find(words[0]), std::string::npos) << program.err();
  }
  EXPECT_EQ(text_of(file), "somebody's");
  EXPECT_FALSE(std::filesystem::exists(folder / "a") || std::filesystem::exists(folder / "o"));
}

TEST(Cli, WhatIsReadIsNotWrittenOver) {
  const Folder folder;
  const std::string from = folder / "from", model = from + "/model.safetensors", set = folder / "set.npz";
  ASSERT_EQ(Program(but({"--out", from})).wait(), 0);
  std::ofstream(set, std::ios::binary) << "an archive";
  const std::string before = text_of(model);
  const Words own = {"train", "--net", "mlp", "--data", "npz:" + set};
  const auto with = [](Words words, const Words& more) {
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  for (const Case& c : {Case{but({"--init-from", from, "--out", from}), "--out " + from + ": that is taken by"},
                        Case{but({"--init-from", model, "--out", from}), "--out " + from + ": that is taken by"},
                        Case{but({"--init-from", from, "--capsule", from}), "--capsule " + from},
                        Case{but({"--init-from", model, "--json", model}), "--json " + model},
                        Case{but({"--capsule", from}), "--capsule " + from + ": a checkpoint lies there"},
                        Case{with(own, {"--trace", set}), "--trace " + set + ": that is taken by --data"},
                        Case{with(own, {"--json", set}), "--json " + set + ": that is taken by --data"},
                        Case{{"doctor", "--net", "mlp", "--data", "npz:" + set, "--html", set}, "--html " + set},
                        Case{{"eval", "--checkpoint", from, "--data", "npz:" + set, "--json", set}, "--json " + set},
                        Case{{"predict", "--checkpoint", from, "--data", "npz:" + set, "--out", set}, "--out " + set}})
    expect_one_line(c, 2);
  EXPECT_EQ(text_of(model), before);
  EXPECT_EQ(text_of(set), "an archive");
}

TEST(Cli, ReportsMayLieBesideACheckpointInAFolderToBeMade) {
  const Folder folder;
  Program program(but({"--out", folder / "a/o", "--json", folder / "a/r.json", "--trace", folder / "a/o/t.csv"}));
  EXPECT_EQ(program.wait(), 0) << program.err();
  for (const char* file : {"a/r.json", "a/o/t.csv", "a/o/model.safetensors", "a/o/state.safetensors"})
    EXPECT_TRUE(std::filesystem::exists(folder / file)) << file;
  expect_one_line({{"eval", "--checkpoint", folder / "a/o", "--json", folder / "a/o/model.safetensors"}, "--json"}, 2);
}

#ifndef HALFTONE_SANITIZED  // whose allocators end the program
TEST(Cli, MemoryThatCannotBeHadIsAFailure) {
  for (const char* command : {"bench", "info"})
    expect_one_line({{command, "--net", "resnet50", "--batch", "1000000000"}, "--batch 1000000000"}, 1);
}
#endif

/// The exit status of the program where a shell runs it with these words.
int shell(const std::string& words, const std::string& before = "") {
  const int status = std::system((before + " exec " HALFTONE_PROGRAM " " + words).c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(Cli, StreamsThatCannotBeWrittenAreFailures) {
  EXPECT_EQ(shell("train 2>&-"), 2);
  EXPECT_EQ(shell("info >/dev/null"), 0);
  EXPECT_EQ(shell("info >&- 2>/dev/null"), 1);
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "there is no /dev/full";
  EXPECT_EQ(shell("train 2>/dev/full"), 2);
  EXPECT_EQ(shell("info >/dev/full 2>/dev/full"), 1);
  EXPECT_EQ(shell("--help >/dev/full 2>/dev/null"), 1);
}

TEST(Cli, AFileBeyondTheLimitOfItsSizeIsAFailure) {
  const Folder folder;
  const std::string err = folder / "err", out = folder / "out";
  EXPECT_EQ(shell("train --net lenet5 --data digits --limit 128 --epochs 1 --threads 1 --out " + out + " 2>" + err +
                      " >/dev/null",
                  "ulimit -f 100;"),
            1);
  EXPECT_NE(text_of(err).find("File too large"), std::string::npos) << text_of(err);
  EXPECT_TRUE(std::filesystem::is_empty(out));
}

TEST(Cli, DamagedCheckpointsFailAndLeaveNothing) {
  const Folder folder;
  const std::string out = folder / "out", json = folder / "left.json";
  const std::string model = out + "/model.safetensors", state = out + "/state.safetensors";
  ASSERT_EQ(Program(but({"--out", out})).wait(), 0);
  const std::string whole_model = text_of(model), whole_state = text_of(state);
  expect_one_line({but({"--resume", folder / "nowhere"}), "nowhere"}, 1);
  expect_one_line({{"train", "--net", "lenet5", "--data", "mnist", "--data-dir", "/nowhere"}, "/nowhere"}, 1);
  const auto damage = [](const std::string& file, const std::string& whole, int way) {
    std::ofstream(file, std::ios::binary) << (way == 0   ? whole.substr(0, whole.size() / 2)
                                              : way == 1 ? std::string(8, '\xff') + whole.substr(8)
                                                         : std::string());
  };
  const Words resume = but({"--resume", out, "--json", json, "--out", folder / "new"});
  const Words eval{"eval", "--checkpoint", out, "--json", json};
  for (const int way : {0, 1, 2}) {
    damage(state, whole_state, way);
    expect_one_line({resume, "state.safetensors"}, 1);
    damage(model, whole_model, way);
    expect_one_line({eval, "model.safetensors"}, 1);
    EXPECT_FALSE(std::filesystem::exists(json) || std::filesystem::exists(folder / "new"));
  }
  std::ofstream(state, std::ios::binary) << whole_state;
  expect_one_line({resume, "--epochs"}, 2);  // a damaged model is nothing to a resume: it has come past the state
  damage(state, whole_state, 2);
  std::ofstream(model, std::ios::binary) << whole_model;
  Program evaluated(eval);  // nor is a damaged state to an evaluation
  EXPECT_EQ(evaluated.wait(), 0) << evaluated.err();
}

TEST(Cli, ACheckpointThatSaysNonsenseOfItselfIsAtFault) {
  const Folder folder;
  const std::string out = folder / "out";
  ASSERT_EQ(Program(but({"--out", out, "--ema", "0.5"})).wait(), 0);
  const auto file = out + "/model.safetensors";
  const SafeTensors model = read_safetensors(file), state = read_safetensors(out + "/state.safetensors");
  for (const auto& [key, value] : {std::pair("net", "lenet7"),
                                   {"classes", "10x"},
                                   {"classes", ""},
                                   {"image", "28"},
                                   {"image", "28x28x-1"},
                                   {"mean", ""},
                                   {"mean", "1,2"},
                                   {"precision", "f17"},
                                   {"dtype", "i32"}}) {
    auto metadata = model.metadata;
    metadata[key] = value;
    write_safetensors(file, model.tensors, metadata);
    expect_one_line({{"eval", "--checkpoint", out}, out}, 1);
    expect_one_line({{"predict", "--checkpoint", out, "--out", folder / "p.csv"}, out}, 1);
    EXPECT_FALSE(std::filesystem::exists(folder / "p.csv"));
  }
  write_safetensors(file, model.tensors, model.metadata);
  const auto with_nan = [](SafeTensors content, const std::string& name) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    for (StoredTensor& tensor : content.tensors)
      if (tensor.name == name) std::memcpy(tensor.data.data(), &nan, sizeof nan);
    write_safetensors(content.file, content.tensors, content.metadata);
  };
  with_nan(model, "conv1.weight");
  expect_one_line({{"eval", "--checkpoint", out}, "tensor conv1.weight"}, 1);
  with_nan(model, "raw.conv1.weight");
  expect_one_line({{"eval", "--checkpoint", out, "--raw"}, "tensor raw.conv1.weight"}, 1);
  SafeTensors large = model;  // finite, but its logits are not
  for (StoredTensor& tensor : large.tensors)
    for (std::size_t i = 0; i < tensor.data.size(); i += sizeof(float)) {
      const float most = std::numeric_limits<float>::max();
      std::memcpy(&tensor.data[i], &most, sizeof most);
    }
  write_safetensors(file, large.tensors, large.metadata);
  for (const char* command : {"eval", "predict"})
    expect_one_line({{command, "--checkpoint", out}, "image 0: the net's output in f32 is not finite"}, 1);
  with_nan(state, "average.conv1.weight");
  expect_one_line({but({"--ema", "0.5", "--resume", out}), "tensor average.conv1.weight"}, 1);
}

TEST(Cli, AnotherRunsCheckpointIsRefused) {
  const Folder folder;
  const std::string out = folder / "out";
  ASSERT_EQ(Program(but({"--out", out})).wait(), 0);
  const Case cases[] = {
      {{"--precision", "f16"}, "precision"},
      {{"--optimizer", "adam"}, "optimizer"},
      {{"--ema", "0.5"}, "ema"},
      {{"--seed", "2"}, "seed"},
      {{"--batch", "64"}, "batch"},
      {{"--stress", "2"}, "stress"},
      {{"--loss-scale", "8"}, "loss-scale"},
  };
  for (const Case& c : cases) {
    Words words = but(c.words);
    words.insert(words.end(), {"--resume", out});
    expect_one_line({words, c.names}, 2);
  }
  expect_one_line({but({"--resume", out}), "--epochs"}, 2);  // has seen them all
}

}  // namespace
}  // namespace halftone
