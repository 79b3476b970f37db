#pragma once
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>

#include "src/data/sha256.hpp"

namespace halftone {

/// A file whose content is known beforehand.
struct KnownFile {
  std::string_view name;
  std::int64_t bytes;
  std::string_view sha256;
};

/// Whether `path` has the size and the checksum of `file`.
bool is_intact(const std::filesystem::path& path, const KnownFile& file);

/// A file written beside its place, which takes it when it is complete and vanishes if it never is.
class PartialFile {
 public:
  explicit PartialFile(std::filesystem::path path);
  ~PartialFile();
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  void write(const void* bytes, std::size_t count);

  /// Where the bytes are until then, all written.
  const std::filesystem::path& flushed();

  /// Renames the file to its place. Throws FileError unless it is `known`.
  void commit(const KnownFile& known);

  std::int64_t bytes() const { return bytes_; }

 private:
  std::filesystem::path path_, beside_;
  std::ofstream stream_;
  Sha256 sum_;
  std::int64_t bytes_ = 0;
};

/// Unpacks from the gzipped tar file `archive` the `wanted` files that lie in its folder `folder` into the folder `to`;
/// every other entry is left out, so no name in the archive ever becomes a path. Throws FileError if the archive is
/// damaged, or a wanted file absent or not what it should be.
void unpack(const std::filesystem::path& archive, std::string_view folder, std::span<const KnownFile> wanted,
            const std::filesystem::path& to);

}  // namespace halftone
