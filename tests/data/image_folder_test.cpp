#include "halftone/data/image_folder.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>

#include "halftone/data/image.hpp"
#include "halftone/data/loader.hpp"
#include "tests/data/files.hpp"
#include "tests/data/own_files.hpp"

namespace halftone {
namespace {

namespace fs = std::filesystem;
using testing::contains;
using testing::error;
using testing::file_error;

const DataOptions tiny = {.image = {1, 1, 2, 3}};

class ImageFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!contains(image_formats(), "png")) GTEST_SKIP() << "built without libpng";
  }

  /// A file of two pixels of which every number is `value`.
  void add(const std::string& file, std::uint8_t value) {
    fs::create_directories((dir_ / file).parent_path());
    testing::write(dir_ / file, testing::png(1, 2, 3, std::vector<std::uint8_t>(6, value)));
  }
  fs::path root() const { return dir_ / "set"; }
  Dataset load(Split split, const DataOptions& options = tiny) const {
    return load_dataset("folder:" + root().string(), split, options);
  }

  TemporaryFolder dir_;
};

std::vector<int> first_bytes(const Dataset& data) {
  std::vector<int> bytes;
  for (std::int64_t i = 0; i < data.size(); ++i) bytes.push_back(std::to_integer<int>(*data.at(i)));
  return bytes;
}

