#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "cli/train.hpp"
#include "halftone/inspect/capsule.hpp"
#include "halftone/tensor/error.hpp"
#include "halftone/tensor/text.hpp"
#include "halftone/train/predictor.hpp"

namespace halftone::cli {
namespace {

struct ReplaySettings {
  std::string folder;
  DeviceOptions device;
  std::vector<std::string> given;  ///< options of the device that replace the capsule's

  DeviceOptions device_for(DeviceOptions recorded) const {
    const auto has = [&](const char* option) { return std::find(given.begin(), given.end(), option) != given.end(); };
    if (has("--device")) recorded.device = device.device;
    if (has("--threads")) recorded.cpu.threads = device.cpu.threads;
    if (has("--isa")) recorded.cpu.isa = device.cpu.isa;
    if (has("--algorithms")) recorded.cpu.algorithms = device.cpu.algorithms;
    return recorded;
  }
};

/// What `train` was told, as the capsule has it.
TrainSettings settings_of(const Metadata& facts, const std::string& folder) {
  const auto words = nlohmann::json::parse(text_at(facts, "words"), nullptr, false);
  if (!words.is_array() || !std::all_of(words.begin(), words.end(), [](const auto& word) { return word.is_string(); }))
    throw FileError(folder + ": no capsule of `halftone train`");
  CLI::App app;
  TrainSettings settings;
  settings.add_shared(app);
  settings.add_system(app);
  auto reversed = words.get<std::vector<std::string>>();
  std::reverse(reversed.begin(), reversed.end());  // as CLI11 takes them
  try {
    app.parse(reversed);
  } catch (const CLI::ParseError& error) {
    throw FileError(fmt::format("{}: {}", folder, error.what()));
  }
  for (const std::string& what : settings.keep) settings.recipe.precision += "+" + what;
  return settings;
}

/// The capsule's batch as a data set that is like the one it came from.
Loader loader_of(const std::string& folder, const ModelDescription& model) {
  Dataset batch{.name = model.data, .image = model.image, .dtype = model.dtype};
  batch.pixels = capsule_input(folder, "images");
  const std::vector<std::byte> labels = capsule_input(folder, "labels");
  const std::size_t image = TensorSpec{batch.image, batch.dtype}.bytes();
  if (labels.size() % sizeof(std::int32_t) != 0 || batch.pixels.size() != labels.size() / sizeof(std::int32_t) * image)
    throw FileError(folder + ": its images and labels are not as many");
  batch.labels.resize(labels.size() / sizeof(std::int32_t));
  std::memcpy(batch.labels.data(), labels.data(), labels.size());
  batch.classes = model.classes;
  batch.mean = model.mean, batch.stddev = model.stddev;
  const std::int64_t size = batch.size();
  return Loader(std::make_shared<const Dataset>(std::move(batch)), {.batch = size});
}

int replay(const ReplaySettings& given) {
  const Metadata facts = read_capsule(given.folder);
  TrainSettings settings = settings_of(facts, given.folder);
  settings.device = given.device_for(settings.device);
  const auto batches = parse_number(text_at(facts, "batches"));
  if (!batches || !(*batches >= 1 && *batches <= 1e9))
    throw FileError(given.folder + ": it does not say how many batches an epoch has");
  const ModelDescription model = read_model_description(given.folder);
  settings.loaded->net = model.net;
  Setting setting(settings, loader_of(given.folder, model), *batches);
  setting.options.keep_values = true;
  Trainer trainer(setting.loss, setting.options);
  const Replay done = halftone::replay(given.folder, trainer);
  fmt::print("step {} of {} on {} in {}{}\n", done.report.attempt, model.net->name, model.data,
             settings.recipe.precision,
             done.same_bits ? ": the same bits"
                            : ": not the bits of the first time (another device, instruction set or build?)");
  fmt::print("loss {}, scale {}{}\n", std::isnan(done.report.loss) ? std::abs(done.report.loss) : done.report.loss,
             done.report.scale, done.report.reason.empty() ? ", committed" : ", skipped: " + done.report.reason);
  if (done.first) {
    fmt::print("first bad tensor: {}\n", to_string(*done.first));
  } else {
    fmt::print("all numbers are finite\n");
  }
  return done.same_bits ? 0 : 1;
}

}  // namespace

void add_replay(CLI::App& app, Command& command) {
  CLI::App* sub =
      app.add_subcommand("replay", "does the step of a failure capsule again and names the first bad tensor");
  auto settings = std::make_shared<ReplaySettings>();
  sub->add_option("DIR", settings->folder, "folder that `halftone train --capsule` wrote")->required();
  settings->device.add_to(*sub);
  sub->callback([settings, sub, &command] {
    for (const CLI::Option* option : sub->get_options())
      if (option->count() > 0) settings->given.push_back(option->get_name());
    command = [settings] { return replay(*settings); };
  });
}

}  // namespace halftone::cli
