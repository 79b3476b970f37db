#include <fmt/format.h>

#include "cli/commands.hpp"
#include "cli/options.hpp"
#include "halftone/train/predictor.hpp"

namespace halftone::cli {
namespace {

struct ExportSettings {
  std::string checkpoint, packed;
  bool raw = false;
};

int export_model(const ExportSettings& s) {
  check_outputs({{"--packed", s.packed}}, {{"--checkpoint", s.checkpoint}});
  const PackedReport report = export_packed(s.checkpoint, s.packed, s.raw ? ModelWeights::raw : ModelWeights::best);
  fmt::print("{}: {} of {} weights are a bit each, {} bytes instead of {}\n", s.packed, report.signs, report.weights,
             report.bytes, 4 * report.signs);
  return 0;
}

}  // namespace

void add_export(CLI::App& app, Command& command) {
  CLI::App* sub = app.add_subcommand("export", "writes a checkpoint's net as a file to use alone");
  auto s = std::make_shared<ExportSettings>();
  sub->add_option("--checkpoint", s->checkpoint, "folder that `halftone train --out` wrote")->required();
  sub->add_option("--packed", s->packed, "file for `eval` and `predict`, weights of a binary net in a bit each")
      ->required();
  sub->add_flag("--raw", s->raw, "the weights themselves where the checkpoint has an average (train --ema)");
  sub->callback([s, &command] { command = [s] { return export_model(*s); }; });
}

}  // namespace halftone::cli
