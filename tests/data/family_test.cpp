#include <gtest/gtest.h>
#include <zlib.h>

#include <cmath>
#include <fstream>
#include <set>

#include "halftone/data/dataset.hpp"
#include "halftone/data/mnist.hpp"
#include "tests/data/files.hpp"

namespace halftone {
namespace {

using testing::contains;

std::string number(std::uint32_t n) {
  return {static_cast<char>(n >> 24), static_cast<char>(n >> 16), static_cast<char>(n >> 8), static_cast<char>(n)};
}

/// Images whose pixels are all `values[i]`.
std::string images(const std::vector<int>& values) {
  std::string file = number(0x803) + number(static_cast<std::uint32_t>(values.size())) + number(28) + number(28);
  for (const int value : values) file.append(784, static_cast<char>(value));
  return file;
}

std::string labels(std::size_t count) {
  return number(0x801) + number(static_cast<std::uint32_t>(count)) + std::string(count, '\3');
}

void write_set(const std::filesystem::path& dir, const std::string& split, const std::vector<int>& values) {
  std::filesystem::create_directories(dir);
  testing::write(dir / (split + "-images-idx3-ubyte"), images(values));
  testing::write(dir / (split + "-labels-idx1-ubyte"), labels(values.size()));
}

/// Some set that bears MNIST's file names: training pixels 0, 51 and 102 have the mean 0.2 and the variance 0.08 / 3.
TEST(DataFamily, AnotherSetByTheSameNamesGetsItsOwnMeanAndDeviation) {
  const TemporaryFolder dir;
  write_set(dir / "", "t10k", {255, 0});
  for (const char* name : {"mnist", "fashion-mnist"}) {
    const Dataset alone = load_dataset(name, Split::test, dir / "");
    EXPECT_FLOAT_EQ(alone.mean.at(0), 0.5f) << "no training set is there";
  }
  write_set(dir / "", "train", {0, 51, 102});
  for (const char* name : {"mnist", "fashion-mnist"})
    for (const Split split : {Split::train, Split::test})
      for (const std::int64_t limit : {0, 1}) {
        const Dataset data = load_dataset(name, split, dir / "", limit);
        ASSERT_EQ(data.mean.size(), 1u);
        ASSERT_EQ(data.stddev.size(), 1u);
        EXPECT_FLOAT_EQ(data.mean[0], 0.2f);
        EXPECT_FLOAT_EQ(data.stddev[0], std::sqrt(0.08f / 3));
      }
}

TEST(DataFamily, EachOfMnistsFilesCountsByItsContent) {
  const auto mnist = testing::real_data("mnist", "train-images-idx3-ubyte.gz"),
             fashion = testing::real_data("fashion-mnist", "train-images-idx3-ubyte.gz");
  if (mnist.empty() || fashion.empty()) GTEST_SKIP() << "$HALFTONE_DATA is absent";
  for (const Split split : {Split::train, Split::test}) {
    const Dataset other = load_dataset("mnist", split, fashion, 10),
                  own = load_dataset("fashion-mnist", split, fashion, 10);
    EXPECT_FLOAT_EQ(other.mean.at(0), own.mean.at(0));
    EXPECT_FLOAT_EQ(other.stddev.at(0), own.stddev.at(0));
    EXPECT_EQ(load_dataset("mnist", split, mnist, 10).mean, std::vector<float>{0.13066048f});
  }
}

TEST(DataFamily, Cifar10sNamesToo) {
  const TemporaryFolder dir;
  constexpr std::uintmax_t bytes = 30730000;
  const auto write_batch = [&](const char* name, char blue) {
    std::string record(3073, '\0');
    record.replace(1 + 2048, 1024, 1024, blue);
    std::string content;
    for (int i = 0; i < 10000; ++i) content += record;
    testing::write(dir / name, content);
    ASSERT_EQ(std::filesystem::file_size(dir / name), bytes);
  };
  write_batch("test_batch.bin", 102);
  EXPECT_FLOAT_EQ(load_dataset("cifar10", Split::test, dir / "", 1).mean.at(2), 0.4f);
  for (const char* name : {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin"})
    write_batch(name, 0);
  write_batch("data_batch_5.bin", static_cast<char>(255));
  for (const Split split : {Split::train, Split::test}) {
    const Dataset data = load_dataset("cifar10", split, dir / "", 1);
    ASSERT_EQ(data.mean.size(), 3u);
    EXPECT_FLOAT_EQ(data.mean[0], 0);
    EXPECT_FLOAT_EQ(data.mean[2], 0.2f);
    EXPECT_FLOAT_EQ(data.stddev[0], 1);
    EXPECT_FLOAT_EQ(data.stddev[2], 0.4f);
  }
}

TEST(DataFamily, FilesAreFoundByTheNamesThatOthersGiveThem) {
  for (const char* folder : {"", "raw", "MNIST/raw"})
    for (const char* mark : {"-", "."})
      for (const char* ending : {"", ".gz"}) {
        const TemporaryFolder dir;
        std::filesystem::create_directories(dir / folder);
        const auto name = [&](const std::string& kind) {
          return dir / folder / ("train-" + kind.substr(0, 6) + mark + kind.substr(7) + "-ubyte" + ending);
        };
        const auto write = [&](const std::string& kind, const std::string& content) {
          *ending ? testing::write_gz(name(kind), content) : testing::write(name(kind), content);
        };
        write("images-idx3", images({1, 2}));
        write("labels-idx1", labels(2));
        EXPECT_EQ(load_dataset("mnist", Split::train, dir / "").size(), 2) << name("images-idx3");
      }
  const TemporaryFolder torchvision;
  write_set(torchvision / "FashionMNIST/raw", "t10k", {1});
  EXPECT_EQ(load_dataset("fashion-mnist", Split::test, torchvision / "").size(), 1);
  EXPECT_THROW(load_dataset("mnist", Split::test, torchvision / ""), Failure);
}

TEST(DataFamily, EmnistsTranspositionIsUndoneAndLettersBeginWithZero) {
  const TemporaryFolder dir;
  std::string image(784, '\0');
  image[3 * 28 + 20] = 77;
  testing::write(dir / "emnist-letters-train-images-idx3-ubyte",
                 number(0x803) + number(2) + number(28) + number(28) + image + image);
  testing::write(dir / "emnist-letters-train-labels-idx1-ubyte", number(0x801) + number(2) + "\1\x1a");
  const Dataset data = load_dataset("emnist-letters", Split::train, dir / "");
  EXPECT_EQ(data.labels, (std::vector<std::int32_t>{0, 25}));
  EXPECT_EQ(data.class_names.at(25), "z");
  EXPECT_EQ(data.classes, 26);
  EXPECT_EQ(data.at(1)[20 * 28 + 3], std::byte{77});
  EXPECT_EQ(data.at(1)[3 * 28 + 20], std::byte{0});
  testing::write(dir / "emnist-letters-train-labels-idx1-ubyte",
                 number(0x801) + number(2) + "\1" + std::string(1, '\0'));
  EXPECT_TRUE(contains(testing::file_error([&] { load_dataset("emnist-letters", Split::train, dir / ""); }),
                       "has label 0 at image 1, labels must be in [1, 27)"));
  EXPECT_THROW(load_dataset("emnist-digits", Split::train, dir / ""), Failure);
}

TEST(DataFamily, KmnistHasMnistsNames) {
  const TemporaryFolder dir;
  write_set(dir / "KMNIST/raw", "train", {1, 2});
  const Dataset data = load_dataset("kmnist", Split::train, dir / "");
  EXPECT_EQ(data.name, "kmnist");
  EXPECT_EQ(data.class_names.at(3), "tsu");
}

TEST(DataFamily, Cifar100sFineLabels) {
  const TemporaryFolder dir;
  std::string record(3074, '\0');
  record[0] = 19, record[1] = 99, record[2 + 1024] = 5;  // coarse, fine, the first green
  testing::write(dir / "test.bin", record);
  std::filesystem::resize_file(dir / "test.bin", 30740000);
  const Dataset data = load_dataset("cifar100", Split::test, dir / "", 2);
  EXPECT_EQ(data.labels, (std::vector<std::int32_t>{99, 0}));
  EXPECT_EQ(data.at(0)[1], std::byte{5});
  EXPECT_EQ(data.class_names.size(), 100u);
  EXPECT_EQ(data.class_names.back(), "worm");
  std::filesystem::resize_file(dir / "test.bin", 30730000);
  EXPECT_TRUE(contains(testing::file_error([&] { load_dataset("cifar100", Split::test, dir / ""); }),
                       "has 30730000 bytes, a CIFAR-100 file has 30740000"));
}

TEST(DataFamily, AShareOfAKnownSetIsHeldOut) {
  const TemporaryFolder dir;
  write_set(dir / "", "train", {1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
  std::multiset<int> all;
  for (const Split split : {Split::train, Split::test}) {
    const Dataset data = load_dataset("mnist", split, DataOptions{.dir = dir / "", .validation = 0.3});
    EXPECT_EQ(data.size(), split == Split::train ? 7 : 3);
    EXPECT_EQ(data.split, split);
    for (std::int64_t i = 0; i < data.size(); ++i) all.insert(std::to_integer<int>(*data.at(i)));
  }
  EXPECT_EQ(all, (std::multiset<int>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}));
  const auto wrong = [&](const DataOptions& options) {
    return testing::error([&] { load_dataset("mnist", Split::train, options); });
  };
  EXPECT_EQ(wrong({.dir = dir / "", .limit = 8, .validation = 0.3}), "limit 8: mnist has 7 images");
  EXPECT_TRUE(contains(wrong({.dir = dir / "", .image = {1, 32, 32, 1}}), "image 32x32: mnist has images of 28x28"));
  EXPECT_EQ(wrong({.dir = dir / "", .skip_broken = true}), "skip-broken: data mnist is no folder of images");
  EXPECT_EQ(wrong({.dir = dir / "", .layout = PixelLayout::nchw}), "layout: data mnist is no array");
}

TEST(DataFamily, WhatWasSeenInsteadIsNamed) {
  const TemporaryFolder dir;
  for (const char* name : {"e", "d", "cifar-10-python.tar.gz", "b", "a"}) testing::write(dir / name, "");
  EXPECT_EQ(testing::error([&] { find_data("cifar10", dir / ""); }),
            "cifar10 is not in " + (dir / "").string() +
                ", which holds a, b, cifar-10-python.tar.gz and 2 more; 'halftone fetch cifar10' gets it");
}

TEST(DataFamily, ZerosBehindAGzipStreamArePadding) {
  const TemporaryFolder dir;
  const auto file = dir / "train-images-idx3-ubyte.gz";
  write_set(dir / "", "train", {7});
  std::filesystem::remove(dir / "train-images-idx3-ubyte");
  testing::write_gz(file, images({7}));
  const std::string whole = testing::read(file);
  for (const std::size_t zeros : {1, 511, 70000}) {
    testing::write(file, whole + std::string(zeros, '\0'));
    EXPECT_EQ(load_dataset("mnist", Split::train, dir / "").size(), 1) << zeros;
    testing::write(file, whole + std::string(zeros, '\0') + "garbage");
    EXPECT_TRUE(contains(testing::file_error([&] { load_dataset("mnist", Split::train, dir / ""); }), "header check"));
  }
  testing::write(file, std::string(100, '\0'));
  EXPECT_TRUE(contains(testing::file_error([&] { load_dataset("mnist", Split::train, dir / ""); }), "header check"));
}

/// Two gigabytes of zeros in two megabytes, and a header that promises them.
TEST(DataFamily, ASmallGzipThatUnpacksToGigabytesIsRefused) {
  const TemporaryFolder dir;
  const std::uint32_t count = 2800000;
  const auto file = dir / "train-images-idx3-ubyte.gz";
  testing::write_gz(file, std::string(784 * 1000, '\0'));
  const std::string thousand = testing::read(file);
  testing::write_gz(file, number(0x803) + number(count) + number(28) + number(28));
  std::ofstream all(file, std::ios::binary | std::ios::app);
  for (std::uint32_t i = 0; i < count / 1000; ++i) all << thousand;
  all.close();
  testing::write_gz(dir / "train-labels-idx1-ubyte.gz", labels(count));
  for (const std::int64_t limit : {0, 1})
    EXPECT_EQ(testing::file_error([&] { load_dataset("mnist", Split::train, dir / "", limit); }),
              file.string() + " unpacks to more than 100 times its size");
}

}  // namespace
}  // namespace halftone
