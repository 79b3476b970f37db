#include <fmt/format.h>

#include "cli/commands.hpp"
#include "cli/options.hpp"
#include "halftone/train/onnx.hpp"
#include "halftone/train/predictor.hpp"

namespace halftone::cli {
namespace {

struct ExportSettings {
  std::string checkpoint, packed, onnx;
  bool raw = false;
};

int export_model(const ExportSettings& s) {
  check_outputs({{"--packed", s.packed}, {"--onnx", s.onnx}}, {{"--checkpoint", s.checkpoint}});
  const ModelWeights weights = s.raw ? ModelWeights::raw : ModelWeights::best;
  if (!s.packed.empty()) {
    const PackedReport report = export_packed(s.checkpoint, s.packed, weights);
    fmt::print("{}: {} of {} weights are a bit each, {} bytes instead of {}\n", s.packed, report.signs, report.weights,
               report.bytes, 4 * report.signs);
  }
  if (!s.onnx.empty()) {
    export_onnx(s.checkpoint, s.onnx, weights);
    fmt::print("{}: images [n, c, h, w] as in the data set to logits [n, classes]\n", s.onnx);
  }
  return 0;
}

}  // namespace

void add_export(CLI::App& app, Command& command) {
  CLI::App* sub = app.add_subcommand("export", "writes a checkpoint's net as a file to use alone or elsewhere");
  auto s = std::make_shared<ExportSettings>();
  sub->add_option("--checkpoint", s->checkpoint, "folder that `halftone train --out` wrote")->required();
  CLI::Option_group* files = sub->add_option_group("files");
  files->add_option("--packed", s->packed, "file for `eval` and `predict`, weights of a binary net in a bit each");
  files->add_option("--onnx", s->onnx, "ONNX file of opset 17, in f32");
  files->require_option(1, 2);
  sub->add_flag("--raw", s->raw, "the weights themselves where the checkpoint has an average (train --ema)");
  sub->callback([s, &command] { command = [s] { return export_model(*s); }; });
}

}  // namespace halftone::cli
