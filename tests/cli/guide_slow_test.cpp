#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <sstream>

#include "halftone/data/image.hpp"
#include "halftone/halftone.hpp"
#include "tests/cli/program.hpp"
#include "tests/cli/small_mnist.hpp"
#include "tests/data/files.hpp"
#include "tests/data/own_files.hpp"

namespace halftone {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

/// The commands of the guide that call the program, in their order, each as its words behind the program's name.
std::vector<Words> commands_of(const std::string& text) {
  std::vector<Words> commands;
  std::istringstream lines(text);
  bool fenced = false, inside = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("```")) {
      fenced = !fenced;
      inside = fenced && line == "```";
    }
    const std::string program = "build/bin/halftone ";
    if (!inside || !line.starts_with(program)) continue;
    std::istringstream rest(line.substr(program.size()));
    Words words;
    for (std::string word; rest >> word;) words.push_back(word);
    commands.push_back(words);
  }
  return commands;
}

/// The same with little data: what it costs, not what it does, is changed.
Words quick(Words words) {
  const auto set = [&](const std::string& option, const std::string& value, bool always) {
    const auto found = std::find(words.begin(), words.end(), option);
    if (found != words.end())
      *(found + 1) = value;
    else if (always)
      words.insert(words.end(), {option, value});
  };
  const std::string command = words[0];
  const bool trains = command == "train" || command == "study" || command == "doctor";
  set("--epochs", "1", false);
  set("--seeds", "1", false);
  if (trains) set("--batch", "16", true);
  const bool own =
      std::any_of(words.begin(), words.end(), [](const auto& word) { return word.find(':') != std::string::npos; });
  if (trains && !own) set("--limit", "64", true);
  if (command == "doctor") set("--steps", "40", true);
  if (command == "bench") set("--batch", "8", true), set("--seconds", "0.01", true);
  return words;
}

void write_cifar10(const fs::path& folder) {
  fs::create_directories(folder);
  for (const char* name : {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
                           "data_batch_5.bin", "test_batch.bin"}) {
    std::string content(10000 * 3073, '\0');
    for (std::size_t i = 0; i < content.size(); ++i)
      content[i] = static_cast<char>(i % 3073 == 0 ? i / 3073 % 10 : bits(1, 0, 0, i / 4096) + i % 251);
    testing::write(folder / name, content);
  }
}

void write_flowers(const fs::path& folder, int each) {
  for (int i = 0; i < 3 * each; ++i) {
    const fs::path place = folder / std::to_string(i % 3);
    fs::create_directories(place);
    std::vector<std::uint8_t> pixels(40 * 40 * 3);
    for (std::size_t k = 0; k < pixels.size(); ++k)
      pixels[k] = static_cast<std::uint8_t>(bits(2, 0, static_cast<std::uint32_t>(i), k));
    testing::write(place / (std::to_string(i) + ".png"), testing::png(40, 40, 3, pixels));
  }
}

void write_net(const fs::path& file) {
  Graph graph;
  const Value images = graph.input("images", {1, 64, 64, 3});
  const Value x = relu(batch_norm(conv2d(images, 8, 3, {.stride = 4})));
  const Value logits = dense(global_avg_pool(relu(batch_norm(conv2d(x, 8, 3)))), 3);
  const int outputs[] = {logits.id()};
  const Parameters parameters(for_inference(graph, outputs), cpu_device(), {.gradients = false});
  write_onnx(file, logits, parameters);
}

struct Guide : ::testing::Test {
  Folder folder;
  const fs::path before = fs::current_path();

  void SetUp() override {
    if (image_formats().find("png") == std::string::npos || !has_onnx()) GTEST_SKIP() << "built without PNG or ONNX";
    write_cifar10(folder / "data/cifar10");
    fs::create_directories(folder / "data/mnist");
    testing::write_small_mnist(folder / "data/mnist");
    write_flowers(folder / "flowers", 12), write_flowers(folder / "new_flowers", 2);
    write_net(folder / "my.onnx");
    const Dataset digits = rendered_digits(Split::train, 64);
    const auto text = [](const auto& values) {
      return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof values[0]);
    };
    testing::write(folder / "set.npz",
                   testing::zip({{"x.npy", testing::npy("|u1", "(64, 28, 28, 1)", text(digits.pixels))},
                                 {"y.npy", testing::npy("<i4", "(64,)", text(digits.labels))}}));
    fs::current_path(folder / "");
  }
  ~Guide() override { fs::current_path(before); }
};

TEST_F(Guide, EachCommandWorksOnSmallData) {
  const testing::Environment data("HALFTONE_DATA", folder / "data");
  std::map<std::string, int> run;
  for (const Words& words : commands_of(text_of(HALFTONE_GUIDE))) {
    if (words[0] == "fetch") continue;  // needs the network
    std::string line;
    for (const std::string& word : words) line += word + ' ';
    Program program(quick(words));
    EXPECT_EQ(program.wait(), 0) << line << '\n' << program.err();
    ++run[words[0]];
  }
  for (const char* command : {"train", "eval", "predict", "study", "doctor", "replay", "export", "info", "bench"})
    EXPECT_GE(run[command], 1) << command << " is in none of the guide's recipes";
  Program typo({"train", "--nett", "lenet5"});
  EXPECT_EQ(typo.wait(), 2) << "the control";
}

}  // namespace
}  // namespace halftone
