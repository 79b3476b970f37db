#include <gtest/gtest.h>

#include "tests/cli/program.hpp"

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
      {{"trian"}, "trian"},
      {{"train"}, "--net"},
      {{"train", "--net", "lenet5"}, "--data"},
      {{"train", "--net", "lenet7", "--data", "digits"}, "lenet7"},
      {{"train", "--recipe", "nothing"}, "--recipe nothing"},
      {but({"--flavour", "x"}), "--flavour"},
      {but({"--precision", "f17"}), "--precision f17"},
      {but({"--batch", "0"}), "--batch"},
      {but({"--batch", "-5"}), "--batch"},
      {but({"--batch", "257"}), "257"},
      {but({"--lr", "nan"}), "--lr"},
      {but({"--lr", "0"}), "--lr"},
      {but({"--lr", "fast"}), "--lr"},
      {but({"--lr"}), "--lr"},
      {but({"--momentum", "2"}), "--momentum"},
      {but({"--accumulate", "0"}), "--accumulate"},
      {but({"--clip-norm", "-1"}), "--clip-norm"},
      {but({"--ema", "1"}), "--ema"},
      {but({"--stress", "0"}), "--stress"},
      {but({"--label-smoothing", "1.5"}), "--label-smoothing"},
      {but({"--schedule", "sometimes"}), "--schedule"},
      {but({"--optimizer", "nobody"}), "--optimizer"},
      {but({"--loss-scale", "-8"}), "--loss-scale"},
      {but({"--loss-scale", "0"}), "--loss-scale"},
      {but({"--loss-scale", "big"}), "--loss-scale"},
      {but({"--loss-scale", "dynamic:"}), "--loss-scale"},
      {but({"--loss-scale", "inf"}), "--loss-scale"},
      {but({"--device", "tpu"}), "--device"},
      {but({"--isa", "amx"}), "--isa amx"},
      {but({"--isa", "mmx"}), "--isa mmx"},
      {{"info", "--threads", "-1"}, "--threads"},
      {but({"--seed", "-1"}), "--seed"},
      {but({"--crop", "28"}), "crop"},
      {{"train", "--net", "lenet5", "--data", "digits", "--epochs", "many"}, "--epochs"},
      {{"train", "--net", "lenet5", "--data", "digits", "--limit", "1000000"}, "1000000"},
      {{"train", "--net", "lenet5", "--data", "letters"}, "letters"},
      {{"train", "--net", "lenet5", "--data", "mnist", "--data-dir", "/nowhere"}, "/nowhere"},
      {{"bench", "--net", "lenet5", "--batch", "0"}, "--batch"},
      {{"bench", "--net", "lenet5", "--profile", "all"}, "--profile"},
      {{"info", "--net", "lenet7"}, "lenet7"},
      {{"eval"}, "--checkpoint"},
      {{"fetch", "letters"}, "letters"},
  };
  for (const Case& c : cases) expect_one_line(c, 2);
}

TEST(Cli, PlacesThatCannotBeWrittenAreFoundBeforeTraining) {
  const Folder folder;
  std::ofstream(folder / "file") << "somebody's";
  std::filesystem::create_directory(folder / "sub");
  const std::string file = folder / "file";
  for (const Words& words :
       {Words{"--out", file}, Words{"--out", file + "/deeper"}, Words{"--json", file + "/x.json"},
        Words{"--json", folder / "no/x.json"}, Words{"--json", folder / "sub"}, Words{"--trace", folder / "no/x.csv"},
        Words{"--json", folder / "a", "--trace", folder / "a"}}) {
    Program program(but(words));
    EXPECT_EQ(program.wait(), 2) << words[1];
    EXPECT_EQ(program.out(), "") << words[1];
    EXPECT_NE(program.err().find(words[0]), std::string::npos) << program.err();
  }
  EXPECT_EQ(text_of(file), "somebody's");
  EXPECT_FALSE(std::filesystem::exists(folder / "a"));
}

TEST(Cli, DamagedCheckpointsFailAndLeaveNothing) {
  const Folder folder;
  const std::string out = folder / "out", model = out + "/model.safetensors", json = folder / "left.json";
  ASSERT_EQ(Program(but({"--out", out})).wait(), 0);
  const std::string whole = text_of(model);
  expect_one_line({but({"--resume", folder / "nowhere"}), "nowhere"}, 1);
  for (const std::string& damaged :
       {whole.substr(0, whole.size() / 2), std::string(8, '\xff') + whole.substr(8), std::string()}) {
    std::ofstream(model, std::ios::binary) << damaged;
    expect_one_line({but({"--resume", out, "--json", json, "--out", folder / "new"}), "model.safetensors"}, 1);
    expect_one_line({{"eval", "--checkpoint", out, "--json", json}, "model.safetensors"}, 1);
    EXPECT_FALSE(std::filesystem::exists(json) || std::filesystem::exists(folder / "new"));
  }
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
