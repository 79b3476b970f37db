#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include "halftone/data/dataset.hpp"

namespace halftone {

/// Where a download of `name` goes if nothing else is asked for.
std::filesystem::path download_folder(std::string_view name);

/// How many of the `have` images a caller gets who asks for `limit`. Throws Error if there are not that many.
std::int64_t images_to_take(std::string_view name, std::int64_t have, std::int64_t limit);

/// Sets mean and deviation of data whose training set has these u8 pixels.
void measure(Dataset& data, std::span<const std::byte> training_pixels);

/// The file in `dir` that holds `kind` ("images" or "labels") in `dimensions` dimensions by one of its usual names,
/// gzipped or plain; where there is none, the name that it is published by.
std::filesystem::path idx_file(const std::filesystem::path& dir, Split split, std::string_view kind, int dimensions);

}  // namespace halftone
