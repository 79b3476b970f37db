#pragma once
#include <CLI/CLI.hpp>
#include <span>
#include <string_view>
#include <vector>

namespace halftone::cli {

std::vector<std::string_view> command_names(const CLI::App& program);

/// Throws Error for the first word of a command line that is no command, no option of its command or an option without
/// a value. CLI11 cannot: it drops empty values, takes the next word for the value of `--x=`, and comes to an unknown
/// option only after a required one.
void check_words(const CLI::App& program, std::span<const char* const> words);

}  // namespace halftone::cli
