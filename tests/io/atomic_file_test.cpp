#include "halftone/io/atomic_file.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <fstream>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "halftone/tensor/error.hpp"
#include "tests/io/temporary_folder.hpp"

namespace halftone::testing {

std::mutex calls_mutex;
std::vector<std::string> calls_seen;

void note(std::string call) {
  const std::lock_guard lock(calls_mutex);
  calls_seen.push_back(std::move(call));
}

/// What was flushed and renamed since the last question.
std::vector<std::string> calls() { return std::exchange(calls_seen, {}); }

}  // namespace halftone::testing

// In place of the C library's own.
extern "C" int fsync(int descriptor) {
  struct stat status {};
  fstat(descriptor, &status);
  halftone::testing::note(S_ISDIR(status.st_mode) ? "fsync folder" : "fsync file");
  return static_cast<int>(syscall(SYS_fsync, descriptor));
}

extern "C" int rename(const char* from, const char* to) noexcept {
  halftone::testing::note("rename");
  return static_cast<int>(syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

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

/// Names that somebody who knows us, our process and the time could have planted links under.
TEST(WriteFile, FollowsNoLinkInAPartialFilesPlace) {
  TemporaryFolder folder;
  write_file(folder / "somebodys", std::string_view("theirs"));
  fs::create_symlink("somebodys", folder / ("r.json.partial-" + std::to_string(::getpid())));
  fs::create_symlink("somebodys", folder / "r.json.partial-");
  PartialFile file(folder / "r.json");
  EXPECT_FALSE(fs::is_symlink(file.path()));
  PartialFile other(folder / "r.json");
  EXPECT_NE(other.path(), file.path());
  file.append(std::as_bytes(std::span("ours")));
  file.publish();
  EXPECT_EQ(content_of(folder / "somebodys"), "theirs");
  EXPECT_FALSE(fs::is_symlink(folder / "r.json"));
}

TEST(WriteFile, RemovesWhatTheDeadLeftAndSparesTheLiving) {
  TemporaryFolder folder;
  std::ofstream(folder / "a.partial-0123456789abcdef") << "of a dead process";
  std::ofstream(folder / "b.partial-0123456789abcdef") << "somebody else's affair";
  PartialFile living(folder / "a");
  const fs::path theirs = living.path();
  write_file(folder / "a", std::string_view("whole"));
  EXPECT_FALSE(fs::exists(folder / "a.partial-0123456789abcdef"));
  EXPECT_TRUE(fs::exists(folder / "b.partial-0123456789abcdef"));
  EXPECT_TRUE(fs::exists(theirs));
  living.publish();
  EXPECT_EQ(content_of(folder / "a"), "");
  EXPECT_EQ(files_in(folder / "."), 2);
}

TEST(WriteFile, ManyMayWriteTheSameFile) {
  TemporaryFolder folder;
  const std::string texts[] = {std::string(20000, 'a'), std::string(70000, 'b')};
  std::vector<std::thread> writers;
  for (const std::string& text : texts)
    writers.emplace_back([&] {
      for (int i = 0; i < 200; ++i) write_file(folder / "x", text);
    });
  for (auto& writer : writers) writer.join();
  EXPECT_TRUE(content_of(folder / "x") == texts[0] || content_of(folder / "x") == texts[1]);
  EXPECT_EQ(files_in(folder / "."), 1);
}

TEST(WriteFile, TheNameCountsAfterTheContentIsOnDiskAndIsThenPutThereToo) {
  TemporaryFolder folder;
  testing::calls();
  make_folder(folder / "new/deep");
  EXPECT_EQ(testing::calls(), (std::vector<std::string>{"fsync folder", "fsync folder"}));
  write_file(folder / "new/deep/x", std::string_view("x"));
  EXPECT_EQ(testing::calls(), (std::vector<std::string>{"fsync file", "rename", "fsync folder"}));
}

TEST(MakeFolder, NamesWhatStandsInItsWay) {
  TemporaryFolder folder;
  write_file(folder / "file", std::string_view("x"));
  EXPECT_THROW(make_folder(folder / "file"), FileError);
  EXPECT_THROW(make_folder(folder / "file/deeper"), FileError);
  make_folder(folder / "a/b/");
  make_folder(folder / "a/b");
  EXPECT_TRUE(fs::is_directory(folder / "a/b"));
}

TEST(FolderLock, IsOneProcesssAndEndsWithIt) {
  TemporaryFolder folder;
  EXPECT_THROW(FolderLock(folder / "none"), FileError);
  std::optional<FolderLock> lock(std::in_place, folder / ".");
  EXPECT_THROW(FolderLock(folder / "."), Failure);
  lock.reset();
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t other = ::fork();
  if (other == 0) {
    const FolderLock theirs(folder / ".");
    if (::write(ready[1], "x", 1) == 1) ::pause();
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  try {
    const FolderLock second(folder / ".");
    ADD_FAILURE() << "locked twice";
  } catch (const Failure& failure) {
    EXPECT_NE(std::string(failure.what()).find("another training writes into it"), std::string::npos);
  }
  ::kill(other, SIGKILL);
  ::waitpid(other, nullptr, 0);
  EXPECT_NO_THROW(FolderLock(folder / "."));
  EXPECT_TRUE(folder.empty());
  ::close(ready[0]), ::close(ready[1]);
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
