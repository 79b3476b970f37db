#include <fmt/format.h>

#include "cli/commands.hpp"
#include "cli/options.hpp"
#include "halftone/train/onnx.hpp"

namespace halftone::cli {
namespace {

struct ExportSettings {
  std::string checkpoint, onnx;
};

int export_net(const ExportSettings& s) {
  check_outputs({{"--onnx", s.onnx}}, {{"--checkpoint", s.checkpoint}});
  export_onnx(s.checkpoint, s.onnx);
  fmt::print("{}: images [n, c, h, w] as in the data set to logits [n, classes]\n", s.onnx);
  return 0;
}

}  // namespace

void add_export(CLI::App& app, Command& command) {
  CLI::App* sub = app.add_subcommand("export", "writes a checkpoint's net for other programs");
  auto s = std::make_shared<ExportSettings>();
  sub->add_option("--checkpoint", s->checkpoint, "folder that `halftone train --out` wrote")->required();
  sub->add_option("--onnx", s->onnx, "ONNX file of opset 17, in f32")->required();
  sub->callback([s, &command] { command = [s] { return export_net(*s); }; });
}

}  // namespace halftone::cli
