#pragma once
#include <CLI/CLI.hpp>
#include <functional>

namespace halftone::cli {

/// What the command line asks for; it returns the exit status.
using Command = std::function<int()>;

// Each adds a subcommand which, where it is the one asked for, sets `command`.
void add_train(CLI::App& app, Command& command);
void add_study(CLI::App& app, Command& command);
void add_doctor(CLI::App& app, Command& command);
void add_replay(CLI::App& app, Command& command);
void add_eval(CLI::App& app, Command& command);
void add_predict(CLI::App& app, Command& command);
void add_export(CLI::App& app, Command& command);
void add_info(CLI::App& app, Command& command);
void add_fetch(CLI::App& app, Command& command);
void add_bench(CLI::App& app, Command& command);

}  // namespace halftone::cli
