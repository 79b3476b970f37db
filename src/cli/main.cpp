#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <exception>
#include <halftone/version.hpp>

#include "cli/commands.hpp"
#include "cli/complain.hpp"
#include "cli/words.hpp"
#include "halftone/tensor/error.hpp"
#include "halftone/tensor/text.hpp"

namespace {

using halftone::cli::complain;

enum Status { success = 0, failure = 1, usage = 2 };

/// What the library says of one of its options, with the dashes that the option has in the command that was asked for.
std::string as_typed(const CLI::App& app, const std::string& text) {
  const std::string option = "--" + text.substr(0, text.find_first_of(" :"));
  const bool known = std::ranges::any_of(app.get_subcommands(),
                                         [&](const CLI::App* command) { return command->get_option_no_throw(option); });
  return known ? "--" + text : text;
}

int run(CLI::App& app, int argc, char** argv) {
  using namespace halftone::cli;
  Command command;
  app.set_version_flag("--version", std::string("halftone ") + halftone::version);
  add_train(app, command);
  add_study(app, command);
  add_doctor(app, command);
  add_replay(app, command);
  add_eval(app, command);
  add_predict(app, command);
  add_export(app, command);
  add_info(app, command);
  add_fetch(app, command);
  add_bench(app, command);
  app.require_subcommand(0, 1);
  check_words(app, std::span(argv, static_cast<std::size_t>(argc)).subspan(1));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    return complain(usage, error.what());
  }
  if (!command)
    halftone::fail("a command is missing: " + halftone::listed(command_names(app), " or ") + "; --help shows more");
  return command();
}

int run_or_complain(int argc, char** argv) {
  CLI::App app("Trains convolutional networks in many number systems.", "halftone");
  try {
    return run(app, argc, argv);
  } catch (const halftone::Failure& error) {
    return complain(failure, error.what());
  } catch (const halftone::Error& error) {
    return complain(usage, as_typed(app, error.what()));
  } catch (const std::bad_alloc&) {
    return complain(failure, "out of memory");
  } catch (const std::exception& error) {
    return complain(failure, error.what());
  }
}

/// Else a file of ours could become the standard stream that is closed.
void occupy_standard_streams() {
  int descriptor = -1;
  do {
    descriptor = ::open("/dev/null", O_RDONLY);
  } while (descriptor >= 0 && descriptor <= STDERR_FILENO);
  if (descriptor >= 0) ::close(descriptor);
}

}  // namespace

int main(int argc, char** argv) {
  occupy_standard_streams();
  std::signal(SIGXFSZ, SIG_IGN);  // writing fails then, and says why
  const int status = run_or_complain(argc, argv);
  const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  return written || status != success ? status : complain(failure, "stdout cannot be written");
}
