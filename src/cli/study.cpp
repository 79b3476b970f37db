#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <halftone/version.hpp>
#include <map>
#include <numeric>
#include <span>

#include "cli/commands.hpp"
#include "cli/complain.hpp"
#include "cli/study_report.hpp"
#include "cli/train.hpp"
#include "halftone/inspect/watcher.hpp"
#include "halftone/io/atomic_file.hpp"
#include "halftone/io/regular_file.hpp"
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

std::string content_of(const fs::path& path) {
  RegularFile file(path);
  std::string content(file.size(), '\0');
  content.resize(file.read(std::as_writable_bytes(std::span(content))));
  return content;
}

/// Whether `json` has what `like` has, of the same kinds: a null stands for a number or none, the first member of a
/// list for all of them.
bool fits(const Json& json, const Json& like) {
  if (like.is_null()) return json.is_null() || json.is_number();
  if (like.is_number()) return json.is_number();
  if (json.type() != like.type()) return false;
  if (like.is_array() && !like.empty())
    return std::ranges::all_of(json, [&](const Json& member) { return fits(member, like[0]); });
  return !like.is_object() || std::ranges::all_of(like.items(), [&](const auto& member) {
    return json.contains(member.key()) && fits(json[member.key()], member.value());
  });
}

/// What is asked of the file of a run.
Json like_a_run() {
  const Json numbers = Json::array({0}), losses = Json::array({nullptr});
  return {{"net", ""},
          {"data", ""},
          {"synthetic", false},
          {"device", ""},
          {"hardware", ""},
          {"classes", 0},
          {"seconds", 0},
          {"epochs", Json::array({{{"images_per_second", 0}}})},
          {"final", final_results({})},
          {"memory", to_json(MemoryReport())},
          {"numerics", to_json(NumericsReport())},
          {"curve", {{"step", numbers}, {"loss", losses}, {"scale", numbers}}},
          {"facts", Json::object()}};
}

