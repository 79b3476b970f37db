#include "cli/checkpoint_identity.hpp"

#include <fmt/format.h>

#include "halftone/io/safetensors.hpp"
#include "halftone/tensor/error.hpp"

namespace halftone::cli {
namespace {

std::string text_of(const LossScale& scale) {
  switch (scale.mode) {
    case LossScale::Mode::none:
      return "none";
    case LossScale::Mode::fixed:
      return fmt::format("{}", scale.options.initial);
    case LossScale::Mode::dynamic:
      break;
  }
  const DynamicOptions& o = scale.options;
  return fmt::format(
      "dynamic:{} growth {} backoff {} interval {} min {} max {} hysteresis {} floor {} nan {} max-skips {}", o.initial,
      o.growth, o.backoff, o.interval, o.min, o.max, o.hysteresis, o.on_floor == OnFloor::stop ? "stop" : "stay",
      o.on_nan == OnNan::stop ? "stop" : "skip", o.max_consecutive_skips);
}

}  // namespace

Identity checkpoint_identity(const TrainSettings& s, const Precision& precision, const Loader& loader) {
  return {{"net", s.recipe.net},
          {"data", s.recipe.data},
          {"classes", std::to_string(loader.dataset().classes)},
          {"precision", s.recipe.precision},
          {"optimizer", s.recipe.optimizer},
          {"ema", s.recipe.average_decay > 0 ? fmt::format("{}", s.recipe.average_decay) : "none"},
          {"batch", std::to_string(loader.batch())},
          {"limit", std::to_string(loader.size())},
          {"accumulate", std::to_string(s.accumulate)},
          {"loss-scale", text_of(precision.loss_scale)},
          {"stress", fmt::format("{}", s.stress)},
          {"seed", std::to_string(s.seed)}};
}

std::map<std::string, std::string> read_identity(const std::filesystem::path& folder) {
  const SafeTensors model = read_safetensors(folder / "model.safetensors");
  if (!model.metadata.contains("net"))
    throw FileError(fmt::format("{}: it does not say which net it holds", model.file.string()));
  return model.metadata;
}

void check_identity(const std::filesystem::path& folder, const Identity& wanted) {
  const auto found = read_identity(folder);
  for (const auto& [key, value] : wanted) {
    const auto other = found.find(key);
    if (other != found.end() && other->second == value) continue;
    fail(fmt::format("--resume {}: the checkpoint has {} {}, not {}", folder.string(), key,
                     other == found.end() ? "unknown" : other->second, value));
  }
}

}  // namespace halftone::cli
