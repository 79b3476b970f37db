#include <gtest/gtest.h>

#include "tests/cli/program.hpp"

namespace halftone {
namespace {

std::vector<std::string> train(const std::string& capsule, std::vector<std::string> more) {
  std::vector<std::string> words = {"train",   "--net", "gupta",    "--data", "digits",    "--limit", "200",
                                    "--batch", "50",    "--epochs", "1",      "--capsule", capsule};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

TEST(CapsuleProgram, KeepsTheStepThatWentWrong) {
  const Folder folder;
  const std::string capsule = folder / "c";
  Program program(train(capsule, {"--precision", "f16", "--loss-scale", "65536", "--stress", "4096", "--flip"}));
  EXPECT_EQ(program.wait(), 1) << "no step was committed";
  Program replay({"replay", capsule, "--threads", "1"});
  EXPECT_EQ(replay.wait(), 0) << replay.err();
  EXPECT_NE(replay.out().find("step 1 of gupta on digits in f16: the same bits"), std::string::npos) << replay.out();
  EXPECT_NE(replay.out().find("first bad tensor: cross_entropy1.softmax_cross_entropy_gradient1, role "
                              "activation_gradients, backward: "),
            std::string::npos)
      << replay.out();
}

TEST(CapsuleProgram, KeepsTheLastStepWhereNoneWentWrong) {
  const Folder folder;
  const std::string capsule = folder / "c";
  Program program(train(capsule, {"--precision", "bf16"}));
  EXPECT_EQ(program.wait(), 0) << program.err();
  Program replay({"replay", capsule});
  EXPECT_EQ(replay.wait(), 0) << replay.err();
  EXPECT_NE(replay.out().find("all numbers are finite"), std::string::npos) << replay.out();
}

TEST(CapsuleProgram, SaysWhatIsWrong) {
  const Folder folder;
  const auto complaint = [](std::vector<std::string> words, int status) {
    Program program(std::move(words));
    EXPECT_EQ(program.wait(), status);
    return program.err();
  };
  EXPECT_NE(complaint({"replay", folder / "none"}, 1).find("capsule.safetensors"), std::string::npos);
  EXPECT_NE(complaint(train(folder / "c", {"--accumulate", "2"}), 2).find("--capsule"), std::string::npos);
  EXPECT_NE(complaint(train("/dev/null/c", {}), 2).find("--capsule"), std::string::npos);
}

}  // namespace
}  // namespace halftone
