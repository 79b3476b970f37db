#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cli/train.hpp"
#include "halftone/data/loader.hpp"
#include "halftone/graph/precision.hpp"

namespace halftone::cli {

/// Names and what they stand for, the weightiest first.
using Identity = std::vector<std::pair<std::string, std::string>>;

/// What a checkpoint of this run says of itself: all that must be the same for a resume to go on where it stopped.
Identity checkpoint_identity(const TrainSettings& settings, const Precision& precision, const Loader& loader);

/// Throws Error naming the first thing in which the checkpoint in `folder` differs.
void check_identity(const std::filesystem::path& folder, const Identity& wanted);

/// Metadata of a checkpoint's model; throws FileError where it is not one of this program's.
std::map<std::string, std::string> read_identity(const std::filesystem::path& folder);

}  // namespace halftone::cli
