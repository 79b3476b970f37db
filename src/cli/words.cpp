#include "cli/words.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "halftone/tensor/error.hpp"

namespace halftone::cli {
namespace {

const CLI::App& command_of(const CLI::App& program, const std::string& name) {
  const auto commands = program.get_subcommands([](const CLI::App*) { return true; });
  std::string names;
  for (const CLI::App* command : commands) {
    if (command->get_name() == name) return *command;
    names += command == commands.front() ? "" : command == commands.back() ? " and " : ", ";
    names += command->get_name();
  }
  fail(fmt::format("unknown command '{}': there are {}", name, names));
}

std::ptrdiff_t places_of(const CLI::App& command) {
  const auto options = command.get_options();
  return std::count_if(options.begin(), options.end(), [](const CLI::Option* o) { return o->get_positional(); });
}

}  // namespace

void check_words(const CLI::App& program, std::span<const char* const> words) {
  const CLI::App* command = &program;
  std::ptrdiff_t places = 0;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string word = words[i], name = word.substr(0, word.find('='));
    if (word == "--") return;
    if (!word.starts_with('-') && command == &program) {
      command = &command_of(program, word);
      places = places_of(*command);
    } else if (!word.starts_with('-')) {
      if (--places < 0) fail(fmt::format("unexpected word '{}'", word));
    } else {
      const CLI::Option* option = command->get_option_no_throw(name);
      if (!option) fail(fmt::format("unknown option {}", name));
      std::string_view value = "none";
      if (name.size() < word.size())
        value = std::string_view(word).substr(name.size() + 1);
      else if (option->get_items_expected_max() > 0)
        value = ++i < words.size() ? words[i] : "";
      if (value.empty() || value.starts_with("--")) fail(fmt::format("{}: a value is missing", name));
    }
  }
}

}  // namespace halftone::cli
