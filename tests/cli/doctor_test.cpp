#include <gtest/gtest.h>

#include "tests/cli/program.hpp"

namespace halftone {
namespace {

std::vector<std::string> doctor(std::vector<std::string> more) {
  std::vector<std::string> words = {"doctor", "--net", "gupta", "--data", "digits", "--limit", "400", "--batch", "50"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

TEST(DoctorProgram, WritesWhatItFound) {
  const Folder folder;
  const std::string json = folder / "d.json", html = folder / "d.html";
  Program program(doctor({"--steps", "40", "--precisions", "bf16,f16", "--precision", "f16", "--loss-scale", "16",
                          "--json", json, "--html", html}));
  ASSERT_EQ(program.wait(), 0) << program.err();
  const auto found = json_of(json);
  EXPECT_LE(found["loss_scale"]["lowest"].get<double>(), found["loss_scale"]["highest"].get<double>());
  ASSERT_EQ(found["systems"].size(), 3u) << "the last is the one that --loss-scale describes";
  for (const char* scale : {"none", "dynamic", "16"}) {
    bool seen = false;
    for (const auto& system : found["systems"]) {
      seen = seen || system["loss_scale"] == scale;
      EXPECT_FALSE(system["reason"].get<std::string>().empty());
      EXPECT_TRUE(system["verdict"] == "fine" || system["verdict"] == "risky" || system["verdict"] == "fails");
    }
    EXPECT_TRUE(seen) << scale;
  }
  for (const auto& node : found["nodes"]) {
    double counted = 0;
    for (const auto& [exponent, count] : node["exponents"].items()) counted += count.get<double>();
    const double numbers = node["numbers"];
    EXPECT_NEAR(counted + numbers * node["zeros"].get<double>(), numbers, 0.5) << node["node"] << node["role"];
    EXPECT_FALSE(node["suggested"].get<std::string>().empty());
  }
  EXPECT_TRUE(found["suggested"]["options"].get<std::string>().starts_with("--precision "));
  const std::string page = text_of(html);
  for (const char* what : {"<svg", "Gradients of activations", "conv1", "What to do", "prefers-color-scheme: dark"})
    EXPECT_NE(page.find(what), std::string::npos) << what;
  for (const char* what : {"http://", "https://", "<script"}) EXPECT_EQ(page.find(what), std::string::npos) << what;
}

TEST(DoctorProgram, SaysWhatIsWrong) {
  const auto complaint = [](std::vector<std::string> more) {
    Program program(doctor(std::move(more)));
    EXPECT_EQ(program.wait(), 2);
    return program.err();
  };
  EXPECT_NE(complaint({"--steps", "10"}).find("--steps"), std::string::npos);
  EXPECT_NE(complaint({"--precisions", "f17"}).find("f17"), std::string::npos);
  EXPECT_NE(complaint({"--precisions", "binary"}).find("binary"), std::string::npos);
  EXPECT_NE(complaint({"--precisions", "f16", "--loss-scale", "16"}).find("--loss-scale"), std::string::npos);
  EXPECT_NE(complaint({"--out", "x"}).find("--out"), std::string::npos);
  EXPECT_NE(complaint({"--html", "no/such/folder/d.html"}).find("--html"), std::string::npos);
}

}  // namespace
}  // namespace halftone
