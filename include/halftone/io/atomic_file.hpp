#pragma once
#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace halftone {

/// Where writing to `path` leads: an absolute path without links, also behind those that lead to nothing yet.
/// Throws FileError for links that lead in a circle.
std::filesystem::path place_of(const std::filesystem::path& path);

/// Makes a folder and those above it, and returns when the disk holds their names. Throws FileError naming the folder.
void make_folder(const std::filesystem::path& folder);

/// Removes what processes that died while they wrote `target` left beside it; what the living write stays.
void remove_leftovers(const std::filesystem::path& target);

/// A file written beside its target, under a name that nobody can foretell, which takes its place when it is published
/// and vanishes if it never is; so do leftovers beside the same target. Links to the target are followed; a device or a
/// pipe is written directly. Throws FileError that names the target.
class PartialFile {
 public:
  explicit PartialFile(std::filesystem::path target);
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;
  ~PartialFile();

  void append(std::span<const std::byte> bytes);
  /// Returns when the disk holds the content and then the name.
  void publish();
  const std::filesystem::path& target() const { return target_; }
  const std::filesystem::path& path() const { return path_; }  ///< where the bytes are until then

 private:
  void open_beside();
  [[noreturn]] void give_up() const;

  std::filesystem::path target_, path_;
  int descriptor_ = -1;
  bool beside_ = true;
};

/// Replaces the file at `path` by `content`, whole or not at all, as PartialFile does.
void write_file(const std::filesystem::path& path, std::span<const std::byte> content);

void write_file(const std::filesystem::path& path, std::string_view content);

/// A folder that one process at a time writes into. The lock is the kernel's and ends with the process, however that
/// ends; it leaves nothing in the folder. It binds those who ask for it, on this machine. Where a file system knows no
/// locks there is none.
class FolderLock {
 public:
  /// Throws FileError where the folder is absent and Failure where another process, or this one, holds its lock.
  explicit FolderLock(const std::filesystem::path& folder);
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  ~FolderLock();

 private:
  int descriptor_;
};

}  // namespace halftone
