#include "halftone/data/dataset.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "tests/data/files.hpp"

namespace halftone {
namespace {

using testing::contains;
using testing::Environment;
using testing::error;
using Bytes = std::vector<std::uint8_t>;
using Floats = std::vector<float>;

TEST(InMemory, ChecksumIsThatOfPixelsAndLabels) {
  // Python's zlib.crc32(b"123456789" + label.to_bytes(4, "little")).
  const auto sum = [](const char* pixels, int label) {
    const std::string_view text = pixels;
    return checksum_of(in_memory("toy", {1, 1, 9, 1}, Bytes(text.begin(), text.end()), {label}, 2));
  };
  EXPECT_EQ(sum("123456789", 0), 0xf3c1ce60u);
  EXPECT_EQ(sum("123456789", 1), 0x4b7da905u);
  EXPECT_NE(sum("123456780", 1), sum("123456789", 1));
}

TEST(InMemory, MeasuresMeanAndDeviationPerChannel) {
  const Dataset data = in_memory("toy", {1, 1, 2, 2}, Bytes{0, 255, 0, 255, 102, 255, 102, 255}, {1, 0}, 2);
  EXPECT_EQ(data.size(), 2);
  EXPECT_EQ(data.dtype, DType::u8);
  EXPECT_EQ(data.image_bytes(), 4u);
  EXPECT_EQ(std::to_integer<int>(data.at(1)[0]), 102);
  EXPECT_FLOAT_EQ(data.mean[0], 0.2f);
  EXPECT_FLOAT_EQ(data.stddev[0], 0.2f);
  EXPECT_FLOAT_EQ(data.mean[1], 1.0f);
  EXPECT_EQ(data.stddev[1], 1.0f) << "a constant channel must not divide by zero";
  EXPECT_FALSE(data.synthetic);
}

TEST(InMemory, TakesFloats) {
  const Dataset data = in_memory("toy", {1, 1, 1, 1}, Floats{-1, 3}, {0, 1}, 2);
  EXPECT_EQ(data.dtype, DType::f32);
  EXPECT_EQ(data.pixels.size(), 8u);
  EXPECT_FLOAT_EQ(data.mean[0], 1);
  EXPECT_FLOAT_EQ(data.stddev[0], 2);
  const Dataset tiny = in_memory("toy", {1, 1, 1, 1}, Floats{0, 0x1p-149f}, {0, 1}, 2);
  EXPECT_EQ(tiny.stddev[0], 1.0f) << "a deviation that f32 cannot hold must not divide by zero";
}

TEST(InMemory, RefusesWhatDoesNotFit) {
  const Shape pixel = {1, 1, 1, 1};
  EXPECT_EQ(error([&] {
              in_memory("toy", pixel, Bytes{1, 2, 3}, {0, 1}, 2);
            }),
            "toy: 2 labels need 1 pixel values each, 3 values are given");
  EXPECT_EQ(error([&] {
              in_memory("toy", pixel, Bytes{1, 2}, {0, 2}, 2);
            }),
            "toy: image 1 has label 2, labels must be in [0, 2)");
  EXPECT_EQ(error([&] { in_memory("toy", pixel, Bytes{1}, {-1}, 2); }),
            "toy: image 0 has label -1, labels must be in [0, 2)");
  EXPECT_EQ(error([&] { in_memory("toy", pixel, Bytes{}, {}); }), "toy: the data set is empty");
  EXPECT_EQ(error([&] {
              in_memory("toy", {2, 1, 1, 1}, Bytes{1, 2}, {0});
            }),
            "toy: the image shape must be [1, h, w, c], it is [2, 1, 1, 1]");
  EXPECT_EQ(error([&] {
              in_memory("toy", {1, 65536, 65536, 65536}, Bytes{1, 2}, {0});
            }),
            "toy: 1 labels need 281474976710656 pixel values each, 2 values are given");
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
    EXPECT_EQ(error([&] {
                in_memory("toy", pixel, Floats{bad, 1}, {0, 0});
              }),
              "toy: channel 0 has pixels that are not finite");
}

TEST(FindData, SearchesOnlyAGivenFolder) {
  const TemporaryFolder root;
  const Environment variable("HALFTONE_DATA", (root / "").string());
  std::filesystem::create_directories(root / "mnist");
  std::filesystem::create_directories(root / "empty");
  testing::write(root / "mnist/t10k-images-idx3-ubyte.gz", "");
  EXPECT_EQ(find_data("mnist"), root / "mnist");
  EXPECT_EQ(find_data("mnist", root / "mnist"), root / "mnist");
  EXPECT_EQ(error([&] { find_data("mnist", root / "empty"); }),
            "mnist is not in " + (root / "empty").string() + "; 'halftone fetch mnist' gets it");
}

TEST(FindData, SearchesTheUsualPlacesInOrder) {
  const TemporaryFolder root;
  const Environment variable("HALFTONE_DATA", (root / "a").string()), cache("XDG_CACHE_HOME", (root / "b").string());
  const std::string message = error([] { find_data("fashion-mnist"); });
  EXPECT_EQ(message, "fashion-mnist is not in " + (root / "a/fashion-mnist").string() + ", data/fashion-mnist, " +
                         (root / "b/halftone/fashion-mnist").string() + "; 'halftone fetch fashion-mnist' gets it");
  for (const char* place : {"b/halftone/fashion-mnist", "a/fashion-mnist"}) {
    std::filesystem::create_directories(root / place);
    testing::write(root / place / "train-images-idx3-ubyte", "");
    EXPECT_EQ(find_data("fashion-mnist"), root / place);
  }
}

TEST(FindData, TakesEitherFolderOfCifar10) {
  const TemporaryFolder root;
  std::filesystem::create_directories(root / "cifar-10-batches-bin");
  testing::write(root / "cifar-10-batches-bin/data_batch_1.bin", "");
  EXPECT_EQ(find_data("cifar10", (root / "")), root / "cifar-10-batches-bin");
  EXPECT_EQ(find_data("cifar10", root / "cifar-10-batches-bin"), root / "cifar-10-batches-bin");
}

TEST(FindData, TakesTheFolderThatEmnistsSetsShare) {
  const TemporaryFolder root;
  const Environment variable("HALFTONE_DATA", (root / "").string());
  std::filesystem::create_directories(root / "emnist/gzip");
  testing::write(root / "emnist/gzip/emnist-letters-train-images-idx3-ubyte.gz", "");
  EXPECT_EQ(find_data("emnist-letters"), root / "emnist/gzip");
}

TEST(DataName, KeepsNoPlace) {
  for (const char* spelling : {"folder:flowers", "folder:flowers/", "folder:/a/flowers", "folder:../x/./flowers//"})
    EXPECT_EQ(data_name(spelling), "folder:flowers") << spelling;
  EXPECT_EQ(data_name("npz:set.npz"), "npz:set.npz");
  EXPECT_EQ(data_name("npz:a/b/set.npz"), "npz:set.npz");
  EXPECT_EQ(data_name("mnist"), "mnist");
}

TEST(LoadDataset, ListsTheNamesWhenOneIsUnknown) {
  const std::string text = error([] { load_dataset("imagenet", Split::train); });
  EXPECT_TRUE(text.starts_with("data imagenet: it is mnist, fashion-mnist, kmnist, ")) << text;
  EXPECT_TRUE(text.ends_with(", cifar10, cifar100, digits, folder:DIR or npz:FILE")) << text;
}

TEST(LoadDataset, DrawsDigitsUpToALimit) {
  EXPECT_EQ(load_dataset("digits", Split::train, {}, 7).size(), 7);
  EXPECT_EQ(load_dataset("digits", Split::test).size(), 4000);
  EXPECT_EQ(error([] { load_dataset("digits", Split::train, {}, 20001); }), "limit 20001: digits has 20000 images");
  EXPECT_EQ(error([] { load_dataset("digits", Split::train, {}, -1); }), "limit -1: digits has 20000 images");
}

}  // namespace
}  // namespace halftone
