#pragma once
#include <CLI/CLI.hpp>
#include <span>

namespace halftone::cli {

/// Throws Error for the first word of a command line that is no command, no option of its command or an option without
/// a value. CLI11 drops empty values, and takes the next word for the value of `--x=`.
void check_words(const CLI::App& program, std::span<const char* const> words);

}  // namespace halftone::cli
