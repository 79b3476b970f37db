#pragma once
#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace halftone {

/// Where writing to `path` leads: an absolute path without links, also behind those that lead to nothing yet.
/// Throws FileError for links that lead in a circle.
std::filesystem::path place_of(const std::filesystem::path& path);

/// A file written beside its target as `target`.partial-PID, which takes its place when it is published and vanishes if
/// it never is. Links are followed; a device or a pipe is written directly. Throws FileError that names the target.
class PartialFile {
 public:
  explicit PartialFile(std::filesystem::path target);
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;
  ~PartialFile();

  void append(std::span<const std::byte> bytes);
  void publish();
  const std::filesystem::path& target() const { return target_; }
  const std::filesystem::path& path() const { return path_; }  ///< where the bytes are until then

 private:
  [[noreturn]] void give_up() const;

  std::filesystem::path target_, path_;
  int descriptor_ = -1;
  bool beside_ = true;
};

/// Replaces the file at `path` by `content`, whole or not at all, as PartialFile does.
void write_file(const std::filesystem::path& path, std::span<const std::byte> content);

void write_file(const std::filesystem::path& path, std::string_view content);

}  // namespace halftone
