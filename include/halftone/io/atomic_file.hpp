#pragma once
#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace halftone {

/// Where writing to `path` leads: an absolute path without links, also behind those that lead to nothing yet.
/// Throws FileError for links that lead in a circle.
std::filesystem::path place_of(const std::filesystem::path& path);

/// Replaces the file at `path` by `content`, whole or not at all: written beside as `path`.partial-PID, then renamed.
/// Links are followed; a device or a pipe is written directly. Throws FileError that names `path`, and leaves nothing
/// behind.
void write_file(const std::filesystem::path& path, std::span<const std::byte> content);

void write_file(const std::filesystem::path& path, std::string_view content);

}  // namespace halftone
