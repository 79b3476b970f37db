#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <thread>

#include "cli/plot.hpp"
#include "tests/cli/program.hpp"

namespace halftone {
namespace {

std::vector<std::string> study_in(const std::string& out, std::vector<std::string> more = {}) {
  std::vector<std::string> words = {"study",
                                    "--net",
                                    "gupta",
                                    "--data",
                                    "digits",
                                    "--limit",
                                    "200",
                                    "--batch",
                                    "50",
                                    "--epochs",
                                    "1",
                                    "--seeds",
                                    "2",
                                    "--out",
                                    out,
                                    "--lr",
                                    "0.05",
                                    "--precisions",
                                    "f32,f16,fixed:6.10:nearest"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

std::vector<std::string> lines_of(const std::string& file) {
  std::vector<std::string> lines;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

TEST(Study, GoesOnWhereItWasKilled) {
  const Folder folder;
  const std::string out = folder / "s", whole = folder / "whole";
  Program killed(study_in(out));
  const auto began = std::chrono::steady_clock::now();
  while (lines_of(out + "/runs.csv").size() < 3 && std::chrono::steady_clock::now() - began < std::chrono::seconds(60))
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  ::kill(killed.id(), SIGKILL);
  killed.wait();
  const auto before = lines_of(out + "/runs.csv");
  ASSERT_GE(before.size(), 3u);

  Program again(study_in(out));
  ASSERT_EQ(again.wait(), 0) << again.err();
  const auto rows = lines_of(out + "/runs.csv");
  EXPECT_EQ(rows.size(), 7u);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), rows.begin()));

  // The same as a study that nobody stopped, and each run the same as train's.
  Program other(study_in(whole));
  ASSERT_EQ(other.wait(), 0) << other.err();
  const auto study = json_of(out + "/study.json"), expected = json_of(whole + "/study.json");
  ASSERT_EQ(study["systems"].size(), 3u);
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_EQ(study["systems"][i]["test_error"], expected["systems"][i]["test_error"]);
  const std::string report = folder / "train.json";
  Program train({"train", "--net", "gupta", "--data", "digits", "--limit", "200", "--batch", "50", "--epochs", "1",
                 "--lr", "0.05", "--seed", "2", "--precision", "f16", "--json", report});
  ASSERT_EQ(train.wait(), 0) << train.err();
  EXPECT_EQ(study["systems"][1]["test_error"][1], json_of(report)["final"]["test_error"]);
  EXPECT_EQ(study["systems"][0]["verdict"], "reference");
  for (const char* role : {"activations", "activation_gradients", "weights", "weight_gradients", "update"})
    EXPECT_GT(study["exponents"][role]["exponents"].size(), 5u) << role;
  EXPECT_EQ(study["exponents"], expected["exponents"]);
  for (const char* what : {"Where the numbers lie", ">fixed:6.10<", ">f16<", ">updates of weights<"})
    EXPECT_NE(text_of(out + "/report.html").find(what), std::string::npos) << what;
}

TEST(Study, AFolderHoldsOneStudy) {
  const Folder folder;
  const std::string out = folder / "s";
  ASSERT_EQ(Program(study_in(out)).wait(), 0);
  Program other(study_in(out, {"--momentum", "0.5"}));
  EXPECT_EQ(other.wait(), 2);
  EXPECT_NE(other.err().find("momentum 0.5: the study in"), std::string::npos) << other.err();

  // More seeds and systems go on.
  std::vector<std::string> more = study_in(out);
  more.back() += ",bf16";
  Program longer(more);
  EXPECT_EQ(longer.wait(), 0) << longer.err();
  EXPECT_EQ(lines_of(out + "/runs.csv").size(), 9u);
}

TEST(Study, SaysWhatIsWrongInOneLine) {
  const Folder folder;
  const auto says = [](std::vector<std::string> words, const std::string& what) {
    Program program(std::move(words));
    EXPECT_EQ(program.wait(), 2);
    EXPECT_NE(program.err().find(what), std::string::npos) << program.err();
  };
  says({"study", "--net", "gupta", "--data", "digits", "--precisions", "f32"}, "--out is missing");
  says(study_in(folder / "s", {"--resume", "x"}), "a study writes its own files");
  std::vector<std::string> twice = study_in(folder / "s");
  twice.back() = "f32,f32";
  says(twice, "--precisions: f32 stands there twice");
  twice.back() = "f32,f17";
  says(twice, "f17");
}

TEST(Plot, TextIsEscapedAndAxesHoldAllNumbers) {
  EXPECT_EQ(cli::escaped("a<b & \"c\">"), "a&lt;b &amp; &quot;c&quot;&gt;");
  const std::string dots = cli::dot_plot("error", {{"<f32>", 0, {1, 2, 4}}});
  EXPECT_EQ(dots.find("<f32>"), std::string::npos);
  // An axis that ends at 1.05 times the largest: 170 + 530 * 4 / 4.2.
  EXPECT_NE(dots.find("cx=\"674.8\""), std::string::npos) << dots;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::string lines = cli::line_plot("x", "y", {{"a", 0, {0, 1, 2, 3}, {1, nan, 1, 2}}});
  EXPECT_NE(lines.find("M60.0 156.0M386.7 156.0L550.0 12.0"), std::string::npos) << lines;  // the pen is lifted at NaN
}

}  // namespace
}  // namespace halftone
