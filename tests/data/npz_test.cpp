#include "halftone/data/npz.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "tests/data/files.hpp"
#include "tests/data/own_files.hpp"

namespace halftone {
namespace {

using testing::contains;
using testing::error;
using testing::file_error;
using testing::npy;
using testing::zip;

/// The bytes 0, 1, 2 ...
std::string counted(std::size_t count) {
  std::string bytes;
  for (std::size_t i = 0; i < count; ++i) bytes += static_cast<char>(i);
  return bytes;
}

class Npz : public ::testing::Test {
 protected:
  using Members = std::vector<std::pair<std::string, std::string>>;

  Dataset load(const Members& members, Split split = Split::train, const DataOptions& options = {},
               bool packed = false) {
    testing::write(file_, zip(members, packed));
    return load_dataset("npz:" + file_.string(), split, options);
  }
  Dataset load_file(const std::string& content) {
    testing::write(file_, content);
    return load_dataset("npz:" + file_.string(), Split::train, DataOptions{});
  }

  TemporaryFolder dir_;
  std::filesystem::path file_ = dir_ / "set.npz";
};

const std::string two_labels = npy("|u1", "(2,)", std::string("\1\0", 2));

TEST_F(Npz, EveryVersionOfTheFormatIsRead) {
  const std::string bytes = counted(6);
  const auto of = [&](char version, std::size_t spaces = 0) {
    return load({{"x.npy", npy("|u1", "(2, 1, 1, 3)", bytes, "False", version, spaces)}, {"y.npy", two_labels}},
                Split::train, {.layout = PixelLayout::nhwc});
  };
  const Dataset first = of(1);
  EXPECT_EQ(std::to_integer<int>(first.pixels[5]), 5);
  for (const char version : {2, 3}) {
    EXPECT_EQ(of(version).pixels, first.pixels);
    EXPECT_EQ(of(version, 70000).pixels, first.pixels) << "a header of more than 2^16 bytes";
  }
  for (const char version : {0, 4})
    EXPECT_TRUE(contains(file_error([&] { of(version); }), "x is of version " + std::to_string(version))) << version;
}

TEST_F(Npz, NamesWhatIsNotReadAndWhatDoesNotFit) {
  const std::string x = npy("|u1", "(2, 1, 1, 3)", counted(6));
  const Members text = {{"x.npy", x}, {"y.npy", npy("<U2", "(2,)", std::string(16, 'a'))}};
  EXPECT_TRUE(contains(file_error([&] { load(text); }), "y is of '<U2', which is not read"));
  DataOptions gray;
  gray.layout = PixelLayout::nhwc, gray.image = {1, 1, 1, 1};
  const Members colour = {{"x.npy", x}, {"y.npy", two_labels}};
  EXPECT_TRUE(contains(error([&] { load(colour, Split::train, gray); }), "image 1x1x1: npz:set.npz has 3 channels"));
  gray.image = {1, 1, 1, 3};
  EXPECT_EQ(load(colour, Split::train, gray).size(), 2);
  gray.class_names = {"a", "b"};
  EXPECT_TRUE(contains(error([&] { load(colour, Split::train, gray); }), "class names: data npz:"));
}

TEST_F(Npz, SizesMayStandInTheExtraField) {
  const Members members = {{"x.npy", npy("|u1", "(2, 2, 3)", counted(12))}, {"y.npy", two_labels}};
  for (const bool packed : {false, true}) {
    const std::string archive = zip(members, packed, true);
    const Dataset data = load_file(archive);
    EXPECT_EQ(data.labels, (std::vector<std::int32_t>{1, 0}));
    EXPECT_EQ(data.at(1)[5], std::byte{11});
    std::string cut = archive;
    cut[cut.find(std::string("\1\0\x10\0", 4)) + 2] = 8;
    EXPECT_TRUE(contains(file_error([&] { load_file(cut); }), "has a damaged directory"));
    cut = archive;
    cut[cut.find(std::string("\1\0\x10\0", 4)) + 9] = 1;  // a size of 2^40
    EXPECT_TRUE(contains(file_error([&] { load_file(cut); }), (dir_ / "set.npz").string()));
  }
}

TEST_F(Npz, ReadsBothSplitsPackedOrStored) {
  for (const bool packed : {false, true}) {
    const Members members = {{"x_train.npy", npy("|u1", "(2, 2, 3)", counted(12))},
                             {"y_train.npy", npy("<i4", "(2, 1)", testing::little_endian(4, 4) + std::string(4, '\0'))},
                             {"x_test.npy", npy("|u1", "(1, 2, 3)", counted(6))},
                             {"y_test.npy", npy("<i8", "(1,)", testing::little_endian(6, 8))}};
    const Dataset train = load(members, Split::train, {}, packed), test = load(members, Split::test, {}, packed);
    EXPECT_EQ(train.name, "npz:set.npz");
    EXPECT_EQ(train.image, (Shape{1, 2, 3, 1}));
    EXPECT_EQ(train.dtype, DType::u8);
    EXPECT_EQ(train.labels, (std::vector<std::int32_t>{4, 0}));
    EXPECT_EQ(train.classes, 7) << "the labels of both splits count";
    EXPECT_EQ(test.classes, 7);
    EXPECT_EQ(test.labels, std::vector<std::int32_t>{6});
    for (int i = 0; i < 12; ++i) EXPECT_EQ(std::to_integer<int>(train.pixels.at(static_cast<std::size_t>(i))), i);
    EXPECT_FLOAT_EQ(train.mean.at(0), 5.5f / 255);
  }
}

TEST_F(Npz, TheLayoutIsSaidOrFollowsFromTheImageAndIsNeverGuessed) {
  const Members members = {{"x.npy", npy("|u1", "(2, 3, 2, 4)", counted(48))}, {"y.npy", two_labels}};
  EXPECT_EQ(error([&] { load(members); }),
            "layout: x is |u1 of (2, 3, 2, 4); whether that is nhwc or nchw must be given");
  const Dataset last = load(members, Split::train, {.layout = PixelLayout::nhwc});
  EXPECT_EQ(last.image, (Shape{1, 3, 2, 4}));
  EXPECT_EQ(std::to_integer<int>(last.pixels[5]), 5);
  for (const DataOptions& options : {DataOptions{.layout = PixelLayout::nchw}, DataOptions{.image = {1, 2, 4, 3}}}) {
    const Dataset first = load(members, Split::train, options);
    EXPECT_EQ(first.image, (Shape{1, 2, 4, 3}));
    for (int n = 0, i = 0; n < 2; ++n)
      for (int p = 0; p < 8; ++p)
        for (int c = 0; c < 3; ++c, ++i)
          EXPECT_EQ(std::to_integer<int>(first.pixels[static_cast<std::size_t>(i)]), n * 24 + c * 8 + p);
  }
  EXPECT_TRUE(contains(error([&] { load(members, Split::train, {.image = {1, 8, 8, 3}}); }), "layout: "));
  EXPECT_EQ(error([&] {
              load(members, Split::train, {.image = {1, 8, 8, 3}, .layout = PixelLayout::nchw});
            }),
            "image 8x8: npz:set.npz has images of 2x4, and only a folder's are scaled");
}

TEST_F(Npz, FloatsKeepTheirUnits) {
  const float values[4] = {-1, 0.5f, 2, 8};
  std::string bytes(sizeof values, '\0');
  std::memcpy(bytes.data(), values, sizeof values);
  const Members members = {{"x.npy", npy("<f4", "(2, 1, 2)", bytes)}, {"y.npy", two_labels}};
  const Dataset data = load(members);
  EXPECT_EQ(data.dtype, DType::f32);
  EXPECT_EQ(std::memcmp(data.pixels.data(), values, sizeof values), 0);
  EXPECT_FLOAT_EQ(data.mean.at(0), 9.5f / 4);
}

TEST_F(Npz, OneSetIsSplitByAShare) {
  const Members members = {{"x.npy", npy("|u1", "(4, 1, 1)", counted(4))},
                           {"y.npy", npy("|u1", "(4,)", std::string(4, '\0'))}};
  EXPECT_TRUE(contains(error([&] { load(members, Split::test); }), "validation: "));
  std::multiset<int> all;
  for (const Split split : {Split::train, Split::test}) {
    const Dataset data = load(members, split, {.validation = 0.25});
    EXPECT_EQ(data.size(), split == Split::train ? 3 : 1);
    for (const std::byte byte : data.pixels) all.insert(std::to_integer<int>(byte));
  }
  EXPECT_EQ(all, (std::multiset<int>{0, 1, 2, 3}));
  EXPECT_EQ(load(members, Split::test, {.limit = 2, .validation_without_parts = 0}).size(), 2);
}

TEST_F(Npz, MayHaveNoLabelsWhereThatIsAskedFor) {
  const Members members = {{"x.npy", npy("|u1", "(2, 1, 1)", counted(2))}};
  const Dataset data = load(members, Split::test, {.validation_without_parts = 0.5, .without_labels = true});
  EXPECT_EQ(data.labels, (std::vector<std::int32_t>{-1, -1}));
  EXPECT_EQ(data.classes, 0);
  EXPECT_TRUE(data.whole);
  EXPECT_TRUE(
      contains(error([&] { load(members, Split::test, {.validation = 0.5, .without_labels = true}); }), "has no y"));
  EXPECT_TRUE(contains(file_error([&] { load(members); }), "holds neither x and y"));
}

TEST_F(Npz, NamesFileAndArray) {
  const std::string x = npy("|u1", "(2, 1, 1)", counted(2));
  const auto says = [&](const Members& members, const std::string& what) {
    const std::string text = file_error([&] { load(members); });
    EXPECT_TRUE(text.starts_with(file_.string()) && contains(text, what)) << text;
  };
  says({{"a.npy", x}}, " holds neither x and y nor x_train and y_train, but a.npy");
  says({{"x.npy", x}, {"y.npy", "no array"}}, ": y is no NumPy array");
  says({{"x.npy", npy("|u1", "(3, 1, 1)", counted(2))}, {"y.npy", two_labels}}, "x has not the bytes of its shape");
  says({{"x.npy", npy("|u1", "(99999999999, 99999999999)", counted(2))}, {"y.npy", two_labels}}, "x has not the bytes");
  says({{"x.npy", npy("|u1", "(0, 1, 1)", "")}, {"y.npy", two_labels}}, "x is empty");
  says({{"x.npy", npy("|u1", "(1, 1, 1)", "a")}, {"y.npy", two_labels}}, "x is |u1 of (1, 1, 1), but y has 2 labels");
  says({{"x.npy", npy("<f8", "(2, 1, 1)", std::string(16, '\0'))}, {"y.npy", two_labels}},
       "x is <f8 of (2, 1, 1), images are |u1 (uint8) or <f4 (float32)");
  says({{"x.npy", npy("|u1", "(2, 1)", counted(2))}, {"y.npy", two_labels}}, "x is |u1 of (2, 1), images are");
  says({{"x.npy", npy("|u1", "(2, 1, 1)", counted(2), "True")}, {"y.npy", two_labels}}, "lies in Fortran's order");
  says({{"x.npy", npy("|O", "(2,)", "")}, {"y.npy", two_labels}}, "which is not read");
  says({{"x.npy", x}, {"y.npy", npy("<f4", "(2,)", std::string(8, '\0'))}}, "y is <f4 of (2), labels are integers");
  says({{"x.npy", x}, {"y.npy", npy("|i1", "(2,)", "\1\xff")}}, "y has at 1 a label that is not in [0, ");
  says({{"x.npy", x}, {"y.npy", npy("|u1", "(2, 3)", counted(6))}}, "labels are (n) or (n, 1)");
}

TEST_F(Npz, DamagedArchivesAreRefused) {
  const std::string x = npy("|u1", "(2, 1, 1)", counted(2));
  for (const bool packed : {false, true}) {
    const std::string sound = zip({{"x.npy", x}, {"y.npy", two_labels}}, packed);
    EXPECT_EQ(load_file(sound).size(), 2);
    EXPECT_EQ(load_file(sound.substr(0, sound.size() - 2) + testing::little_endian(3, 2) + "abc").size(), 2)
        << "a comment";
    for (std::size_t size = 0; size < sound.size(); ++size)
      EXPECT_TRUE(file_error([&] { load_file(sound.substr(0, size)); }).starts_with(file_.string())) << size;
    std::string flipped = sound;
    flipped[sound.find(counted(2), 80) == std::string::npos ? 60 : sound.find("shape") + 24] ^= 1;
    EXPECT_NE(file_error([&] { load_file(flipped); }), "no error");
  }
}

/// Zeros without end in a few bytes.
TEST_F(Npz, ASmallFileThatUnpacksToGigabytesIsRefused) {
  std::string bomb = zip({{"x.npy", std::string(1 << 20, '\0')}, {"y.npy", two_labels}}, true);
  const std::string size = testing::little_endian(1 << 20, 4);
  for (std::size_t at = bomb.find(size); at != std::string::npos; at = bomb.find(size, at + 1))
    bomb.replace(at, 4, testing::little_endian(0xfffffff0, 4));
  EXPECT_EQ(file_error([&] { load_file(bomb); }), file_.string() + " unpacks x.npy to more than 100 times its size");
}

}  // namespace
}  // namespace halftone
