#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace halftone {

struct FetchOptions {
  std::string base_url = {};  ///< where the files lie, without a slash at the end; empty: their public home
  /// Called with the file's name, the bytes that came so far and all of them (0 where unknown), about once a second or
  /// more often. What it throws ends the download, which leaves nothing of the file behind.
  std::function<void(std::string_view file, std::int64_t done, std::int64_t total)> progress = {};
};

/// Whether the library was built with libcurl.
bool can_fetch();

/// The data sets that can be downloaded.
std::vector<std::string_view> fetchable_names();

/// Downloads one of fetchable_names() to `dir` and returns it; an empty `dir` means $HALFTONE_DATA/<name> or else the
/// user's cache folder. Files that are there with the right checksum stay; others are written beside, checked and
/// renamed. Throws Failure if the download fails, FileError if a checksum differs, Error if the library was built
/// without libcurl.
std::filesystem::path fetch(std::string_view name, const std::filesystem::path& dir = {},
                            const FetchOptions& options = {});

}  // namespace halftone
