#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <thread>

#include "cli/plot.hpp"
#include "tests/cli/program.hpp"
#include "tests/cli/small_mnist.hpp"

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

/// A minute at most.
void wait_for_rows(const std::string& out, std::size_t rows) {
  const auto began = std::chrono::steady_clock::now();
  while (lines_of(out + "/runs.csv").size() < rows &&
         std::chrono::steady_clock::now() - began < std::chrono::seconds(60))
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

TEST(Study, GoesOnWhereItWasKilled) {
  const Folder folder;
  const std::string out = folder / "s", whole = folder / "whole";
  Program killed(study_in(out));
  wait_for_rows(out, 3);
  ::kill(killed.id(), SIGKILL);
  killed.wait();
  const auto before = lines_of(out + "/runs.csv");
  ASSERT_GE(before.size(), 3u);
  ASSERT_LT(before.size(), 7u) << "nothing is left to go on with";

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
  for (const char* of_train : {"--resume", "--json", "--trace", "--keep", "--precision", "--range-steps", "--notice"})
    says(study_in(folder / "s", {of_train, "x"}), std::string("unknown option ") + of_train);
  std::vector<std::string> twice = study_in(folder / "s");
  twice.back() = "f32,f32";
  says(twice, "--precisions: f32 stands there twice");
  twice.back() = "f32,f17";
  says(twice, "f17");
  twice.back() = "f32,f16+nosuch=f32";
  says(twice, "nosuch");
  EXPECT_FALSE(std::filesystem::exists(folder / "s")) << "a number system that cannot be is found before the first run";
}

/// A study of one run on files of MNIST's kind, in `out`.
std::vector<std::string> small_study(const Folder& folder, const std::string& out) {
  return {"study", "--net", "mlp",  "--data",   "mnist", "--data-dir", folder / "", "--out",        out,  "--seeds",
          "1",     "--lr",  "0.05", "--epochs", "1",     "--batch",    "32",        "--precisions", "f32"};
}

TEST(Study, AFolderHoldsOneStudyOfTheSameData) {
  const Folder folder;
  testing::write_small_mnist(folder / "");
  const std::string out = folder / "s";
  Program first(small_study(folder, out));
  ASSERT_EQ(first.wait(), 0) << first.err();
  std::fstream(folder / "train-images-idx3-ubyte", std::ios::binary | std::ios::in | std::ios::out).seekp(500).put('x');
  std::vector<std::string> other = small_study(folder, out);
  for (const char* precision : {"f32", "f16"}) {
    other.back() = precision;
    Program program(other);
    EXPECT_EQ(program.wait(), 2);
    EXPECT_NE(program.err().find("data-checksum"), std::string::npos) << program.err();
  }
  testing::write_small_mnist(folder / "");
  EXPECT_EQ(Program(other).wait(), 0);
}

TEST(Study, ARunThatIsNoneIsNamed) {
  const Folder folder;
  testing::write_small_mnist(folder / "");
  const std::string out = folder / "s", file = out + "/runs/f32-1.json";
  Program first(small_study(folder, out));
  ASSERT_EQ(first.wait(), 0) << first.err();
  const auto whole = json_of(file);
  std::vector<std::string> hostile = {"", "{}", "[]", "null", "{\"final\": {}}", "\xff"};
  for (const auto& [member, value] : whole.items()) {
    nlohmann::json without = whole, other = whole;
    without.erase(member);
    other[member] = nlohmann::json::array({"x"});
    const bool needed = member != "precision" && member != "seed" && member != "parameters" &&
                        member != "interrupted" && member != "left_over_batches" && member != "left_out" &&
                        member != "views";
    if (needed) hostile.insert(hostile.end(), {without.dump(), other.dump()});
  }
  nlohmann::json curve = whole;
  curve["curve"]["loss"].clear();
  hostile.push_back(curve.dump());
  ASSERT_GE(hostile.size(), 30u);
  const auto is_named = [&](const std::string& what) {
    Program program(small_study(folder, out));
    EXPECT_EQ(program.wait(), 1) << what;
    EXPECT_NE(program.err().find(file), std::string::npos) << what << program.err();
  };
  for (const std::string& text : hostile) {
    std::ofstream(file, std::ios::binary) << text;
    is_named(text);
  }
  std::filesystem::remove(file);
  std::filesystem::create_directory(file);
  is_named("a folder");
  std::filesystem::remove(file);
  Program again(small_study(folder, out));  // does that run again
  EXPECT_EQ(again.wait(), 0) << again.err();
  EXPECT_EQ(json_of(file)["final"], whole["final"]);

  auto renamed = small_study(folder, out);
  std::filesystem::copy_file(file, out + "/runs/f16-1.json");
  renamed.back() = "f32,f16";
  Program other(renamed);
  EXPECT_EQ(other.wait(), 2);
  EXPECT_NE(other.err().find("f16"), std::string::npos) << other.err();
}

TEST(Study, ATornRowIsWrittenAgain) {
  const Folder folder;
  testing::write_small_mnist(folder / "");
  const std::string out = folder / "s", file = out + "/runs.csv";
  ASSERT_EQ(Program(small_study(folder, out)).wait(), 0);
  const std::string whole = text_of(file);
  for (const std::size_t left : {whole.size() - 1, whole.size() - 9, std::size_t{10}, std::size_t{0}}) {
    std::filesystem::resize_file(file, left);
    ASSERT_EQ(Program(small_study(folder, out)).wait(), 0);
    EXPECT_EQ(text_of(file), whole);
  }
}

/// One step a run, so that nearly all of its time is that of its evaluation.
TEST(Study, AnInterruptEndsItAfterTheRunningEvaluation) {
  const Folder folder;
  const std::string out = folder / "s";
  Program program({"study",   "--net",        "gupta",    "--data",    "digits",  "--limit", "50",
                   "--batch", "50",           "--epochs", "1",         "--seeds", "20",      "--lr",
                   "0.05",    "--precisions", "f32",      "--threads", "1",       "--out",   out});
  wait_for_rows(out, 3);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  ::kill(program.id(), SIGTERM);
  EXPECT_EQ(program.wait(), 130);
  EXPECT_NE(program.err().find("of 20 runs; the same command goes on"), std::string::npos) << program.err();
  EXPECT_LT(lines_of(out + "/runs.csv").size(), 15u);
}

TEST(Plot, TextIsEscapedAndAxesHoldAllNumbers) {
  EXPECT_EQ(cli::escaped("a<b & \"c\">"), "a&lt;b &amp; &quot;c&quot;&gt;");
  const std::string dots = cli::dot_plot("error", {{"<f32>", 0, {1, 2, 4}}});
  EXPECT_EQ(dots.find("<f32>"), std::string::npos);
  // An axis that ends at 1.05 times the largest: 170 + 530 * 4 / 4.2.
  EXPECT_NE(dots.find("cx=\"674.8\""), std::string::npos) << dots;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::string lines = cli::line_plot("x", "y", {{"a", 0, {0, 1, 2, 3}, {1, nan, 1, 2}}});
  EXPECT_NE(lines.find("M60.0 156.0M406.7 156.0L580.0 12.0"), std::string::npos) << lines;  // the pen is lifted at NaN
  const std::string within = cli::line_plot("x", "y", {{"a", 0, {0, 1}, {0.15, 0.7}}}, true);
  for (const char* tick : {">0.2<", ">0.5<"}) EXPECT_NE(within.find(tick), std::string::npos) << within;
  const std::string wide = cli::dot_plot("error", {{std::string(40, 'm'), 0, {1}}});
  EXPECT_NE(wide.find("x=\"282.0\" y=\"25.0\" text-anchor=\"end\""), std::string::npos) << wide;
}

}  // namespace
}  // namespace halftone
