#include "halftone/io/atomic_file.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "halftone/tensor/error.hpp"
#include "tests/io/temporary_folder.hpp"

namespace halftone {
namespace {

namespace fs = std::filesystem;

std::string content_of(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::ptrdiff_t files_in(const fs::path& folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

TEST(WriteFile, WritesAndReplaces) {
  TemporaryFolder folder;
  write_file(folder / "a", std::string_view("first, and longer"));
  write_file(folder / "a", std::string_view("second"));
  EXPECT_EQ(content_of(folder / "a"), "second");
  EXPECT_EQ(files_in(folder / "."), 1);
}

TEST(WriteFile, WritesIntoAPipe) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  write_file("/proc/self/fd/" + std::to_string(ends[1]), std::string_view("through"));
  char read[8] = {};
  EXPECT_EQ(::read(ends[0], read, sizeof read), 7);
  EXPECT_STREQ(read, "through");
  ::close(ends[0]), ::close(ends[1]);
}

TEST(WriteFile, LeavesNothingBehindWhenItFails) {
  TemporaryFolder folder;
  EXPECT_THROW(write_file(folder / "no" / "such", std::string_view("x")), FileError);
  EXPECT_TRUE(folder.empty());
  fs::create_directory(folder / "a");
  try {
    write_file(folder / "a", std::string_view("x"));
    ADD_FAILURE() << "a folder was overwritten";
  } catch (const FileError& error) {
    EXPECT_NE(std::string(error.what()).find((folder / "a").string()), std::string::npos) << error.what();
  }
  EXPECT_EQ(files_in(folder / "."), 1);
}

TEST(WriteFile, GoesThroughLinksAndSparesDevices) {
  TemporaryFolder folder;
  write_file(folder / "target", std::string_view("old"));
  fs::create_symlink(folder / "target", folder / "link");
  write_file(folder / "link", std::string_view("new"));
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(content_of(folder / "target"), "new");

  fs::create_symlink("new", folder / "dangling");
  fs::create_symlink(folder / "dangling", folder / "twice");
  EXPECT_EQ(place_of(folder / "twice"), place_of(folder / "new"));
  write_file(folder / "twice", std::string_view("made"));
  EXPECT_TRUE(fs::is_symlink(folder / "twice") && fs::is_symlink(folder / "dangling"));
  EXPECT_EQ(content_of(folder / "new"), "made");

  fs::create_symlink("round", folder / "round");
  EXPECT_THROW(write_file(folder / "round", std::string_view("x")), FileError);
  EXPECT_TRUE(fs::is_symlink(folder / "round"));

  write_file("/dev/null", std::string_view("x"));
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  if (fs::exists("/dev/full")) {
    EXPECT_THROW(write_file("/dev/full", std::string_view("x")), FileError);
  }
}

TEST(PlaceOf, IsTheSameForEveryWayThere) {
  TemporaryFolder folder;
  fs::create_directory(folder / "sub");
  fs::create_directory_symlink(folder / "sub", folder / "link");
  const fs::path there = place_of(folder / "sub/x");
  EXPECT_EQ(place_of(folder / "./link/../link/x"), there);
  EXPECT_EQ(place_of(fs::relative(folder / "link/x")), there);
  std::ofstream(there) << "x";
  EXPECT_EQ(place_of(folder / "link/x"), there);
  EXPECT_NE(place_of(folder / "link/y"), there);
}

}  // namespace
}  // namespace halftone
