#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <regex>
#include <sstream>

#include "halftone/data/image.hpp"
#include "halftone/data/rendered_digits.hpp"
#include "tests/cli/program.hpp"
#include "tests/data/own_files.hpp"

namespace halftone {
namespace {

using Words = std::vector<std::string>;

std::string run(const Words& words) {
  Program program(words);
  EXPECT_EQ(program.wait(), 0) << program.err();
  return program.out();
}

std::string refusal(const Words& words, int status = 2) {
  Program program(words);
  EXPECT_EQ(program.wait(), status);
  return program.err();
}

/// The first so many drawn digits as gray PNG files in `folder`/CLASS, of the class that `name(i)` says.
template <class Name>
void write_images(const std::string& folder, Split split, std::int64_t count, Name&& name) {
  const Dataset data = rendered_digits(split, count);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto* first = reinterpret_cast<const std::uint8_t*>(data.at(i));
    const std::string place = folder + "/" + name(data, static_cast<std::size_t>(i));
    std::filesystem::create_directories(place);
    std::ofstream(place + "/" + std::to_string(1000 + i) + ".png", std::ios::binary)
        << testing::png(28, 28, 1, {first, first + 784});
  }
}

void write_digits(const std::string& folder, Split split, std::int64_t count) {
  write_images(folder, split, count, [](const Dataset& data, std::size_t i) { return std::to_string(data.labels[i]); });
}

TEST(OwnData, AFolderOfImagesIsTrainedOnAndPredicted) {
  if (image_formats().find("png") == std::string::npos) GTEST_SKIP() << "built without libpng";
  const Folder folder;
  write_digits(folder / "set/train", Split::train, 300), write_digits(folder / "set/test", Split::test, 60);
  const std::string data = "folder:" + folder / "set";
  const Words train = {"train", "--net", "lenet5", "--data", data, "--epochs", "1", "--batch", "20", "--threads", "1"};
  EXPECT_NE(refusal(train).find("--image: folder:set needs the size"), std::string::npos);

  Words gray = train;
  gray.insert(gray.end(), {"--image", "28x28x1", "--out", folder / "run", "--json", folder / "r.json"});
  EXPECT_NE(run(gray).find("lenet5 (61706 parameters) on folder:set in f32"), std::string::npos);
  EXPECT_EQ(json_of(folder / "r.json")["data"], "folder:set");
  for (const char* file : {"run/model.safetensors", "run/state.safetensors"})
    EXPECT_EQ(text_of(folder / file).find("/set"), std::string::npos) << "a checkpoint holds no places";

  EXPECT_NE(refusal({"eval", "--checkpoint", folder / "run"}).find("--data is missing: a checkpoint does not tell"),
            std::string::npos);
  run({"eval", "--checkpoint", folder / "run", "--data", data, "--json", folder / "e.json", "--threads", "1"});
  EXPECT_EQ(json_of(folder / "e.json")["test_accuracy"], json_of(folder / "r.json")["epochs"][0]["test_accuracy"]);

  // Images of one class alone keep that class's label.
  std::filesystem::create_directories(folder / "new");
  std::filesystem::rename(folder / "set/test/7", folder / "new/7");
  run({"predict", "--checkpoint", folder / "run", "--data", "folder:" + folder / "new", "--out", folder / "p.csv",
       "--threads", "1"});
  std::istringstream lines(text_of(folder / "p.csv"));
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(line, "index,label,predicted,p0,p1,p2,p3,p4,p5,p6,p7,p8,p9,file");
  std::getline(lines, line);
  EXPECT_EQ(line.substr(0, 4), "0,7,");
  EXPECT_NE(line.find(",7/10"), std::string::npos);

  // Without folders there are no labels; all else is the same.
  std::filesystem::rename(folder / "new/7", folder / "loose");
  const std::string loose = "folder:" + folder / "loose";
  const std::string said =
      run({"predict", "--checkpoint", folder / "run", "--data", loose, "--out", folder / "q.csv", "--threads", "1"});
  EXPECT_NE(said.find("on folder:loose (all images) in f32, raw weights: no labels, "), std::string::npos) << said;
  const std::string with = std::regex_replace(
      std::regex_replace(text_of(folder / "p.csv"), std::regex("\n(\\d+),7,"), "\n$1,,"), std::regex(",7/"), ",");
  EXPECT_EQ(text_of(folder / "q.csv"), with);
  EXPECT_NE(refusal({"eval", "--checkpoint", folder / "run", "--data", loose}, 1).find("holds no folders"),
            std::string::npos);

  std::ofstream(folder / "set/train/3/0.png") << "broken";
  EXPECT_NE(refusal(gray, 1).find("1 of 301 images are broken; the first: " + folder / "set/train/3/0.png"),
            std::string::npos);
  gray.push_back("--skip-broken");
  const std::string left_out = "left out: 1 broken images of folder:set\n  " + folder / "set/train/3/0.png";
  EXPECT_NE(run(gray).find(left_out), std::string::npos);
  EXPECT_EQ(json_of(folder / "r.json")["left_out"], 1);
  const std::string seen =
      run({"doctor", "--net", "lenet5", "--data", data, "--image", "28x28x1", "--skip-broken", "--batch", "20",
           "--steps", "40", "--precisions", "bf16", "--threads", "1", "--json", folder / "d.json"});
  EXPECT_NE(seen.find(left_out), std::string::npos);
  EXPECT_EQ(json_of(folder / "d.json")["left_out"], 1);
}

/// Three classes of 12 images each, one of them with a comma in its name.
void write_vegetables(const std::string& folder) {
  write_images(folder, Split::train, 36, [](const Dataset&, std::size_t i) {
    return std::string(std::array{"Apple", "Pepper,_bell", "Zucchini"}[i % 3]);
  });
}

TEST(OwnData, NamesAndTheShareHeldOutAreKept) {
  if (image_formats().find("png") == std::string::npos) GTEST_SKIP() << "built without libpng";
  const Folder folder;
  write_vegetables(folder / "set");
  const std::string data = "folder:" + folder / "set", net = folder / "run";
  Words train = {
      "train",     "--net", "lenet5",  "--data",  data,    "--epochs", "1",      "--batch",         "9",
      "--threads", "1",     "--image", "28x28x1", "--out", net,        "--json", folder / "r.json", "--validation",
      "0.25"};
  run(train);
  const Words eval = {"eval", "--checkpoint", net, "--threads", "1", "--json", folder / "e.json", "--data"};
  const auto evaluated = [&](const std::string& other) {
    Words words = eval;
    words.push_back(other);
    return run(words);
  };
  EXPECT_NE(evaluated(data).find("lenet5 on folder:set (0.25 of each class) in f32, raw weights: test error"),
            std::string::npos);
  const auto results = json_of(folder / "e.json");
  EXPECT_EQ(results["images"], 9);
  EXPECT_EQ(results["test_accuracy"], json_of(folder / "r.json")["epochs"][0]["test_accuracy"]);
  EXPECT_EQ(results["by_class"][1]["class"], "Pepper,_bell");

  std::filesystem::create_directories(folder / "new");
  std::filesystem::copy(folder / "set/Zucchini", folder / "new/Zucchini");
  EXPECT_NE(evaluated("folder:" + folder / "new").find("folder:new (all images) in f32, raw weights: error "),
            std::string::npos);
  EXPECT_EQ(json_of(folder / "e.json")["by_class"][2]["images"], 12);
  EXPECT_EQ(json_of(folder / "e.json")["split"], "all");

  train.back() = "0.5";
  train.insert(train.end(), {"--resume", net});
  EXPECT_NE(refusal(train).find("has data folder:set with validation 0.25, not folder:set with validation 0.5"),
            std::string::npos);
}

/// An archive of 40 images to train on and 20 to test, of their types and shapes.
std::string two_parts(const std::string& train_type, const std::string& train_shape, const std::string& test_type,
                      const std::string& test_shape) {
  const auto pixels = [](const std::string& type, std::size_t count) {
    std::string bytes;
    for (std::size_t i = 0; i < count * 64; ++i) {
      const float number = static_cast<float>(i % 251);
      bytes.append(type == "|u1" ? std::string(1, static_cast<char>(i % 251))
                                 : std::string(reinterpret_cast<const char*>(&number), sizeof number));
    }
    return bytes;
  };
  std::string labels;
  for (int i = 0; i < 40; ++i) labels += static_cast<char>(i % 2);
  return testing::zip({{"x_train.npy", testing::npy(train_type, train_shape, pixels(train_type, 40))},
                       {"y_train.npy", testing::npy("|u1", "(40,)", labels)},
                       {"x_test.npy", testing::npy(test_type, test_shape, pixels(test_type, 20))},
                       {"y_test.npy", testing::npy("|u1", "(20,)", labels.substr(0, 20))}});
}

TEST(OwnData, ImagesOfAnotherSizeOrTypeAreRefusedBeforeTheFirstStep) {
  const Folder folder;
  const auto train_on = [&](const std::string& archive, const Words& more = {}) {
    std::ofstream(folder / "set.npz", std::ios::binary) << archive;
    Words words = {"train",     "--net",    "mlp",     "--data", "npz:" + folder / "set.npz",
                   "--threads", "1",        "--batch", "20",     "--epochs",
                   "1",         "--layout", "nhwc"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  const std::string as_trained = two_parts("<f4", "(40, 8, 8)", "<f4", "(20, 8, 8)");
  for (const auto& [type, shape] : {std::pair("<f4", "(20, 4, 16)"), {"<f4", "(20, 4, 4, 4)"}, {"|u1", "(20, 8, 8)"}}) {
    Program program(train_on(two_parts("<f4", "(40, 8, 8)", type, shape), {"--out", folder / "none"}));
    EXPECT_EQ(program.wait(), 2) << shape;
    EXPECT_EQ(program.out(), "");
    EXPECT_NE(program.err().find("images: the graph takes [1, 8, 8, 1] of f32, the images of npz:set.npz are"),
              std::string::npos)
        << program.err();
    EXPECT_FALSE(std::filesystem::exists(folder / "none"));
  }
  run(train_on(as_trained, {"--out", folder / "run"}));  // the control
  const Words from_it = train_on(two_parts("|u1", "(40, 8, 8)", "|u1", "(20, 8, 8)"), {"--init-from", folder / "run"});
  EXPECT_NE(refusal(from_it).find("--init-from " + folder / "run: its images are f32, those of npz:set.npz u8"),
            std::string::npos);
  EXPECT_NE(refusal({"eval", "--checkpoint", folder / "run", "--data", "npz:" + folder / "set.npz"}, 1)
                .find("its images are f32, those of npz:set.npz u8"),
            std::string::npos);
}

TEST(OwnData, AnArchiveOfArraysIsTrainedOn) {
  const Folder folder;
  const Dataset digits = rendered_digits(Split::train, 200);
  const auto bytes = [](const auto& values) {
    return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof values[0]);
  };
  std::ofstream(folder / "set.npz", std::ios::binary)
      << testing::zip({{"x.npy", testing::npy("|u1", "(200, 1, 28, 28)", bytes(digits.pixels))},
                       {"y.npy", testing::npy("<i4", "(200,)", bytes(digits.labels))}});
  Words train = {"train",   "--net", "lenet5",    "--data", "npz:" + folder / "set.npz", "--epochs", "1",
                 "--batch", "20",    "--threads", "1"};
  EXPECT_NE(refusal(train).find("--layout: x is |u1 of (200, 1, 28, 28)"), std::string::npos);
  train.insert(train.end(), {"--layout", "nchw"});
  EXPECT_NE(refusal(train).find("--validation: "), std::string::npos);
  train.insert(train.end(), {"--validation", "0.2", "--json", folder / "r.json", "--out", folder / "run"});
  run(train);
  EXPECT_EQ(json_of(folder / "r.json")["data"], "npz:set.npz");
  // Of the two layouts only one fits the net's image.
  run({"eval", "--checkpoint", folder / "run", "--data", "npz:" + folder / "set.npz", "--json", folder / "e.json"});
  std::int64_t held_out = 0;
  for (int label = 0; label < 10; ++label)
    held_out += std::lround(0.2 * static_cast<double>(std::ranges::count(digits.labels, label)));
  EXPECT_EQ(json_of(folder / "e.json")["images"], held_out);
  EXPECT_EQ(json_of(folder / "e.json")["test_accuracy"], json_of(folder / "r.json")["epochs"][0]["test_accuracy"]);
  EXPECT_EQ(json_of(folder / "e.json")["validation"], 0.2);
  EXPECT_NE(refusal({"eval", "--checkpoint", folder / "run", "--data", "folder:" + folder / "x"})
                .find("does not say what its classes are called"),
            std::string::npos);
  EXPECT_NE(refusal({"train", "--net", "lenet5", "--data", "digits", "--image", "32"}).find("--image 32: it is HEIGHT"),
            std::string::npos);
}

}  // namespace
}  // namespace halftone
