#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include "halftone/io/atomic_file.hpp"

namespace halftone {

/// A file whose content is known beforehand.
struct KnownFile {
  std::string_view name;
  std::int64_t bytes;
  std::string_view sha256;
};

/// Whether `path` has the size and the checksum of `file`.
bool is_intact(const std::filesystem::path& path, const KnownFile& file);

/// Publishes `file`. Throws FileError unless its content is that of `known`.
void publish(PartialFile& file, const KnownFile& known);

/// Unpacks from the gzipped tar file `archive` the `wanted` files that lie in its folder `folder` into the folder `to`;
/// every other entry is left out, so no name in the archive ever becomes a path. Throws FileError if the archive is
/// damaged, or a wanted file absent or not what it should be.
void unpack(const std::filesystem::path& archive, std::string_view folder, std::span<const KnownFile> wanted,
            const std::filesystem::path& to);

}  // namespace halftone
