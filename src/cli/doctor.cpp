#include "halftone/inspect/doctor.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <halftone/version.hpp>

#include "cli/commands.hpp"
#include "cli/doctor_report.hpp"
#include "cli/train.hpp"
#include "halftone/io/atomic_file.hpp"
#include "halftone/nn/models.hpp"
#include "halftone/tensor/error.hpp"

namespace halftone::cli {
namespace {

struct DoctorSettings {
  TrainSettings train;
  std::vector<std::string> precisions;
  std::string html;
  int steps = 300;
  bool rehearse = true;
};

Json to_json(const WatchedTensor& tensor, const std::string& suggested) {
  Json json = {{"node", tensor.node}, {"role", tensor.role}, {"suggested", suggested}};
  json.update(cli::to_json(tensor.exponents));
  if (std::string_view(tensor.role) == "update") json["lost"] = {{"bf16", tensor.lost_bf16}, {"f16", tensor.lost_f16}};
  return json;
}

/// Null where there is no number.
Json finite(double x) { return std::isfinite(x) ? Json(x) : Json(); }

Json to_json(const Prognosis& p) {
  const Fidelity& f = p.fidelity;
  Json json = {{"precision", p.precision.name},
               {"loss_scale", p.loss_scale},
               {"verdict", name_of(p.verdict)},
               {"reason", p.reason},
               {"advice", p.advice},
               {"gradients", {{"arrives", f.arrives}, {"systematic", f.systematic}, {"random", f.random}}},
               {"updates_retained", f.retained},
               {"nonfinite_steps", f.nonfinite}};
  json["rehearsal"] = Json();
  if (p.rehearsal)
    json["rehearsal"] = {{"loss", finite(p.rehearsal->loss)}, {"progress", finite(p.rehearsal->progress)}};
  return json;
}

Json to_json(const Diagnosis& found, const DoctorSettings& settings, const Setting& setting) {
  Json json = {{"version", halftone::version},
               {"net", settings.train.recipe.net},
               {"data", name_for_people(setting.loader.dataset())},
               {"data_option", settings.train.recipe.data},
               {"synthetic", setting.loader.dataset().synthetic},
               {"left_out", setting.loader.dataset().left_out.size()},
               {"device", setting.options.device.backend().name()},
               {"hardware", setting.options.device.backend().description()},
               {"steps", settings.steps},
               {"batch", setting.loader.batch()},
               {"learning_rate", learning_rate_of(settings.train.recipe)},
               {"stress", settings.train.stress},
               {"seed", settings.train.seed},
               {"loss_scale", {{"lowest", found.loss_scale.lowest}, {"highest", found.loss_scale.highest}}},
               {"systems", Json::array()},
               {"nodes", Json::array()},
               {"suggested", {{"options", found.suggestion.options}, {"code", found.suggestion.code}}},
               {"loss", found.losses},
               {"watching", {{"step_seconds", found.step_seconds}, {"watch_seconds", found.watch_seconds}}}};
  for (const Prognosis& p : found.systems) json["systems"].push_back(to_json(p));
  for (std::size_t i = 0; i < found.tensors.size(); ++i)
    json["nodes"].push_back(to_json(found.tensors[i], found.suggested[i]));
  return json;
}

void print(const Json& json) {
  const auto& scale = json["loss_scale"];
  fmt::print("{:24} {:10} {:8} {}\n", "precision", "loss scale", "verdict", "why");
  for (const Json& s : json["systems"])
    fmt::print("{:24} {:10} {:8} {}\n", s["precision"].get<std::string>(), s["loss_scale"].get<std::string>(),
               s["verdict"].get<std::string>(), s["reason"].get<std::string>());
  fmt::print("\nloss scales that are safe for f16: {} to {}\nsuggested: {}\n{}", scale["lowest"].get<double>(),
             scale["highest"].get<double>(), json["suggested"]["options"].get<std::string>(),
             json["suggested"]["code"].get<std::string>());
}

void check(const DoctorSettings& s) {
  const TrainSettings& t = s.train;
  if (!t.loss_scale.empty() && !s.precisions.empty() && t.recipe.precision == "f32")
    fail("--loss-scale goes with --precision; the systems of --precisions have their own");
  if (t.accumulate > 1) fail("--accumulate: the doctor looks at steps of one batch");
  check_outputs({{"--json", t.json}, {"--html", s.html}}, {{"--init-from", t.init_from}},
                files_read(t.recipe.net, t.recipe.data));
}

/// The usual ones or --precisions, and what --precision, --keep and --loss-scale ask for.
std::vector<Precision> systems_of(const DoctorSettings& settings, const Precision& own) {
  std::vector<Precision> systems;
  for (const std::string& name : settings.precisions) {
    systems.push_back(precision_by_name(name));
    systems.back().name = name;
  }
  if (systems.empty()) systems = usual_systems();
  const auto is_own = [&](const Precision& p) {
    return p.name == own.name && p.loss_scale.mode == own.loss_scale.mode && settings.train.loss_scale.empty();
  };
  if ((own.name != "f32" || !settings.train.loss_scale.empty()) && std::none_of(systems.begin(), systems.end(), is_own))
    systems.push_back(own);
  return systems;
}

int doctor(const DoctorSettings& settings) {
  check(settings);
  const double batches = static_cast<double>(settings.steps) / static_cast<double>(settings.train.recipe.epochs);
  Setting setting(settings.train, training_loader(settings.train), batches);
  DoctorOptions options{.trainer = setting.options,
                        .steps = settings.steps,
                        .systems = {},
                        .rehearse = settings.rehearse,
                        .progress = {}};
  options.systems = systems_of(settings, setting.precision);
  const bool terminal = ::isatty(STDOUT_FILENO) != 0;
  options.progress = [&](const std::string& what, double share) {
    if (terminal) fmt::print("\r{:3.0f} %  {:60}", 100 * share, what);
    if (terminal && share == 1) fmt::print("\r{:70}\r", "");
    std::fflush(stdout);
  };
  const Json json = to_json(diagnose(setting.loss, setting.loader, options), settings, setting);
  print(json);
  write_json(settings.train.json, json);
  if (!settings.html.empty()) {
    write_file(settings.html, doctor_page(json));
    fmt::print("report: {}\n", settings.html);
  }
  return 0;
}

}  // namespace

void add_doctor(CLI::App& app, Command& command) {
  CLI::App* sub = app.add_subcommand("doctor", "watches some steps in f32 and says which number systems will do");
  auto settings = std::make_shared<DoctorSettings>();
  settings->train.add_shared(*sub);
  settings->train.add_system(*sub);
  sub->add_option("--json", settings->train.json, "JSON file with the results");
  sub->add_option("--steps", settings->steps, "in f32")->check(whole(40, 1e6))->capture_default_str();
  sub->add_option("--precisions", settings->precisions, "number systems, with commas between them [the usual ones]")
      ->delimiter(',');
  sub->add_flag("--rehearse,!--no-rehearse", settings->rehearse, "lets doubtful number systems train the same steps");
  sub->add_option("--html", settings->html, "HTML file with histograms and verdicts");
  sub->callback([settings, &command] {
    for (const std::string& what : settings->train.keep) settings->train.recipe.precision += "+" + what;
    command = [settings] { return doctor(*settings); };
  });
}

}  // namespace halftone::cli
