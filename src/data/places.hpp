#pragma once
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "halftone/data/dataset.hpp"

namespace halftone {

/// $HALFTONE_DATA/<name> where the variable is set, ./data/<name>, and the user's cache folder where there is one.
std::vector<std::filesystem::path> usual_places(std::string_view name);

/// Where a download of `name` goes if nothing else is asked for.
std::filesystem::path download_folder(std::string_view name);

/// How many of the `have` images a caller gets who asks for `limit`. Throws Error if there are not that many.
std::int64_t images_to_take(std::string_view name, std::int64_t have, std::int64_t limit);

}  // namespace halftone