/// Throws FileError naming a file that is none of a run.
Json read_run(const fs::path& file) {
  const Json run = Json::parse(content_of(file), nullptr, false);
  const auto steps = [&](const char* key) { return run["curve"][key].size(); };
  if (!fits(run, like_a_run()) || steps("loss") != steps("step") || steps("scale") != steps("step"))
    throw FileError(file.string() + ": damaged; without it the study does that run again");
  return run;
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
      const bool first = facts_.emplace(precision, Json::object()).second;
      if (!first) fail(fmt::format("--precisions: {} stands there twice", precision));
      for (const auto& [name, value] : facts_of(run_settings(precision, settings.train.seed)))
        facts_[precision][name] = value;
    }
    make_folder(folder_ / "runs");
    naming("--out " + settings.train.out, [&] { lock_.emplace(folder_); });
    check_runs();
    cut_torn_row();
  }

  int operator()(const Interrupt& interrupt) {
    const std::size_t all = settings_.precisions.size() * static_cast<std::size_t>(settings_.seeds);
    std::size_t done = 0, own = 0;
    const auto began = std::chrono::steady_clock::now();
    for (const std::uint64_t seed : seeds()) {  // seed by seed: whoever stops early has all systems
      for (const std::string& precision : settings_.precisions) {
        const bool known = fs::exists(file_of(precision, seed));
        if (!known && (interrupt.raised() || !train_one(precision, seed, interrupt)))
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
    print(study);
    fmt::print("report: {}\n", (folder_ / "report.html").string());
    return 0;
  }

 private:
  TrainSettings run_settings(const std::string& precision, std::uint64_t seed) const {
    TrainSettings one = settings_.train;
    one.recipe.precision = precision;
    one.seed = seed;
    one.out.clear();
    return one;
  }

  std::vector<std::uint64_t> seeds() const {
    std::vector<std::uint64_t> seeds(static_cast<std::size_t>(settings_.seeds));
    std::iota(seeds.begin(), seeds.end(), settings_.train.seed);
    return seeds;
  }

  /// Throws Error where a run does not follow from `facts`.
  void check_facts(const Json& run, const Json& facts) const {
    for (const auto& [name, value] : facts.items())
      if (const Json found = run["facts"].value(name, Json()); found != value)
        fail(fmt::format("{} {}: the study in {} has {}; another --out begins a new one", name,
                         value.get<std::string>(), folder_.string(),
                         found.is_string() ? found.get<std::string>() : "none"));
  }

  /// What all runs have in common.
  Json shared_facts() const {
    Json shared = facts_.begin()->second;
    for (const char* own : {"precision", "storage", "loss-scale", "seed"}) shared.erase(own);
    return shared;
  }

  /// A folder holds one study, whichever systems and seeds this one asks for: all else is the same in all runs.
  void check_runs() const {
    for (const auto& entry : fs::directory_iterator(folder_ / "runs"))
      if (entry.path().extension() == ".json") check_facts(read_run(entry.path()), shared_facts());
  }

  fs::path file_of(const std::string& precision, std::uint64_t seed) const {
    std::string name = precision;
    std::replace_if(
        name.begin(), name.end(), [](char c) { return c == ':' || c == '/'; }, '_');
    return folder_ / "runs" / fmt::format("{}-{}.json", name, seed);
  }

  Json run_of(const std::string& precision, std::uint64_t seed) const {
    const Json run = read_run(file_of(precision, seed));
    Json facts = facts_.at(precision);
    facts["seed"] = std::to_string(seed);
    check_facts(run, facts);
    return run;
  }

  /// Where a run has no finite weights left its last error counts; without any, guessing's.
  static double error_of(const Json& run) {
    const Json& error = run["final"]["test_error"];
    return error.is_number() ? error.get<double>() : chance_of(run);
  }
  static double chance_of(const Json& run) { return 1 - 1 / std::max(run["classes"].get<double>(), 1.0); }

  /// False where it was interrupted.
  bool train_one(const std::string& precision, std::uint64_t seed, const Interrupt& interrupt) const {
    const auto began = std::chrono::steady_clock::now();
    TrainResult result = train_quietly(run_settings(precision, seed), interrupt);
    if (!result.finished) return false;
    result.report["curve"] = curve_of(result.steps);
    result.report["seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    for (const auto& [name, value] : result.facts) result.report["facts"][name] = value;
    write_json(file_of(precision, seed).string(), result.report);
    return true;
  }

  /// Takes what a crash left of a row off runs.csv, which is otherwise only ever appended to.
  void cut_torn_row() const {
    const fs::path file = folder_ / "runs.csv";
    if (!fs::exists(file)) return;
    const std::string text = content_of(file);
    if (const std::size_t whole = text.rfind('\n') + 1; whole < text.size()) fs::resize_file(file, whole);
  }

  /// Adds a run's row to runs.csv unless it is there.
  void note(const std::string& precision, std::uint64_t seed) const {
    const fs::path file = folder_ / "runs.csv";
    const Json run = run_of(precision, seed);
    const Json& loss = run["final"]["train_loss"];
    const std::string row =
        fmt::format("{},{},{},{},{:.2f}\n", precision, seed, error_of(run),
                    loss.is_number() ? fmt::format("{}", loss.get<double>()) : "", run["seconds"].get<double>());
    const std::string text = fs::exists(file) ? content_of(file) : "";
    if (text.find('\n' + row) != std::string::npos) return;
    std::ofstream stream(file, std::ios::binary | std::ios::app);
    if (text.empty()) stream << "precision,seed,test_error,train_loss,seconds\n";
    if (!(stream << row << std::flush)) throw FileError(file.string() + ": cannot be written");
  }

  /// What a few steps in f32 see, by role, before anything is rounded; kept as the runs are.
  Json exponents() const {
    const fs::path file = folder_ / "exponents.json";
    if (fs::exists(file))
      if (const Json kept = Json::parse(content_of(file), nullptr, false);
          kept.is_object() && kept.value("facts", Json()) == shared_facts())
        return kept["roles"];
    const TrainSettings one = run_settings("f32", settings_.train.seed);
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
    Json json = {{"facts", shared_facts()}, {"roles", Json::object()}};
    for (const auto& [role, seen] : roles) json["roles"][role] = to_json(seen);
    write_json(file.string(), json);
    return json["roles"];
  }

  std::string reference() const {
    const auto& all = settings_.precisions;
    return std::find(all.begin(), all.end(), "f32") != all.end() ? "f32" : all.front();
  }

  std::vector<double> errors_of(const std::string& precision) const {
    std::vector<double> errors;
    for (const std::uint64_t seed : seeds()) errors.push_back(error_of(run_of(precision, seed)));
    return errors;
  }

  Json result() const {
    const Json first = run_of(settings_.precisions.front(), settings_.train.seed);
    Json study = {{"version", halftone::version}};
    for (const char* same : {"net", "data", "synthetic", "device", "hardware"}) study[same] = first[same];
    study["epochs"] = settings_.train.recipe.epochs;
    study["seeds"] = seeds();
    study["reference"] = reference();
    const std::vector<double> held_against = errors_of(reference());
    for (const std::string& precision : settings_.precisions)
      study["systems"].push_back(system(precision, compare(errors_of(precision), held_against, chance_of(first))));
    return study;
  }

  /// What all seeds of a number system come to.
  Json system(const std::string& precision, const Comparison& found) const {
    const bool is_reference = precision == reference();
    Json system = {{"precision", precision},
                   {"test_error", errors_of(precision)},
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
    for (const std::uint64_t seed : seeds()) {
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
    return system;
  }

  void print(const Json& study) const {
    std::size_t longest = 22;
    for (const std::string& precision : settings_.precisions) longest = std::max(longest, precision.size());
    fmt::print("\n{:{}} {:>14} {:>10} {:>15} {:>9} {:>14}\n", "precision", longest, "test error %", "images/s",
               "activations MB", "peak MB", "skipped steps");
    for (const Json& system : study["systems"]) {
      const Json& memory = system["memory"];
      fmt::print("{:{}} {:>14} {:>10.0f} {:>15.2f} {:>9.2f} {:>14.4g}\n", system["precision"].get<std::string>(),
                 longest, error_text(system), system["images_per_second"].get<double>(),
                 memory["activations"].get<double>() / 1e6, memory["peak"].get<double>() / 1e6,
                 system["numerics"]["skipped_steps"].get<double>());
    }
    fmt::print("\n");
    for (const Json& system : study["systems"])
      fmt::print("{:{}} {:9} {}\n", system["precision"].get<std::string>(), longest,
                 system["verdict"].get<std::string>(), system["reason"].get<std::string>());
  }

  const StudySettings& settings_;
  fs::path folder_;
  std::map<std::string, Json> facts_;  // of each number system's runs, by what --precisions calls it
  std::optional<FolderLock> lock_;
};

int study(const StudySettings& settings) {
  if (settings.train.out.empty()) fail("--out is missing: the folder that the study lies in");
  check_output_folder("--out", settings.train.out);
  Study study(settings);
  const Interrupt interrupt;
  return study(interrupt);
}

}  // namespace

void add_study(CLI::App& app, Command& command) {
  CLI::App* sub =
      app.add_subcommand("study", "trains one net in several number systems and says which of them will do");
  auto settings = std::make_shared<StudySettings>();
  settings->train.add_shared(*sub);
  sub->add_option("--out", settings->train.out, "folder of the study; the same command goes on in it");
  sub->add_option("--precisions", settings->precisions,
                  "number systems, with commas between them; f32 is what the others are held against")
      ->delimiter(',')
      ->required();
  sub->add_option("--seeds", settings->seeds, "runs of each, from --seed on")
      ->check(whole(1, 1000))
      ->capture_default_str();
  sub->callback([settings, &command] { command = [settings] { return study(*settings); }; });
}

}  // namespace halftone::cli
