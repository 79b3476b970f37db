#include "halftone/data/image.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/data/files.hpp"
#include "tests/data/own_files.hpp"

namespace halftone {
namespace {

using testing::bytes_of;
using testing::contains;
using testing::file_error;
using testing::jpeg;
using testing::png;
using Bytes = std::vector<std::uint8_t>;

/// 9 x 5 pixels as Pillow packs and unpacks them: progressive, and gray.
constexpr std::string_view progressive_jpeg =
    "ffd8ffe000104a46494600010100000100010000ffdb004300100b0c0e0c0a100e0d0e1211101318281a181616183123251d283a333d3c39"
    "33383740485c4e404457453738506d51575f626768673e4d71797064785c656763ffdb0043011112121815182f1a1a2f6342384263636363"
    "63636363636363636363636363636363636363636363636363636363636363636363636363636363636363636363ffc20011080005000903"
    "011100021101031101ffc4001500010100000000000000000000000000000203ffc400170100030100000000000000000000000000020304"
    "05ffda000c03010002100310000001628bc5a1ffc40017100101010100000000000000000000000002000313ffda0008010100010502381b"
    "81bfffc40017110003010000000000000000000000000000020313ffda0008010301013f0185d8dd8fffc400181100020300000000000000"
    "0000000000000002030414ffda0008010201013f019ad39a9cffc40014100100000000000000000000000000000010ffda0008010100063f"
    "023fffc40014100100000000000000000000000000000010ffda0008010100013f212bffda000c030100020003000000101bffc400151101"
    "0100000000000000000000000000001021ffda0008010301013f10903fffc40014110100000000000000000000000000000010ffda000801"
    "0201013f1017ffc4001710000301000000000000000000000000000021a161ffda0008010100013f105943287fffd9";
const Bytes progressive_row = {0,   6,   238, 24,  2,   233, 58,  0,   224, 85,  2,   206, 103, 6,
                               184, 128, 6,   166, 165, 5,   157, 192, 2,   152, 219, 1,   137},
            progressive_end = {227, 232, 26};
constexpr std::string_view gray_jpeg =
    "ffd8ffe000104a46494600010100000100010000ffdb004300100b0c0e0c0a100e0d0e1211101318281a181616183123251d283a333d3c39"
    "33383740485c4e404457453738506d51575f626768673e4d71797064785c656763ffc0000b080005000901011100ffc40015000101000000"
    "00000000000000000000000304ffc4001a1000020203000000000000000000000000000421a1051551ffda0008010100003f0065304ac451"
    "7e895e51ffd9";
const Bytes gray_row = {29, 35, 43, 50, 55, 61, 70, 76, 82}, gray_end = {207};
constexpr std::string_view cmyk_jpeg =
    "ffd8ffee000e41646f626500640000000000ffdb0043001b12141714111b1716171e1c1b2028422b28252528513a3d3042605565645f555d"
    "5b6a7899816a7190735b5d85b586909ea3abadab6780bcc9baa6c799a8aba4ffc000140800050009044311004d11005911004b1100ffc400"
    "1800000301010000000000000000000000000004060105ffc40020100001020505000000000000000000000000030401051651a1152142d1"
    "f0ffda000e0443004d0059004b00003f005a47c46e9e676c18fa60b6fd94c52853cced8399a82de881ffd9";

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

TEST_F(ImageFile, EveryKindOfPngIsRead) {
  if (!reads("png")) GTEST_SKIP() << "built without libpng";
  using namespace std::string_literals;
  using testing::png_of;
  const std::string gamma = testing::png_chunk("gAMA", "\0\1\x86\xa0"s);  // 1.0: linear light
  EXPECT_EQ(read(png_of(1, 1, 8, 0, "\0\x32"s, gamma), 1, 1, 1), Bytes{50}) << "bytes are kept";
  const std::string palette = testing::png_chunk("PLTE", "\1\2\3\x14\x15\x16"s);
  EXPECT_EQ(read(png_of(1, 2, 1, 3, "\0\x40"s, palette), 1, 2, 3), (Bytes{1, 2, 3, 20, 21, 22}));
  EXPECT_EQ(read(png_of(1, 2, 8, 3, "\0\1\0"s, palette + testing::png_chunk("tRNS", "\0"s)), 1, 2, 3),
            (Bytes{20, 21, 22, 1, 2, 3}));
  EXPECT_EQ(read(png_of(1, 2, 8, 4, "\0\x07\0\xc8\xff"s), 1, 2, 1), (Bytes{7, 200}));
  EXPECT_EQ(read(png_of(1, 3, 2, 0, "\0\x18"s), 1, 3, 1), (Bytes{0, 85, 170}));
  // 0x0180 of 65535 is 1.494 of 255, 0x0182 is 1.502.
  EXPECT_EQ(read(png_of(1, 4, 16, 0, "\0\1\x80\1\x82\xff\xff\0\0"s), 1, 4, 1), (Bytes{1, 2, 255, 0}));
  EXPECT_EQ(read(png_of(2, 2, 8, 0, "\0\1\0\2\0\3\4"s, "", true), 2, 2, 1), (Bytes{1, 2, 3, 4})) << "interlaced";
}

TEST_F(ImageFile, EveryKindOfJpegIsReadOrNamed) {
  if (!reads("jpeg")) GTEST_SKIP() << "built without libjpeg";
  const Bytes rgb = read(bytes_of(progressive_jpeg), 5, 9, 3), gray = read(bytes_of(gray_jpeg), 5, 9, 1);
  EXPECT_EQ(Bytes(rgb.begin(), rgb.begin() + 27), progressive_row);
  EXPECT_EQ(Bytes(rgb.end() - 3, rgb.end()), progressive_end);
  EXPECT_EQ(Bytes(gray.begin(), gray.begin() + 9), gray_row);
  EXPECT_EQ(gray.back(), gray_end[0]);
  EXPECT_EQ(file_error([&] { read(bytes_of(cmyk_jpeg), 5, 9, 3); }), name() + " is CMYK, which is not read");
}

TEST_F(ImageFile, WhatHarmsNoPixelOfAJpegIsLetPass) {
  if (!reads("jpeg")) GTEST_SKIP() << "built without libjpeg";
  const Bytes pixels = read(jpeg(), 8, 16, 3);
  std::string version = jpeg(), between = jpeg();
  version[11] = 2;  // of JFIF
  between.insert(between.find("\xff\xc4"), std::string(3, '\0'));
  EXPECT_EQ(read(version, 8, 16, 3), pixels);
  EXPECT_EQ(read(between, 8, 16, 3), pixels);
}

TEST_F(ImageFile, AFileTooLargeIsNotRead) {
  const auto path = std::filesystem::path(name());
  testing::write(path, png(1, 1, 1, {1}));
  std::filesystem::resize_file(path, std::uintmax_t{1} << 34);
  EXPECT_EQ(file_error([&] {
              read_image(path, {1, 1, 1, 1});
            }),
            name() + " has 17179869184 bytes, of which images have at most 268435456");
  testing::write(path, "");
  std::filesystem::resize_file(path, std::uintmax_t{1} << 34);
  EXPECT_EQ(file_error([&] { read_image(path, {1, 1, 1, 1}); }), name() + " is neither PNG nor JPEG");
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
  for (const auto& [h, w] : {std::pair(65536u, 65536u), std::pair(8191u, 8192u), std::pair(4097u, 4096u)}) {
    const std::string huge = testing::png_of(h, w, 8, 0, std::string(2, '\0'));
    EXPECT_EQ(file_error([&] { read(huge, 2, 2, 3); }),
              fmt::format("{} tells of {} x {} pixels in {} bytes", name(), w, h, huge.size()));
  }
}

TEST_F(ImageFile, RefusesOtherShapes) {
  for (const Shape& shape : {Shape{1, 0, 2, 3}, Shape{1, 2, 2, 2}, Shape{2, 2, 2, 3}, Shape{1, 1 << 20, 2, 3}})
    EXPECT_TRUE(contains(testing::error([&] { read_image("none", shape); }), "HEIGHTxWIDTH")) << to_string(shape);
}

}  // namespace
}  // namespace halftone
