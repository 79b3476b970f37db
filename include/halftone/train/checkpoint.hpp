#pragma once
#include <filesystem>
#include <map>

#include "halftone/graph/parameters.hpp"

namespace halftone {

/// Writes DIR/model.safetensors and DIR/state.safetensors; the folder is made where it is missing. The files hold no
/// times, paths or thread counts, so equal training gives equal bytes.
void save_checkpoint(const std::filesystem::path& directory, const Parameters& parameters,
                     const std::map<std::string, std::string>& metadata);

/// Reads both files, checks them whole, then writes all of it into memory. The files' metadata must hold `expected`.
void load_checkpoint(const std::filesystem::path& directory, const Parameters& parameters,
                     const std::map<std::string, std::string>& expected = {});

}  // namespace halftone
