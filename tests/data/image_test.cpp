#include "halftone/data/image.hpp"

#include <gtest/gtest.h>

#include "tests/data/files.hpp"
#include "tests/data/own_files.hpp"

namespace halftone {
namespace {

using testing::contains;
using testing::file_error;
using testing::png;
using Bytes = std::vector<std::uint8_t>;

/// 16 x 8 pixels of (200, 30, 59), as Pillow packs and unpacks (200, 30, 60) at quality 90.
std::string jpeg() {
  constexpr std::string_view hex =
      "ffd8ffe000104a46494600010100000100010000ffdb0043000302020302020303030304030304050805050404050a070706080c0a0c0c0b"
      "0a0b0b0d0e12100d0e110e0b0b1016101113141515150c0f171816141812141514ffdb00430103040405040509050509140d0b0d14141414"
      "14141414141414141414141414141414141414141414141414141414141414141414141414141414141414141414ffc00011080008001003"
      "011100021101031101ffc4001500010100000000000000000000000000000007ffc40014100100000000000000000000000000000000ffc4"
      "00160101010100000000000000000000000000000608ffc40014110100000000000000000000000000000000ffda000c0301000211031100"
      "3f0085269b7407ffd9";
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  return bytes;
}

bool reads(const char* format) { return contains(image_formats(), format); }

class ImageFile : public ::testing::Test {
 protected:
  Bytes read(const std::string& content, std::int64_t h, std::int64_t w, std::int64_t c) {
    testing::write(dir_ / "file", content);
    return read_image(dir_ / "file", {1, h, w, c});
  }
  std::string name() const { return (dir_ / "file").string(); }

 private:
  TemporaryFolder dir_;
};

TEST_F(ImageFile, APngKeepsItsPixels) {
  if (!reads("png")) GTEST_SKIP() << "built without libpng";
  const Bytes rgb = {1, 2, 3, 40, 50, 60, 255, 0, 128, 9, 99, 199};
  EXPECT_EQ(read(png(2, 2, 3, rgb), 2, 2, 3), rgb);
  EXPECT_EQ(read(png(2, 2, 1, {0, 7, 200, 255}), 2, 2, 1), (Bytes{0, 7, 200, 255}));
  EXPECT_EQ(read(png(1, 1, 1, {9}), 1, 1, 3), (Bytes{9, 9, 9}));
  EXPECT_EQ(read(png(1, 1, 4, {10, 20, 30, 0}), 1, 1, 3), (Bytes{10, 20, 30})) << "transparency is dropped";
  EXPECT_EQ(read(png(1, 1, 3, {100, 200, 50}), 1, 1, 1), Bytes{153});  // 29.9 + 117.4 + 5.7
}

TEST_F(ImageFile, ShrinksByTrianglesAndCutsOutTheMiddle) {
  if (!reads("png")) GTEST_SKIP() << "built without libpng";
  // Two to one: a pixel of the result sees 1, 3, 3 and 1 eighths of four pixels, at the border 3, 3 and 1 sevenths.
  EXPECT_EQ(read(png(1, 4, 1, {0, 70, 140, 210}), 1, 4, 1), (Bytes{0, 70, 140, 210}));
  const Bytes row = {0, 70, 140, 210};
  Bytes both = row;
  both.insert(both.end(), row.begin(), row.end());
  EXPECT_EQ(read(png(2, 4, 1, both), 1, 2, 1), (Bytes{50, 160}));
  // One of three pixels, in the middle, twice as large: all that is seen there is between it and its neighbours.
  EXPECT_EQ(read(png(1, 3, 1, {0, 100, 200}), 2, 2, 1), (Bytes{75, 125, 75, 125}));
  EXPECT_EQ(read(png(3, 1, 1, {0, 100, 200}), 1, 1, 1), Bytes{100});
}

TEST_F(ImageFile, AJpegIsReadAsByOthers) {
  if (!reads("jpeg")) GTEST_SKIP() << "built without libjpeg";
  const Bytes pixels = read(jpeg(), 8, 16, 3);
  ASSERT_EQ(pixels.size(), 8u * 16 * 3);
  for (std::size_t i = 0; i < pixels.size(); i += 3)
    EXPECT_EQ(
        Bytes(pixels.begin() + static_cast<std::ptrdiff_t>(i), pixels.begin() + static_cast<std::ptrdiff_t>(i) + 3),
        (Bytes{200, 30, 59}));
}

TEST_F(ImageFile, NamesWhatIsBroken) {
  const auto says = [&](const std::string& content, const std::string& what) {
    const std::string error = file_error([&] { read(content, 2, 2, 3); });
    EXPECT_TRUE(error.starts_with(name() + " ") && contains(error, what)) << error;
  };
  says("", "is neither PNG nor JPEG");
  says("GIF89a", "is neither PNG nor JPEG");
  const std::string unread = "is of a format that this build of Halftone does not read";
  const std::string sound = png(8, 8, 3, Bytes(8 * 8 * 3, 5)), damaged = reads("png") ? "is no sound PNG" : unread;
  for (std::size_t size = 4; size < sound.size() - 12; ++size) says(sound.substr(0, size), damaged);
  std::string flipped = sound;
  flipped[sound.size() / 2] ^= 1;
  says(flipped, damaged);
  const std::string bad_jpeg = reads("jpeg") ? "is no sound JPEG" : unread;
  for (std::size_t size = 3; size < jpeg().size() - 2; ++size) says(jpeg().substr(0, size), bad_jpeg);
}

TEST_F(ImageFile, ASmallFileIsNotTakenForAHugeImage) {
  if (!reads("png")) GTEST_SKIP() << "built without libpng";
  std::string huge = png(1, 1, 1, {1});
  const std::string extents =
      testing::little_endian(0x100, 4) + testing::little_endian(0x100, 4);  // 65536 each, big-endian
  huge.replace(16, 8, extents);
  const std::string head = huge.substr(12, 17);
  const std::string sum = testing::little_endian(testing::checksum(head), 4);
  huge.replace(29, 4, std::string(sum.rbegin(), sum.rend()));
  EXPECT_EQ(file_error([&] { read(huge, 2, 2, 3); }),
            name() + " tells of 65536 x 65536 pixels in " + std::to_string(huge.size()) + " bytes");
}

TEST_F(ImageFile, RefusesOtherShapes) {
  for (const Shape& shape : {Shape{1, 0, 2, 3}, Shape{1, 2, 2, 2}, Shape{2, 2, 2, 3}, Shape{1, 1 << 20, 2, 3}})
    EXPECT_TRUE(contains(testing::error([&] { read_image("none", shape); }), "HEIGHTxWIDTH")) << to_string(shape);
}

}  // namespace
}  // namespace halftone
