#include "cli/words.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "halftone/tensor/error.hpp"
#include "halftone/tensor/text.hpp"

namespace halftone::cli {

std::vector<std::string_view> command_names(const CLI::App& program) {
  std::vector<std::string_view> names;
  for (const CLI::App* command : program.get_subcommands({})) names.push_back(command->get_name());
  return names;
}

void check_words(const CLI::App& program, std::span<const char* const> words) {
  const CLI::App* command = &program;
  std::size_t positionals = 0;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string word = words[i], name = word.substr(0, word.find('='));
    if (word == "--") return;
    if (word.starts_with('-')) {
      const CLI::Option* option = command->get_option_no_throw(name);
      if (!option) fail(fmt::format("unknown option {}", name));
      const bool joined = name.size() < word.size();
      if (!joined && option->get_items_expected_max() == 0) continue;
      const std::string value = joined ? word.substr(name.size() + 1) : ++i < words.size() ? words[i] : "";
      if (value.empty() || value.starts_with("--")) fail(fmt::format("{}: a value is missing", name));
    } else if (command == &program) {
      const auto names = command_names(program);
      if (std::ranges::find(names, word) == names.end())
        fail(fmt::format("unknown command '{}': there are {}", word, listed(names, " and ")));
      command = program.get_subcommand(word);
      positionals = command->get_options([](const CLI::Option* o) { return o->get_positional(); }).size();
    } else if (positionals-- == 0) {
      fail(fmt::format("unexpected word '{}'", word));
    }
  }
}

}  // namespace halftone::cli
