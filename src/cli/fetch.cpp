#include "halftone/data/fetch.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "cli/commands.hpp"
#include "cli/complain.hpp"
#include "cli/interrupt.hpp"
#include "cli/options.hpp"
#include "halftone/tensor/text.hpp"

namespace halftone::cli {
namespace {

struct Interrupted {};

struct FetchSettings {
  std::string name, folder;
};

void show(std::string_view file, std::int64_t done, std::int64_t total) {
  fmt::print("\r\033[K{}  {:.1f} MB", file, static_cast<double>(done) / 1e6);
  if (total > 0) fmt::print(" of {:.1f}", static_cast<double>(total) / 1e6);
  std::fflush(stdout);
}

int run(const FetchSettings& s) {
  if (!s.folder.empty()) check_output_folder("--data-dir", s.folder);
  const bool terminal = ::isatty(STDOUT_FILENO) != 0;
  const Interrupt interrupt;
  FetchOptions options;
  options.progress = [&](std::string_view file, std::int64_t done, std::int64_t total) {
    if (interrupt.raised()) throw Interrupted();
    if (terminal) show(file, done, total);
  };
  try {
    const auto folder = fetch(s.name, s.folder, options);
    fmt::print("{}{} is in {}\n", terminal ? "\r\033[K" : "", s.name, folder.string());
    return 0;
  } catch (const Interrupted&) {
    return complain(interrupted_status, "interrupted; the files that are whole stay");
  }
}

}  // namespace

void add_fetch(CLI::App& app, Command& command) {
  CLI::App* sub = app.add_subcommand("fetch", "downloads a data set and checks it");
  auto s = std::make_shared<FetchSettings>();
  sub->add_option("name", s->name, listed(fetchable_names(), " or "))->required();
  sub->add_option("--data-dir,--out", s->folder, "where to [$HALFTONE_DATA/NAME, else the user's cache folder]");
  sub->callback([s, &command] { command = [s] { return run(*s); }; });
}

}  // namespace halftone::cli