TEST_F(ImageFolder, AFolderIsAClass) {
  add("set/train/b/1.png", 10), add("set/train/b/2.PNG", 20), add("set/train/b/deep/3.jpeg", 30);
  add("set/train/a/9.jpg", 40);
  add("set/train/a/.hidden.png", 1), testing::write(dir_ / "set/train/a/notes.txt", "");
  testing::write(dir_ / "set/train/readme.png", "");  // in no class
  add("set/test/b/1.png", 50);
  const Dataset train = load(Split::train), test = load(Split::test);
  EXPECT_EQ(train.name, "folder:set");
  EXPECT_EQ(train.class_names, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(train.classes, 2);
  EXPECT_EQ(train.image, (Shape{1, 1, 2, 3}));
  EXPECT_EQ(train.labels, (std::vector<std::int32_t>{0, 1, 1, 1})) << "in turn one of each";
  EXPECT_EQ(first_bytes(train), (std::vector<int>{40, 10, 20, 30}));
  EXPECT_EQ(train.files,
            (std::vector<std::string>{"train/a/9.jpg", "train/b/1.png", "train/b/2.PNG", "train/b/deep/3.jpeg"}));
  EXPECT_FLOAT_EQ(train.mean.at(2), 25 / 255.0f);
  EXPECT_EQ(test.labels, std::vector<std::int32_t>{1});
  EXPECT_EQ(first_bytes(test), std::vector<int>{50});
  DataOptions gray = tiny;
  gray.image.c = 1, gray.limit = 2;
  EXPECT_EQ(load(Split::train, gray).pixels.size(), 4u);
}

TEST_F(ImageFolder, AShareOfEachClassIsHeldOut) {
  for (int i = 0; i < 20; ++i) add("set/a/" + std::to_string(i) + ".png", static_cast<std::uint8_t>(i));
  for (int i = 0; i < 10; ++i) add("set/b/" + std::to_string(i) + ".png", static_cast<std::uint8_t>(100 + i));
  EXPECT_TRUE(contains(error([&] { load(Split::test); }), "validation: "));
  DataOptions options = tiny;
  options.validation = 0.2;
  const Dataset train = load(Split::train, options), test = load(Split::test, options);
  EXPECT_EQ(std::ranges::count(test.labels, 0), 4);
  EXPECT_EQ(std::ranges::count(test.labels, 1), 2);
  std::multiset<int> all;
  for (const Dataset* part : {&train, &test})
    for (const int byte : first_bytes(*part)) all.insert(byte);
  EXPECT_EQ(all.size(), 30u);
  EXPECT_EQ(std::set<int>(all.begin(), all.end()).size(), 30u) << "no image is in both";
  EXPECT_EQ(first_bytes(load(Split::test, options)), first_bytes(test));
  EXPECT_EQ(test.validation, 0.2);
  options.validation = 0, options.validation_without_parts = 0.2;
  EXPECT_EQ(load(Split::test, options).files, test.files);
  options.validation_without_parts = 0;
  EXPECT_EQ(load(Split::test, options).size(), 30);
  EXPECT_TRUE(load(Split::test, options).whole);
  for (const double wrong : {-0.1, 1.0, std::nan("")}) {
    options.validation = wrong;
    EXPECT_TRUE(contains(error([&] { load(Split::train, options); }), "validation")) << wrong;
  }
}

TEST_F(ImageFolder, AFilesShareIsItsOwn) {
  const auto add_all = [&](const std::string& name, int first) {
    for (int i = first; i < 20; ++i) add("set/" + name + "/" + std::to_string(100 + i) + ".png", 1);
  };
  add_all("a", 1), add_all("b", 0), add_all("c", 0);
  DataOptions options = tiny;
  options.validation = 0.2;
  const auto held_out = [&](char name) {
    std::vector<std::string> files;
    for (const std::string& file : load(Split::test, options).files)
      if (file[0] == name) files.push_back(file);
    return files;
  };
  const auto a = held_out('a'), b = held_out('b'), c = held_out('c');
  EXPECT_EQ(b.size(), 4u);
  add("set/a/100.png", 1), add("set/b/zzz.png", 1);
  EXPECT_EQ(held_out('c'), c);
  for (const auto& [name, before] : {std::pair('a', a), std::pair('b', b)}) {
    std::vector<std::string> after = held_out(name), kept;
    std::ranges::set_intersection(before, after, std::back_inserter(kept));
    EXPECT_GE(kept.size(), before.size() - 1) << name;
  }
}

TEST_F(ImageFolder, WhatIsHiddenIsNotRead) {
  add("set/a/1.png", 1), add("set/a/.ipynb_checkpoints/1.png", 2), add("set/a/deep/.thumbnails/x/1.png", 3);
  EXPECT_EQ(load(Split::train).files, std::vector<std::string>{"a/1.png"});
}

TEST_F(ImageFolder, AClassHoldsImages) {
  add("set/a/1.png", 1), add("set/__MACOSX/._1.png", 1);
  EXPECT_EQ(file_error([&] { load(Split::train); }),
            (root() / "__MACOSX").string() + " is a class and holds no images");
}

TEST_F(ImageFolder, NothingIsLeftOutInSilence) {
  add("set/a/1.jfif", 1), add("set/a/2.jpe", 2);
  EXPECT_EQ(first_bytes(load(Split::train)), (std::vector<int>{1, 2}));
  add("elsewhere/1.png", 9);
  fs::create_directory_symlink(dir_ / "elsewhere", root() / "b");
  EXPECT_EQ(load(Split::train).files, (std::vector<std::string>{"a/1.jfif", "b/1.png", "a/2.jpe"}));
  fs::create_directory_symlink(dir_ / "elsewhere", root() / "a/more");
  EXPECT_EQ(file_error([&] { load(Split::train); }),
            (root() / "a/more").string() + " is a link to a folder, which is not followed inside a class");
  fs::remove(root() / "a/more");
  for (const char* name : {"x.heic", "x.ppm"}) {
    testing::write(root() / "a" / name, "something");
    EXPECT_TRUE(contains(file_error([&] { load(Split::train); }), name));
    fs::remove(root() / "a" / name);
  }
}

TEST_F(ImageFolder, ValidIsATestPartToo) {
  add("set/train/a/1.png", 1);
  EXPECT_TRUE(contains(error([&] { load(Split::test); }), "set has train/, but no test/, val/ or valid/; the share"));
  add("set/valid/a/1.png", 2);
  EXPECT_EQ(first_bytes(load(Split::test)), std::vector<int>{2});
}

TEST_F(ImageFolder, ANameIsUtf8) {
  add("set/gr\xc3\xbcn/1.png", 1);
  EXPECT_EQ(load(Split::train).class_names, std::vector<std::string>{"gr\xc3\xbcn"});
  add("set/gr\xfcn/1.png", 1);
  EXPECT_TRUE(contains(file_error([&] { load(Split::train); }), "gr\xfcn is a class, and its name is not UTF-8"));
}

TEST_F(ImageFolder, BrokenImagesAreNamedAndCounted) {
  add("set/a/1.png", 1), add("set/b/1.png", 2), add("set/b/3.png", 3);
  testing::write(dir_ / "set/b/2.png", "no image"), testing::write(dir_ / "set/b/4.gif", "GIF89a");
  EXPECT_EQ(file_error([&] { load(Split::train); }), "folder:set: 2 of 5 images are broken; the first: " +
                                                         (dir_ / "set/b/2.png").string() + " is neither PNG nor JPEG");
  DataOptions options = tiny;
  options.skip_broken = true;
  const Dataset data = load(Split::train, options);
  EXPECT_EQ(first_bytes(data), (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(data.labels, (std::vector<std::int32_t>{0, 1, 1}));
  EXPECT_EQ(data.files.at(2), "b/3.png");
  EXPECT_EQ(data.left_out.size(), 2u);
  for (const char* sound : {"set/a/1.png", "set/b/1.png", "set/b/3.png"}) testing::write(dir_ / sound, "");
  EXPECT_TRUE(contains(file_error([&] { load(Split::train, options); }), "5 of 5 images are broken"));
}

TEST_F(ImageFolder, SaysWhatItLacks) {
  EXPECT_EQ(file_error([&] { load(Split::train); }), root().string() + " is no folder");
  fs::create_directories(root());
  EXPECT_TRUE(contains(file_error([&] { load(Split::train); }), "holds no folders, of which each would be a class"));
  fs::create_directories(root() / "a");
  EXPECT_EQ(file_error([&] { load(Split::train); }), (root() / "a").string() + " is a class and holds no images");
  add("set/train/a/1.png", 1), add("set/val/c/1.png", 1);
  EXPECT_EQ(file_error([&] { load(Split::test); }),
            (root() / "val").string() + ": c is none of the 1 classes of the training set");
  EXPECT_TRUE(contains(error([&] { load(Split::train, {}); }), "image: folder:set needs the size"));
  DataOptions options = tiny;
  options.layout = PixelLayout::nhwc;
  EXPECT_TRUE(contains(error([&] { load(Split::train, options); }), "layout: "));
  EXPECT_TRUE(contains(error([&] { load_dataset("folder:", Split::train, tiny); }), "a place is missing"));
}

/// What docs/guide.md shows.
TEST_F(ImageFolder, TheGuidesExample) {
  namespace ht = halftone;
  for (int i = 0; i < 80; ++i) add("flowers/" + std::to_string(i % 2) + "/" + std::to_string(i) + ".png", 100);
  testing::write(dir_ / "flowers/0/broken.png", "");
  testing::write(dir_ / "photo.jpg", testing::png(1, 1, 3, {7, 8, 9}));
  const fs::path before = fs::current_path();
  fs::current_path(dir_ / "");
  std::ostringstream out;

  const ht::DataOptions flowers = {.validation = 0.1, .image = {1, 32, 32, 3}, .skip_broken = true};
  const auto data = std::make_shared<const ht::Dataset>(ht::load_dataset("folder:flowers", ht::Split::train, flowers));
  for (const std::string& file : data->left_out) out << "left out: " << file << '\n';
  const ht::Loader train(data, {.batch = 64, .crop = 4, .flip = true});
  const std::vector<std::uint8_t> photo = ht::read_image("photo.jpg", data->image);  // as Predictor takes it

  fs::current_path(before);
  EXPECT_EQ(train.size(), 72);
  EXPECT_EQ(photo.size(), 32u * 32 * 3);
  EXPECT_EQ(photo.back(), 9);
  EXPECT_EQ(out.str(), "left out: flowers/0/broken.png is neither PNG nor JPEG\n");
}

/// Labels of another folder go by the names that a net has learnt.
TEST_F(ImageFolder, ClassesMayBeGiven) {
  add("set/dog/1.png", 1);
  DataOptions options = tiny;
  options.validation_without_parts = 0, options.class_names = {"cat", "dog"};
  EXPECT_EQ(load(Split::test, options).labels, std::vector<std::int32_t>{1});
  EXPECT_EQ(load(Split::test, options).classes, 2);
}

}  // namespace
}  // namespace halftone
