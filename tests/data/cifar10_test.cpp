#include "halftone/data/cifar10.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>

#include "tests/data/files.hpp"

namespace halftone {
namespace {

using testing::file_error;

constexpr std::uintmax_t file_bytes = 30730000;

/// A sparse file that begins with `records` and has the right size.
void write_batch(const std::filesystem::path& path, const std::string& records, std::uintmax_t size = file_bytes) {
  testing::write(path, records);
  std::filesystem::resize_file(path, size);
}

std::string record(int label) {
  std::string r(1, static_cast<char>(label));
  for (int channel = 0; channel < 3; ++channel)
    for (int p = 0; p < 1024; ++p) r += static_cast<char>(p % 64 + 64 * channel);
  return r;
}

TEST(Cifar10, TurnsPlanesIntoPixels) {
  const TemporaryFolder dir;
  write_batch(dir / "test_batch.bin", record(3) + record(9));
  const Dataset data = load_dataset("cifar10", Split::test, dir / "", 2);
  EXPECT_EQ(data.image, (Shape{1, 32, 32, 3}));
  EXPECT_EQ(data.labels, (std::vector<std::int32_t>{3, 9}));
  ASSERT_EQ(data.pixels.size(), 2u * 3072);
  for (int p = 0; p < 1024; ++p)
    for (int channel = 0; channel < 3; ++channel)
      EXPECT_EQ(std::to_integer<int>(data.at(1)[p * 3 + channel]), p % 64 + 64 * channel);
}

TEST(Cifar10, ReadsOnAcrossFiles) {
  const TemporaryFolder dir;
  write_batch(dir / "data_batch_1.bin", "");
  write_batch(dir / "data_batch_2.bin", record(4));
  const Dataset data = load_dataset("cifar10", Split::train, dir / "", 10001);
  EXPECT_EQ(data.size(), 10001);
  EXPECT_EQ(data.labels.back(), 4);
  EXPECT_EQ(testing::error([&] { load_dataset("cifar10", Split::train, dir / "", 50001); }),
            "limit 50001: cifar10 has 50000 images");
}

TEST(Cifar10, NamesTheDamagedFile) {
  const TemporaryFolder dir;
  const auto file = dir / "data_batch_1.bin";
  const auto load = [&] { load_dataset("cifar10", Split::train, dir / "", 10001); };
  write_batch(file, "", file_bytes - 3073);
  EXPECT_EQ(file_error(load), file.string() + " has 30726927 bytes, a CIFAR-10 file has 30730000");
  write_batch(file, record(1) + record(200));
  EXPECT_EQ(file_error(load), file.string() + " has label 200 at image 1, labels must be in [0, 10)");
  write_batch(file, record(1) + record(200));
  EXPECT_EQ(file_error([&] { load_dataset("cifar10", Split::train, dir / "", 1); }),
            file.string() + " has label 200 at image 1, labels must be in [0, 10)");
  write_batch(file, record(1));
  EXPECT_EQ(file_error(load), (dir / "data_batch_2.bin").string() + " cannot be opened: No such file or directory");
}

TEST(Cifar10, RefusesAPipe) {
  const TemporaryFolder dir;
  ASSERT_EQ(::mkfifo((dir / "test_batch.bin").c_str(), 0600), 0);
  EXPECT_EQ(file_error([&] { load_dataset("cifar10", Split::test, dir / ""); }),
            (dir / "test_batch.bin").string() + " is not a regular file");
}

TEST(RealCifar10, HasItsSizesMeanAndDeviation) {
  const auto dir = testing::real_data("cifar10", "cifar-10-batches-bin/test_batch.bin");
  if (dir.empty()) GTEST_SKIP() << "$HALFTONE_DATA/cifar10/cifar-10-batches-bin is absent";
  const Dataset train = load_dataset("cifar10", Split::train, dir), test = load_dataset("cifar10", Split::test, dir);
  EXPECT_EQ(train.size(), 50000);
  EXPECT_EQ(test.size(), 10000);
  for (int c = 0; c < 10; ++c) {
    EXPECT_EQ(std::count(train.labels.begin(), train.labels.end(), c), 5000);
    EXPECT_EQ(std::count(test.labels.begin(), test.labels.end(), c), 1000);
  }
  std::vector<std::uint8_t> pixels(train.pixels.size());
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = std::to_integer<std::uint8_t>(train.pixels[i]);
  const Dataset measured = in_memory("cifar10", train.image, pixels, train.labels);
  for (std::size_t c = 0; c < 3; ++c) {
    EXPECT_FLOAT_EQ(train.mean[c], measured.mean[c]);
    EXPECT_FLOAT_EQ(train.stddev[c], measured.stddev[c]);
  }
}

}  // namespace
}  // namespace halftone
