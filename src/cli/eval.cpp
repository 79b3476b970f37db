#include <fmt/format.h>

#include <charconv>

#include "cli/commands.hpp"
#include "cli/options.hpp"
#include "cli/report.hpp"
#include "halftone/nn/models.hpp"
#include "halftone/ops/loss.hpp"
#include "halftone/tensor/text.hpp"
#include "halftone/train/inputs.hpp"
#include "halftone/train/load_model.hpp"
#include "halftone/train/trainer.hpp"

namespace halftone::cli {
namespace {

struct EvalSettings {
  DeviceOptions device;
  std::string checkpoint, data, data_dir, precision, json;
  std::int64_t batch = 128;
  bool raw = false;
};

const Net& net_of(const std::string& checkpoint, const Metadata& model) {
  const auto name = model.find("net");
  if (name == model.end()) throw FileError(fmt::format("{}: it does not say which net it holds", checkpoint));
  for (const Net& net : nets())
    if (net.name == name->second) return net;
  throw FileError(fmt::format("{}: it holds the net '{}', which is unknown", checkpoint, name->second));
}

int classes_of(const std::string& checkpoint, const Metadata& model) {
  const std::string text = text_at(model, "classes");
  int classes = 0;
  const char* end = std::from_chars(text.data(), text.data() + text.size(), classes).ptr;
  if (classes < 1 || end != text.data() + text.size())
    throw FileError(fmt::format("{}: it does not say how many classes it tells apart", checkpoint));
  return classes;
}

/// The numbers, one a channel, by which the net's own training normalised its images.
std::vector<float> per_channel(const std::string& checkpoint, const Metadata& model, const char* key,
                               const Dataset& data) {
  const std::string text = text_at(model, key);
  std::vector<float> numbers;
  for (const std::string_view part : parts(text, ',')) {
    const auto number = parse_number(part);
    if (number && fits_f32(*number)) numbers.push_back(static_cast<float>(*number));
  }
  if (numbers.size() != data.mean.size())
    throw FileError(fmt::format("{}: its {} is not that of {} channels", checkpoint, key, data.mean.size()));
  return numbers;
}

int evaluate(const EvalSettings& s) {
  check_outputs({{"--json", s.json}}, {{"--checkpoint", s.checkpoint}});
  const Metadata model = read_model_metadata(s.checkpoint);
  const auto as_trained = [&](const std::string& given, const char* key) {
    return given.empty() ? text_at(model, key) : given;
  };
  const Net& net = net_of(s.checkpoint, model);
  const std::string name(net.name), precision = as_trained(s.precision, "precision");
  const auto data = std::make_shared<Dataset>(load_dataset(as_trained(s.data, "data"), Split::test, s.data_dir));
  data->mean = per_channel(s.checkpoint, model, "mean", *data);
  data->stddev = per_channel(s.checkpoint, model, "stddev", *data);
  const Loader loader(data, {.batch = std::min(s.batch, data->size())});

  Graph graph;
  const Inputs in = inputs(graph, loader);
  const Value logits = net.build(in.images, classes_of(s.checkpoint, model));
  const Value loss = cross_entropy(logits, in.labels), hits = accuracy(logits, in.labels);
  Trainer trainer(loss, {.device = s.device.open(), .precision = precision_by_name(precision)});
  load_model(std::filesystem::path(s.checkpoint) / "model.safetensors", trainer.parameters(),
             {.weights = s.raw ? ModelWeights::raw : ModelWeights::best});
  const char* weights = text_at(model, "weights") == "averaged" && !s.raw ? "averaged" : "raw";
  const Score test = score(trainer, loader, hits);
  const double mean_loss = trainer.evaluate(loader, loss);

  fmt::print("{} on {} in {}, {} weights: test error {:.2f} %, loss {:.4f}, {} images\n", name, name_for_people(*data),
             precision, weights, 100 * test.error(), mean_loss, data->size());
  write_json(s.json, {{"net", name},
                      {"data", data->name},
                      {"synthetic", data->synthetic},
                      {"device", trainer.options().device.backend().name()},
                      {"precision", precision},
                      {"weights", weights},
                      {"images", data->size()},
                      {"test_loss", mean_loss},
                      {"test_accuracy", test.accuracy()},
                      {"test_error", test.error()}});
  return 0;
}

}  // namespace

void add_eval(CLI::App& app, Command& command) {
  CLI::App* sub = app.add_subcommand("eval", "evaluates a checkpoint on a test set");
  auto s = std::make_shared<EvalSettings>();
  sub->add_option("--checkpoint", s->checkpoint, "folder that `halftone train --out` wrote")->required();
  sub->add_option("--data", s->data, listed(dataset_names(), " or ") + " [as trained]");
  sub->add_option("--data-dir", s->data_dir, "the only folder searched for the data");
  sub->add_option("--precision", s->precision, "the number system [as trained]");
  sub->add_flag("--raw", s->raw, "the weights themselves where the checkpoint has an average (train --ema)");
  sub->add_option("--batch", s->batch, "images at a time")->check(within(1, 1e9))->capture_default_str();
  sub->add_option("--json", s->json, "JSON file with the results");
  s->device.add_to(*sub);
  sub->callback([s, &command] { command = [s] { return evaluate(*s); }; });
}

}  // namespace halftone::cli
