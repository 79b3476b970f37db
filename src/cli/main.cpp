#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <halftone/version.hpp>

#include "cli/commands.hpp"
#include "halftone/tensor/error.hpp"

namespace {

enum Status { failure = 1, usage = 2 };

/// Says what is wrong, in one line of at most 400 characters.
int complain(Status status, std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  constexpr std::size_t most = 380;
  if (text.size() > most) text = text.substr(0, most) + "...";
  fmt::print(stderr, "halftone: {}\n", text);
  return status;
}

int run(int argc, char** argv) {
  using namespace halftone::cli;
  CLI::App app("Trains convolutional networks in many number systems.", "halftone");
  Command command;
  app.set_version_flag("--version", std::string("halftone ") + halftone::version);
  add_train(app, command);
  add_eval(app, command);
  add_info(app, command);
  add_fetch(app, command);
  add_bench(app, command);
  app.require_subcommand(0, 1);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    return complain(usage, error.what());
  }
  if (!command) halftone::fail("a command is missing: train, eval, info, fetch or bench; --help shows more");
  return command();
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const halftone::Failure& error) {
    return complain(failure, error.what());
  } catch (const halftone::Error& error) {
    return complain(usage, error.what());
  } catch (const std::bad_alloc&) {
    return complain(failure, "out of memory");
  } catch (const std::exception& error) {
    return complain(failure, error.what());
  }
}
