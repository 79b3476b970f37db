#include <fmt/format.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include "halftone/io/atomic_file.hpp"
#include "halftone/io/safetensors.hpp"
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
  Program program(train(capsule, {"--precision", "bf16", "--isa", "baseline", "--algorithms", "direct"}));
  EXPECT_EQ(program.wait(), 0) << program.err();
  Program replay({"replay", capsule, "--threads", "1"});  // all else is the capsule's
  EXPECT_EQ(replay.wait(), 0) << replay.err();
  EXPECT_NE(replay.out().find("all numbers are finite"), std::string::npos) << replay.out();
}

TEST(CapsuleProgram, RepeatsAStepOfWhichAPartIsFrozen) {
  const Folder folder;
  const std::string capsule = folder / "c";
  Program program(train(capsule, {"--freeze", "dense2:0.5", "--clip-norm", "0.1"}));
  EXPECT_EQ(program.wait(), 0) << program.err();
  Program replay({"replay", capsule, "--threads", "1"});
  EXPECT_EQ(replay.wait(), 0) << replay.err();
  EXPECT_NE(replay.out().find("the same bits"), std::string::npos) << replay.out();
}

TEST(CapsuleProgram, LeavesAFolderThatAnotherTrainingHoldsAlone) {
  const Folder folder;
  const std::string capsule = folder / "c";
  std::filesystem::create_directory(capsule);
  const FolderLock held(capsule);
  Program program(train(capsule, {}));
  EXPECT_EQ(program.wait(), 1);
  EXPECT_EQ(program.out(), "") << "it is told before the first step";
  EXPECT_NE(program.err().find("--capsule " + capsule + ": the folder"), std::string::npos) << program.err();
  EXPECT_TRUE(std::filesystem::is_empty(capsule));
}

/// With checksums that are right.
TEST(CapsuleProgram, HostileOnesAreOneSentence) {
  const Folder folder;
  const std::string capsule = folder / "c", file = folder / "c/capsule.safetensors";
  Program program(train(capsule, {}));
  ASSERT_EQ(program.wait(), 0) << program.err();
  const SafeTensors whole = read_safetensors(file);
  const auto complaint = [&](SafeTensors changed) {
    for (const StoredTensor& tensor : changed.tensors)
      changed.metadata["crc." + tensor.name] =
          fmt::format("{:08x}", ::crc32_z(0, reinterpret_cast<const Bytef*>(tensor.data.data()), tensor.data.size()));
    write_safetensors(file, changed.tensors, changed.metadata);
    Program replay({"replay", capsule});
    EXPECT_EQ(replay.wait(), 1);
    EXPECT_NE(replay.err().find(capsule), std::string::npos) << replay.err();
    return replay.err();
  };
  for (const char* batches : {"", "x", "nan", "-3", "0", "1e300"}) {
    SafeTensors changed = whole;
    changed.metadata["batches"] = batches;
    EXPECT_NE(complaint(changed).find("batches"), std::string::npos) << batches;
  }
  for (const char* words : {"", "[1]", "{}", "[\"--nonsense=1\"]"}) {
    SafeTensors changed = whole;
    changed.metadata["words"] = words;
    complaint(changed);
  }
  for (const std::size_t bytes : {0u, 27u, 40u}) {
    SafeTensors changed = whole;
    for (StoredTensor& tensor : changed.tensors)
      if (tensor.name == "input.labels") tensor.data.resize(bytes), tensor.shape = {static_cast<std::int64_t>(bytes)};
    EXPECT_NE(complaint(changed).find("labels"), std::string::npos) << bytes;
  }
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
  EXPECT_NE(complaint(train(folder / "c", {"--out", folder / "x/../c"}), 2).find("--capsule"), std::string::npos);
  EXPECT_NE(complaint(train("/dev/null/c", {}), 2).find("--capsule"), std::string::npos);
}

}  // namespace
}  // namespace halftone
