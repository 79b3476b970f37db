#pragma once
#include <cstdint>
#include <filesystem>
#include <string_view>

#include "halftone/data/dataset.hpp"

namespace halftone {

/// Where a download of `name` goes if nothing else is asked for.
std::filesystem::path download_folder(std::string_view name);

/// How many of the `have` images a caller gets who asks for `limit`. Throws Error if there are not that many.
std::int64_t images_to_take(std::string_view name, std::int64_t have, std::int64_t limit);

}  // namespace halftone
