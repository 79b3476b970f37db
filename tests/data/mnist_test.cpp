#include "halftone/data/mnist.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/data/files.hpp"

namespace halftone {
namespace {

using testing::file_error;

std::string number(std::uint32_t n) {
  return {static_cast<char>(n >> 24), static_cast<char>(n >> 16), static_cast<char>(n >> 8), static_cast<char>(n)};
}

std::string images(std::uint32_t told, int there) {
  std::string file = number(0x803) + number(told) + number(28) + number(28);
  for (int i = 0; i < there; ++i) file.append(784, static_cast<char>(i));
  return file;
}

std::string labels(std::uint32_t told, const std::string& there) { return number(0x801) + number(told) + there; }

/// A folder whose training set has three images; each test then damages one file.
struct Mnist : ::testing::Test {
  TemporaryFolder dir;
  const std::filesystem::path image_file = dir / "train-images-idx3-ubyte.gz";
  const std::filesystem::path label_file = dir / "train-labels-idx1-ubyte.gz";

  Mnist() {
    testing::write_gz(image_file, images(3, 3));
    testing::write_gz(label_file, labels(3, {7, 0, 9}));
  }

  Dataset load(std::int64_t limit = 0) const { return load_dataset("mnist", Split::train, dir / "", limit); }

  /// With a limit and without.
  void expect_error(const std::filesystem::path& file, const std::string& what) const {
    for (const std::int64_t limit : {0, 1}) EXPECT_EQ(file_error([&] { load(limit); }), file.string() + " " + what);
  }
};

TEST_F(Mnist, ReadsGzippedFiles) {
  const Dataset data = load();
  EXPECT_EQ(data.name, "mnist");
  EXPECT_EQ(data.image, (Shape{1, 28, 28, 1}));
  EXPECT_EQ(data.labels, (std::vector<std::int32_t>{7, 0, 9}));
  EXPECT_EQ(data.pixels.size(), 3u * 784);
  EXPECT_EQ(std::to_integer<int>(data.at(2)[783]), 2);
}

TEST_F(Mnist, ReadsPlainFiles) {
  std::filesystem::remove(image_file);
  testing::write(dir / "train-images-idx3-ubyte", images(3, 3));
  EXPECT_EQ(load().size(), 3);
}

TEST_F(Mnist, TakesTheFirstImages) {
  const Dataset data = load(2);
  EXPECT_EQ(data.labels, (std::vector<std::int32_t>{7, 0}));
  EXPECT_EQ(data.pixels.size(), 2u * 784);
  EXPECT_EQ(testing::error([&] { load(4); }), "limit 4: mnist has 3 images");
}

TEST_F(Mnist, NamesAnAbsentFile) {
  std::filesystem::remove(label_file);
  expect_error(label_file, "cannot be opened: No such file or directory");
}

TEST_F(Mnist, SeesWhereverAGzipFileIsCut) {
  for (const auto& file : {image_file, label_file}) {
    const std::string whole = testing::read(file);
    for (std::size_t size = 1; size < whole.size(); ++size) {
      testing::write(file, whole.substr(0, size));
      expect_error(file, "is not a whole gzip file: it ends early");
    }
    testing::write(file, whole);
  }
  EXPECT_EQ(load().size(), 3);
}

TEST_F(Mnist, SeesAFlippedBitInChecksumAndLength) {
  std::string content = testing::read(image_file);
  for (const auto& [place, what] : {std::pair(8, "incorrect data check"), std::pair(4, "incorrect length check")}) {
    char& byte = content[content.size() - static_cast<std::size_t>(place)];
    byte = static_cast<char>(byte ^ 1);
    testing::write(image_file, content);
    expect_error(image_file, std::string("is not a sound gzip file: ") + what);
    byte = static_cast<char>(byte ^ 1);
  }
}

TEST_F(Mnist, TakesNothingBehindTheGzipStreamsButAnother) {
  const std::string whole = testing::read(label_file);
  testing::write(label_file, whole + "garbage");
  expect_error(label_file, "is not a sound gzip file: incorrect header check");
  testing::write_gz(label_file, labels(3, {7, 0}));
  const std::string first = testing::read(label_file);
  testing::write_gz(label_file, {9});
  testing::write(label_file, first + testing::read(label_file));
  EXPECT_EQ(load().labels.back(), 9);
}

TEST_F(Mnist, ALimitHidesNoDamageBehindIt) {
  testing::write_gz(label_file, labels(3, {7, 0, 77}));
  expect_error(label_file, "has label 77 at image 2, labels must be in [0, 10)");
  testing::write_gz(label_file, labels(3, {7, 0}));
  expect_error(label_file, "ends early: its header tells of 3 items, 2 are there");
  testing::write_gz(label_file, labels(3, {7, 0, 9}));
  testing::write_gz(image_file, images(3, 2));
  expect_error(image_file, "ends early: its header tells of 3 items, 2 are there");
  std::filesystem::remove(image_file);
  for (const int there : {2, 4}) {
    testing::write(dir / "train-images-idx3-ubyte", images(3, there));
    EXPECT_NE(file_error([&] { load(1); }), "no error") << there;
  }
}

TEST_F(Mnist, NamesAFileThatIsNotGzip) {
  testing::write(image_file, images(3, 3));
  expect_error(image_file, "is not a sound gzip file: incorrect header check");
  testing::write(image_file, "<html>404</html>");
  expect_error(image_file, "is not a sound gzip file: incorrect header check");
  testing::write(image_file, "");
  expect_error(image_file, "ends inside its header");
}

TEST_F(Mnist, NamesAWrongMagicNumber) {
  testing::write_gz(image_file, labels(3, {7, 0, 9}));
  expect_error(image_file, "is not the idx file expected: it begins with 0x00000801, not 0x00000803");
}

TEST_F(Mnist, NeverAllocatesWhatAHeaderClaims) {
  testing::write_gz(image_file, images(4294967295u, 3));
  testing::write_gz(label_file, labels(4294967295u, {7, 0, 9}));
  expect_error(image_file, "ends early: its header tells of 4294967295 items, 3 are there");
}

TEST_F(Mnist, NamesFewerOrMoreThanTold) {
  testing::write_gz(image_file, images(3, 2));
  expect_error(image_file, "ends early: its header tells of 3 items, 2 are there");
  testing::write_gz(image_file, images(3, 4));
  expect_error(image_file, "goes on after the 3 items of its header");
  testing::write_gz(image_file, images(0, 0));
  expect_error(image_file, "holds no images");
}

TEST_F(Mnist, NamesAnotherImageSize) {
  testing::write_gz(image_file, number(0x803) + number(3) + number(4294967295u) + number(28));
  expect_error(image_file, "holds images of 4294967295 x 28 pixels, not 28 x 28");
}

TEST_F(Mnist, NamesLabelsThatDoNotFit) {
  testing::write_gz(label_file, labels(3, {7, static_cast<char>(200), 9}));
  expect_error(label_file, "has label 200 at image 1, labels must be in [0, 10)");
  testing::write_gz(label_file, labels(2, {7, 0}));
  expect_error(label_file, "has 2 labels, but there are 3 images");
}

TEST_F(Mnist, NamesWhatIsNoFileInAFilesPlace) {
  std::filesystem::remove(image_file);
  ASSERT_EQ(::mkfifo(image_file.c_str(), 0600), 0);
  expect_error(image_file, "is not a regular file");
  std::filesystem::create_directory(dir / "train-images-idx3-ubyte");
  expect_error(dir / "train-images-idx3-ubyte", "is a folder");
}

TEST_F(Mnist, FollowsALinkToAFile) {
  std::filesystem::rename(image_file, dir / "elsewhere");
  std::filesystem::create_symlink(dir / "elsewhere", image_file);
  EXPECT_EQ(load().size(), 3);
}

/// Counts, mean and deviation of the real files against a measurement.
void check_real(const std::string& name, const std::vector<int>& first_labels) {
  const auto dir = testing::real_data(name, "train-images-idx3-ubyte.gz");
  if (dir.empty()) GTEST_SKIP() << "$HALFTONE_DATA/" << name << " is absent";
  const Dataset train = load_dataset(name, Split::train, dir), test = load_dataset(name, Split::test, dir);
  EXPECT_EQ(train.size(), 60000);
  EXPECT_EQ(test.size(), 10000);
  EXPECT_EQ(test.split, Split::test);
  for (std::size_t i = 0; i < first_labels.size(); ++i) EXPECT_EQ(train.labels[i], first_labels[i]);
  std::vector<std::uint8_t> pixels(train.pixels.size());
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = std::to_integer<std::uint8_t>(train.pixels[i]);
  const Dataset measured = in_memory(name, train.image, pixels, train.labels);
  EXPECT_FLOAT_EQ(train.mean[0], measured.mean[0]);
  EXPECT_FLOAT_EQ(train.stddev[0], measured.stddev[0]);
  EXPECT_EQ(test.mean, train.mean);
}

TEST(RealMnist, HasItsSizesMeanAndDeviation) { check_real("mnist", {5, 0, 4, 1, 9}); }
TEST(RealFashionMnist, HasItsSizesMeanAndDeviation) { check_real("fashion-mnist", {9, 0, 0, 3, 0}); }

}  // namespace
}  // namespace halftone
