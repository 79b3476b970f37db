#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <halftone/version.hpp>
#include <iterator>

#include "cli/commands.hpp"
#include "cli/complain.hpp"
#include "cli/interrupt.hpp"
#include "cli/study_report.hpp"
#include "cli/train.hpp"
#include "halftone/inspect/watcher.hpp"
#include "halftone/io/atomic_file.hpp"
#include "halftone/tensor/error.hpp"
#include "halftone/train/verdict.hpp"

namespace halftone::cli {
namespace fs = std::filesystem;

namespace {

struct StudySettings {
  TrainSettings train;
  std::vector<std::string> precisions;
  int seeds = 3;
};

std::string content_of(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

/// Steps in at most 60 stretches: the last step of each, the mean of its finite losses and the scale at its end.
Json curve_of(const std::vector<StepReport>& steps) {
  constexpr std::size_t most = 60;
  const std::size_t each = std::max<std::size_t>((steps.size() + most - 1) / most, 1);
  Json curve = {{"step", Json::array()}, {"loss", Json::array()}, {"scale", Json::array()}};
  for (std::size_t first = 0; first < steps.size(); first += each) {
    const std::size_t end = std::min(first + each, steps.size());
    double sum = 0;
    int finite = 0;
    for (std::size_t i = first; i < end; ++i)
      if (std::isfinite(steps[i].loss)) sum += steps[i].loss, ++finite;
    curve["step"].push_back(end);
    curve["loss"].push_back(finite ? Json(sum / finite) : Json());
    curve["scale"].push_back(steps[end - 1].scale);
  }
  return curve;
}

/// The same training in several number systems, some seeds each. What a finished run has shown lies in a file of its
/// own before its row stands in runs.csv, so that a study goes on where it was stopped.
class Study {
 public:
  explicit Study(const StudySettings& settings) : settings_(settings), folder_(settings.train.out) {
    for (const std::string& precision : settings.precisions) {
      precision_by_name(precision);
      if (std::count(settings.precisions.begin(), settings.precisions.end(), precision) > 1)
        fail(fmt::format("--precisions: {} stands there twice", precision));
    }
    make_folder(folder_ / "runs");
    naming("--out " + settings.train.out, [&] { lock_.emplace(folder_); });
    check_settings();
  }

  int operator()() {
    const std::size_t all = settings_.precisions.size() * static_cast<std::size_t>(settings_.seeds);
    std::size_t done = 0, own = 0;
    const auto began = std::chrono::steady_clock::now();
    for (int i = 0; i < settings_.seeds; ++i) {  // seed by seed: whoever stops early has all systems
      for (const std::string& precision : settings_.precisions) {
        const std::uint64_t seed = settings_.train.seed + static_cast<std::uint64_t>(i);
        const bool known = fs::exists(file_of(precision, seed));
        if (!known && !train_one(precision, seed))
          return complain(interrupted_status,
                          fmt::format("interrupted after {} of {} runs; the same command goes on", done, all));
        note(precision, seed);
        ++done;
        if (known) continue;
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
        const double left = seconds / static_cast<double>(++own) * static_cast<double>(all - done);
        const Json run = run_of(precision, seed);
        fmt::print("{}, seed {}: test error {:.2f} %, {:.1f} s; {} of {} runs{}\n", precision, seed,
                   100 * error_of(run), run["seconds"].get<double>(), done, all,
                   done < all ? fmt::format(", about {:.0f} s left", left) : "");
        std::fflush(stdout);
      }
    }
    Json study = result();
    study["exponents"] = exponents();
    write_json((folder_ / "study.json").string(), study);
    write_file(folder_ / "report.html", study_page(study));
    fmt::print("\n{:22} {:>14} {:>10} {:>15} {:>9} {:>14}\n", "precision", "test error %", "images/s", "activations MB",
               "peak MB", "skipped steps");
    for (const Json& system : study["systems"]) {
      const Json& memory = system["memory"];
      fmt::print("{:22} {:>14} {:>10.0f} {:>15.2f} {:>9.2f} {:>14.4g}\n", system["precision"].get<std::string>(),
                 error_text(system), system["images_per_second"].get<double>(),
                 memory["activations"].get<double>() / 1e6, memory["peak"].get<double>() / 1e6,
                 system["numerics"]["skipped_steps"].get<double>());
    }
    fmt::print("\n");
    for (const Json& system : study["systems"])
      fmt::print("{:22} {:9} {}\n", system["precision"].get<std::string>(), system["verdict"].get<std::string>(),
                 system["reason"].get<std::string>());
    fmt::print("report: {}\n", (folder_ / "report.html").string());
    return 0;
  }

 private:
  /// A study in a folder is one study: what it was begun with holds.
  void check_settings() {
    Json own = Json::object();
    for (const auto& [name, value] : facts_of(settings_.train)) own[name] = value;
    const fs::path file = folder_ / "settings.json";
    if (!fs::exists(file)) return write_json(file.string(), own);
    const Json other = read(file);
    for (const auto& [name, value] : own.items())
      if (other.value(name, Json()) != value)
        fail(fmt::format("{} {}: the study in {} has {}; another --out begins a new one", name,
                         value.get<std::string>(), folder_.string(), other.value(name, std::string("none"))));
  }

  static Json read(const fs::path& file) {
    Json json = Json::parse(content_of(file), nullptr, false);
    if (!json.is_object()) throw FileError(file.string() + ": damaged; without it the study does that part again");
    return json;
  }

  fs::path file_of(const std::string& precision, std::uint64_t seed) const {
    std::string name = precision;
    std::replace_if(
        name.begin(), name.end(), [](char c) { return c == ':' || c == '/'; }, '_');
    return folder_ / "runs" / fmt::format("{}-{}.json", name, seed);
  }
  Json run_of(const std::string& precision, std::uint64_t seed) const { return read(file_of(precision, seed)); }

  /// Where a run has no finite weights left its last error counts; without any, guessing's.
  static double error_of(const Json& run) {
    const Json& error = run["final"]["test_error"];
    return error.is_number() ? error.get<double>() : 1 - 1 / run["classes"].get<double>();
  }

  /// False where it was interrupted.
  bool train_one(const std::string& precision, std::uint64_t seed) const {
    TrainSettings one = settings_.train;
    one.recipe.precision = precision;
    one.seed = seed;
    one.out.clear();
    const auto began = std::chrono::steady_clock::now();
    TrainResult result = train_quietly(one);
    if (!result.finished) return false;
    result.report["curve"] = curve_of(result.steps);
    result.report["seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    write_json(file_of(precision, seed).string(), result.report);
    return true;
  }

  /// Adds a run's row to runs.csv, which is only ever appended to, unless it is there.
  void note(const std::string& precision, std::uint64_t seed) const {
    const fs::path file = folder_ / "runs.csv";
    const std::string key = fmt::format("{},{},", precision, seed), text = content_of(file);
    if (text.find('\n' + key) != std::string::npos) return;
    const Json run = run_of(precision, seed);
    std::string rows = text.empty()           ? "precision,seed,test_error,train_loss,seconds\n"
                       : text.ends_with('\n') ? ""
                                              : "\n";
    const Json& loss = run["final"]["train_loss"];
    rows += fmt::format("{}{},{},{:.2f}\n", key, error_of(run),
                        loss.is_number() ? fmt::format("{}", loss.get<double>()) : "", run["seconds"].get<double>());
    std::ofstream stream(file, std::ios::binary | std::ios::app);
    if (!(stream << rows << std::flush)) throw FileError(file.string() + ": cannot be written");
  }

  /// What a few steps in f32 see, by role, before anything is rounded; kept as the runs are.
  Json exponents() const {
    const fs::path file = folder_ / "exponents.json";
    if (fs::exists(file)) return read(file);
    TrainSettings one = settings_.train;
    one.out.clear();
    one.recipe.precision = "f32";
    Loader loader = training_loader(one);
    const auto batches = static_cast<double>(loader.batches());
    Setting setting(one, std::move(loader), batches);
    setting.options.keep_values = true;
    Trainer trainer(setting.loss, setting.options);
    Watcher watcher(trainer);
    constexpr int steps = 24, each = 8;
    Epoch epoch = setting.loader.epoch(0);
    for (int step = 1; step <= steps; ++step) {
      const Batch* batch = epoch.next();
      if (!batch) break;
      const bool looks = step == 1 || step % each == 0;
      if (looks) watcher.begin();
      trainer.step(*batch);
      if (looks) watcher.look();
    }
    std::map<std::string, ExponentHistogram> roles;
    for (const WatchedTensor& tensor : watcher.tensors()) roles[tensor.role].add(tensor.exponents);
    Json json = Json::object();
    for (const auto& [role, seen] : roles) json[role] = to_json(seen);
    write_json(file.string(), json);
    return json;
  }

  std::string reference() const {
    const auto& all = settings_.precisions;
    return std::find(all.begin(), all.end(), "f32") != all.end() ? "f32" : all.front();
  }

  std::vector<double> errors_of(const std::string& precision) const {
    std::vector<double> errors;
    for (int i = 0; i < settings_.seeds; ++i)
      errors.push_back(error_of(run_of(precision, settings_.train.seed + static_cast<std::uint64_t>(i))));
    return errors;
  }

  Json result() const {
    const Json first = run_of(settings_.precisions.front(), settings_.train.seed);
    Json study = {{"version", halftone::version},
                  {"net", first["net"]},
                  {"data", first["data"]},
                  {"synthetic", first["synthetic"]},
                  {"device", first["device"]},
                  {"hardware", first["hardware"]},
                  {"epochs", settings_.train.recipe.epochs},
                  {"seeds", Json::array()},
                  {"reference", reference()},
                  {"systems", Json::array()}};
    for (int i = 0; i < settings_.seeds; ++i)
      study["seeds"].push_back(settings_.train.seed + static_cast<std::uint64_t>(i));
    const std::vector<double> held_against = errors_of(reference());
    for (const std::string& precision : settings_.precisions) {
      const std::vector<double> errors = errors_of(precision);
      const Comparison found = compare(errors, held_against, 1 - 1 / first["classes"].get<double>());
      const bool is_reference = precision == reference();
      Json system = {{"precision", precision},
                     {"test_error", errors},
                     {"mean", found.mean},
                     {"deviation", found.deviation},
                     {"train_loss", Json::array()},
                     {"images_per_second", 0.0},
                     {"memory", Json()},
                     {"numerics", Json::object()},
                     {"verdict", is_reference ? "reference" : name_of(found.verdict)},
                     {"reason", is_reference ? "what the others are held against" : found.reason},
                     {"curves", Json::array()}};
      double rate = 0;
      for (const Json& seed : study["seeds"]) {
        const Json run = run_of(precision, seed);
        system["train_loss"].push_back(run["final"]["train_loss"]);
        for (const Json& epoch : run["epochs"]) rate = std::max(rate, epoch["images_per_second"].get<double>());
        system["memory"] = run["memory"];
        for (const auto& [key, value] : run["numerics"].items())
          if (value.is_number())
            system["numerics"][key] = system["numerics"].value(key, 0.0) + value.get<double>() / settings_.seeds;
        system["curves"].push_back(run["curve"]);
      }
      system["images_per_second"] = rate;
      study["systems"].push_back(std::move(system));
    }
    return study;
  }

  const StudySettings& settings_;
  fs::path folder_;
  std::optional<FolderLock> lock_;
};

int study(const StudySettings& settings) {
  if (settings.train.out.empty()) fail("--out is missing: the folder that the study lies in");
  const TrainSettings& t = settings.train;
  if (!t.resume.empty() || !t.trace.empty() || !t.json.empty() || t.keep_best || t.convert || !t.capsule.empty())
    fail(
        "--resume, --convert, --trace, --json, --capsule and --keep-best are train's; a study writes its own files "
        "into --out");
  if (!t.keep.empty() || t.range_steps)
    fail("--keep and --range-steps are train's; a study's number systems name what they keep: f16+weights=f32");
  check_output_folder("--out", settings.train.out);
  return Study(settings)();
}

}  // namespace

void add_study(CLI::App& app, Command& command) {
  CLI::App* sub =
      app.add_subcommand("study", "trains one net in several number systems and says which of them will do");
  auto settings = std::make_shared<StudySettings>();
  settings->train.add_to(*sub);
  sub->add_option("--precisions", settings->precisions,
                  "number systems, with commas between them; f32 is what the others are held against")
      ->delimiter(',')
      ->required();
  sub->add_option("--seeds", settings->seeds, "runs of each, from --seed on")
      ->check(within(1, 1000))
      ->capture_default_str();
  sub->callback([settings, &command] { command = [settings] { return study(*settings); }; });
}

}  // namespace halftone::cli
