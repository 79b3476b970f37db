#include "cli/train.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/best_model.hpp"
#include "cli/complain.hpp"
#include "cli/patience.hpp"
#include "cli/report.hpp"
#include "cli/trace.hpp"
#include "halftone/inspect/capsule.hpp"
#include "halftone/io/atomic_file.hpp"
#include "halftone/io/event_file.hpp"
#include "halftone/io/regular_file.hpp"
#include "halftone/io/safetensors.hpp"
#include "halftone/ops/loss.hpp"
#include "halftone/tensor/text.hpp"
#include "halftone/train/inputs.hpp"
#include "halftone/train/onnx.hpp"
#include "halftone/train/predictor.hpp"
#include "halftone/train/whiten.hpp"

namespace halftone::cli {
namespace fs = std::filesystem;

namespace {

fs::path best_folder(const TrainSettings& s) { return s.keep_best ? fs::path(s.out) / "best" : fs::path(); }

/// What is written must lie apart, and over nothing that is read.
void check_places(const TrainSettings& s) {
  std::error_code ignored;
  const fs::path capsule = s.capsule, from = s.init_from;
  const fs::path source = fs::is_regular_file(from, ignored) ? from.parent_path() : from;
  std::vector<Output> checkpoints = {
      {"--init-from", source}, {"--out", s.out}, {"--out", best_folder(s)}, {"--resume", s.resume}};
  for (const auto& [option, folder] : checkpoints) {
    if (folder.empty()) continue;
    if (!s.out.empty() && option == "--init-from" && place_of(s.out) == place_of(folder))
      fail(fmt::format("--out {}: that is taken by {}", s.out, option));
    if (!s.capsule.empty() && place_of(capsule) == place_of(folder))
      fail(fmt::format("--capsule {}: that is taken by {}", s.capsule, option));
  }
  const auto holds = [&](const char* file) { return fs::exists(capsule / file, ignored); };
  if (!s.capsule.empty() && (holds("model.safetensors") || holds("state.safetensors")) && !holds("capsule.safetensors"))
    fail(fmt::format("--capsule {}: a checkpoint lies there", s.capsule));
  checkpoints.push_back({"--capsule", s.capsule});
  check_outputs({{"--json", s.json}, {"--trace", s.trace}}, checkpoints, files_read(s.recipe.net, s.recipe.data));
}

void check(const TrainSettings& s) {
  if (s.recipe.net.empty()) fail("--net is missing; `halftone info` lists the nets");
  if (s.recipe.data.empty()) fail("--data is missing: " + data_spellings());
  s.net();
  if (s.recipe.reflect && s.recipe.crop == 0)
    fail("--reflect: it says what --crop pads with, and there is no --crop (--no-reflect drops a recipe's)");
  if (s.recipe.alternate && !s.recipe.flip)
    fail("--alternate: it says when --flip mirrors an image, and there is no --flip (--no-alternate drops a recipe's)");
  if (s.new_head && s.init_from.empty() && !s.recipe.net.ends_with(".onnx"))
    fail("--new-head: --init-from must say where all the other layers begin");
  if (!s.init_from.empty() && !s.resume.empty()) fail("--init-from: --resume brings all numbers");
  if (!s.init_from.empty() && precision_by_name(s.recipe.precision).binarizes)
    fail(fmt::format("--init-from: {} draws its own weights", s.recipe.precision));
  if (!s.tensorboard.empty()) check_output_folder("--tensorboard", s.tensorboard);
  if (s.convert && s.resume.empty()) fail("--convert: --resume must say what to continue from");
  if (!s.out.empty()) check_output_folder("--out", s.out);
  if (!s.capsule.empty()) check_output_folder("--capsule", s.capsule);
  if (!s.capsule.empty() && s.accumulate > 1)
    fail("--capsule: a step of several batches has no capsule (--accumulate 1)");
  if (s.keep_best && s.out.empty()) fail("--keep-best: --out must say where");
  check_places(s);
}

Precision precision_of(const TrainSettings& s) {
  Precision precision = precision_by_name(s.recipe.precision);
  if (!s.loss_scale.empty()) precision.loss_scale = parse_loss_scale(s.loss_scale);
  if (s.notice) precision = precision.noticing();
  if (s.range_steps && precision.range_steps == 0)
    fail(fmt::format("--range-steps: precision {} finds no ranges", precision.name));
  precision.range_steps = s.range_steps.value_or(precision.range_steps);
  return precision;
}

Loader test_loader(const TrainSettings& s) {
  auto data = s.load(Split::test);
  const std::int64_t batch = std::min(s.recipe.batch, data->size());
  return Loader(std::move(data), {.batch = batch, .workers = s.workers});
}

/// `batches`: in an epoch.
TrainerOptions trainer_options(const TrainSettings& s, const Precision& precision, double batches) {
  if (s.accumulate > static_cast<double>(s.recipe.epochs) * batches)
    fail(fmt::format("--accumulate {}: the run has {} batches in all", s.accumulate,
                     static_cast<double>(s.recipe.epochs) * batches));
  return {.device = s.device.open(),
          .precision = precision,
          .optimizer = update_rule_of(s.recipe),
          .schedule = schedule_of(s.recipe, batches / s.accumulate),
          .groups = groups_of(s.recipe, batches / s.accumulate),
          .frozen = frozen_of(s.recipe),
          .clip_norm = s.clip_norm,
          .accumulate = s.accumulate,
          .average_decay = s.recipe.average_decay,
          .lookahead = s.recipe.lookahead,
          .stress = s.stress,
          .seed = s.seed,
          .lockstep = !s.capsule.empty()};
}

/// SCOPE:EPOCHS of `--freeze`. Where scopes lie in one another the first that fits a parameter counts; else their order
/// means nothing.
std::string frozen_later(const Recipe& r) {
  std::vector<std::string> later, scopes;
  for (const std::string& text : r.freeze)
    if (const std::size_t end = text.find(':'); end != std::string::npos)
      later.push_back(text), scopes.push_back(text.substr(0, end));
  bool apart = true;
  for (std::size_t i = 0; i < scopes.size(); ++i)
    for (std::size_t j = 0; j < scopes.size(); ++j) apart = apart && (i == j || !in_scope(scopes[i], scopes[j]));
  if (apart) std::ranges::sort(later);
  return fmt::format("{}", fmt::join(later, " "));
}

Value loss_of(const TrainSettings& s, Value logits, Value labels) {
  const std::vector<float>& weights = s.recipe.class_weights;
  if (!weights.empty() && std::ssize(weights) != logits.channels())
    fail(fmt::format("--class-weights: there are {} for {} classes", weights.size(), logits.channels()));
  return cross_entropy(logits, labels, {.label_smoothing = s.recipe.label_smoothing, .class_weights = weights});
}

/// What may change from run to run, each as its option spells it.
Identity::Facts changeable_of(const Recipe& r) {
  const bool timed = r.schedule != "constant" && !r.schedule.starts_with("step");
  const UpdateRule rule = update_rule_of(r);
  Identity::Facts facts = {{"lr", fmt::format("{}", learning_rate_of(r))},
                           {"schedule", timed ? fmt::format("{} over {} epochs", r.schedule, r.epochs) : r.schedule},
                           {"warmup", fmt::format("{}", r.warmup)}};
  std::visit(
      [&](const auto& u) {
        if constexpr (requires { u.momentum; }) facts.emplace_back("momentum", fmt::format("{}", u.momentum));
        if constexpr (requires { u.nesterov; }) facts.emplace_back("nesterov", u.nesterov ? "on" : "off");
        if constexpr (requires { u.weight_decay; })
          facts.emplace_back("weight-decay", fmt::format("{}", u.weight_decay));
      },
      rule);
  facts.insert(facts.end(), {{"label-smoothing", fmt::format("{}", r.label_smoothing)},
                             {"crop", std::to_string(r.crop) + (r.reflect ? " reflected" : "")},
                             {"flip", !r.flip       ? "off"
                                      : r.alternate ? "alternate"
                                                    : "on"},
                             {"cutout", std::to_string(r.cutout)}});
  facts.emplace_back("class-weights",
                     r.class_weights.empty() ? "none" : fmt::format("{}", fmt::join(r.class_weights, ",")));
  facts.emplace_back("vector-lr", fmt::format("{}", r.vector_rate));
  facts.emplace_back("no-decay", r.decay_vectors ? "none" : "norms,biases");
  facts.emplace_back("whiten", r.whiten.empty() ? "none" : r.whiten);
  const std::string later = frozen_later(r);
  facts.emplace_back("freeze-after", later.empty() ? "none" : later);
  return facts;
}

/// One training run, from the first epoch or a checkpoint to its end or an interrupt.
class Run {
 public:
  explicit Run(const TrainSettings& settings)
      : settings_(settings),
        precision_(precision_of(settings)),
        train_(training_loader(settings)),
        test_(test_loader(settings)),
        net_(settings.net()),
        checksum_(fmt::format("{:08x}-{:08x}", checksum_of(train_.dataset()), checksum_of(test_.dataset()))),
        logits_(build()),
        loss_(loss_of(settings, logits_, labels_)),
        trainer_(loss_, trainer_options(settings, precision_, static_cast<double>(train_.batches()))),
        accuracy_(accuracy(logits_, labels_)),
        trace_(settings.trace),
        best_(best_folder(settings)),
        patience_(settings.patience) {
    naming("--data " + settings.recipe.data, [&] { check_images(graph_, test_); });
  }

  TrainResult quietly(const Interrupt& interrupt) {
    quiet_ = true;
    const bool finished = go(interrupt);
    return {json(finished), facts(), std::move(steps_), finished};
  }

  int operator()(const Interrupt& interrupt) {
    const bool finished = go(interrupt);
    report(finished);
    if (!settings_.capsule.empty() && !encapsulated_) encapsulate_last();
    if (finished && in_vain())
      throw Failure(fmt::format("the last epoch committed no step; the first that was skipped: {}", first_reason_));
    if (finished) return 0;
    const bool saved = !settings_.out.empty() && !results_.empty();
    const std::string how_to_go_on = saved ? fmt::format("; --resume {} continues", settings_.out) : "";
    return complain(interrupted_status, fmt::format("interrupted after step {}{}", trainer_.attempts(), how_to_go_on));
  }

  /// All that its results follow from.
  Identity::Facts facts() const {
    const std::string& from = settings_.init_from;
    Identity::Facts facts = {{"epochs", std::to_string(settings_.recipe.epochs)},
                             {"init-from", from.empty() ? "none" : checksum_of_file(model_file(from))},
                             {"new-head", settings_.new_head ? "on" : "off"},
                             {"device", trainer_.options().device.backend().name()},
                             {"isa", settings_.device.cpu.isa}};
    for (const Identity& part : {identity(), identity_of(trainer_.options())})
      for (const Identity::Facts* more : {&part.fixed, &part.changeable})
        facts.insert(facts.end(), more->begin(), more->end());
    if (settings_.recipe.test_every != 1) facts.emplace_back("test-every", std::to_string(settings_.recipe.test_every));
    if (settings_.recipe.views) facts.emplace_back("views", "on");
    return facts;
  }

 private:
  /// False where it was interrupted.
  bool go(const Interrupt& interrupt) {
    claim();  // before anything is read that another training might be about to replace
    resume();
    for (const std::string& folder : {settings_.out, settings_.capsule})
      if (!folder.empty()) make_folder(folder);
    claim();
    if (!quiet_) announce();
    if (!settings_.tensorboard.empty()) events_.emplace(settings_.tensorboard, trainer_.attempts() + 1);
    before_ = trainer_.parameters().read_state();
    return epochs(interrupt);
  }

  Value build() {
    const Inputs in = inputs(graph_, train_);
    labels_ = in.labels;
    return build_net(settings_, in.images, train_.dataset(), &begun_);
  }

  /// What the checkpoint says of this run, beside what the trainer knows.
  Identity identity() const {
    const Recipe& r = settings_.recipe;
    const Dataset& data = train_.dataset();
    const std::string share = data.validation != 0 ? fmt::format(" with validation {}", data.validation) : "";
    Identity identity = {{{"net", net_.name + (net_.checksum.empty() ? "" : " " + net_.checksum)},
                          {"data", data.name + share},
                          {"batch", std::to_string(train_.batch())},
                          {"limit", std::to_string(train_.size())}},
                         changeable_of(r)};
    identity.changeable.emplace_back("data-checksum", checksum_);
    return identity;
  }

  /// Makes --out and --capsule this run's own, if they are there.
  void claim() {
    const auto take = [](const std::string& option, const std::string& folder, std::optional<FolderLock>& lock) {
      if (std::error_code ignored; lock || folder.empty() || !fs::exists(folder, ignored)) return;
      naming(option + " " + folder, [&] { lock.emplace(folder); });
    };
    take("--out", settings_.out, lock_);
    take("--capsule", settings_.capsule, capsule_lock_);
  }

  /// Takes over a checkpoint that may be of another precision.
  std::vector<std::string> convert() {
    TrainerOptions options = trainer_.options();
    const std::string name = text_at(read_state_metadata(settings_.resume), "precision");
    options.precision = naming(settings_.resume, [&] { return precision_by_name(name); });
    if (!settings_.loss_scale.empty()) options.precision.loss_scale = precision_.loss_scale;
    if (settings_.range_steps) options.precision.range_steps = precision_.range_steps;
    Trainer before(loss_, options);
    auto changes = before.load(settings_.resume, identity());
    trainer_.take(before.parameters());
    if (name != precision_.name)
      changes.insert(changes.begin(), fmt::format("precision was {}, is {}", name, precision_.name));
    return changes;
  }

  void resume() {
    if (settings_.resume.empty()) return;
    changes_ = settings_.convert ? convert() : trainer_.load(settings_.resume, identity());
    if (trainer_.batches() >= settings_.recipe.epochs * train_.batches())
      fail(fmt::format("--epochs {}: the checkpoint in {} has seen them all", settings_.recipe.epochs,
                       settings_.resume));
    best_.resume(settings_.resume);
    naming(settings_.resume, [&] { patience_.resume(read_state_metadata(settings_.resume)); });
    if (patience_.is_over())
      fail(fmt::format("--patience {}: the checkpoint in {} has been so long without a better test accuracy",
                       settings_.patience, settings_.resume));
    trace_.resume(trainer_.attempts());
  }

  void announce() const {
    fmt::print("{} ({} parameters) on {} in {}, {}\n", net_.name, parameter_count(graph_),
               name_for_people(train_.dataset()), settings_.recipe.precision,
               trainer_.options().device.backend().description());
    if (!net_.note.empty()) fmt::print("{}\n", net_.note);
    if (!settings_.resume.empty()) fmt::print("continues after step {}\n", trainer_.attempts());
    if (!settings_.init_from.empty()) {
      fmt::print("begins with the numbers of {}\n", settings_.init_from);
      if (!begun_.kept.empty()) fmt::print("drawn anew: {}\n", fmt::join(begun_.kept, ", "));
      if (!begun_.unread.empty()) fmt::print("not read: {}\n", fmt::join(begun_.unread, ", "));
    }
    for (const std::string& change : changes_) fmt::print("changed: {}\n", change);
    std::fflush(stdout);
  }

  bool epochs(const Interrupt& interrupt) {
    const auto go_on = [&](const StepReport&) { return !interrupt.raised(); };
    if (trainer_.batches() == 0 && !trainer_.find_ranges(train_, precision_.range_steps, go_on)) return false;
    Progress progress(settings_.recipe.epochs, train_.batches(), train_.batch());
    const auto observe = [&](const StepReport& step) {
      trace_.add(step);
      if (events_ && step.complete) note(step);
      if (!settings_.capsule.empty()) watch(step);
      if (step.skipped && first_reason_.empty()) first_reason_ = step.reason;
      if (step.complete && !step.skipped) first_reason_.clear();
      if (quiet_) {
        steps_.push_back(step);
      } else {
        progress.step(step);
      }
      return go_on(step);
    };
    for (std::int64_t epoch = 0; epoch < settings_.recipe.epochs;) {
      if (interrupt.raised()) return false;
      if (patience_.is_over()) {
        if (!quiet_) fmt::print("no better test accuracy for {} epochs: stopped\n", settings_.patience);
        return true;
      }
      progress.begin(trainer_.batches());
      EpochResult result{trainer_.epoch(train_, observe), {}};
      const bool stopped = result.training.stopped;
      if (!stopped) result.test = test(result.training.epoch);
      if (!quiet_) progress.end(result);
      if (result.test) patience_.take(result.test->accuracy(), settings_.recipe.test_every);
      if (events_) note(result);
      results_.push_back(result);
      keep(result);
      epoch = result.training.epoch;
      if (stopped) return false;
    }
    return true;
  }

  /// What the net knows after an epoch that is to be tested.
  std::optional<Score> test(std::int64_t epoch) {
    const Recipe& r = settings_.recipe;
    const bool last = epoch == r.epochs, averaged = r.average_decay > 0;
    if (!last && epoch % r.test_every != 0) return {};
    if (last && r.views) return score(trainer_, test_, logits_, six_views(), averaged);
    return score(trainer_, test_, accuracy_, averaged);
  }

  void note(const StepReport& step) {
    const EventScalar scalars[] = {{"train/loss", step.step_loss},
                                   {"train/gradient_norm", step.gradient_norm},
                                   {"train/learning_rate", step.learning_rate},
                                   {"train/loss_scale", step.scale},
                                   {"train/skipped", step.skipped ? 1.0f : 0.0f}};
    events_->add(step.attempt, scalars);
  }

  void note(const EpochResult& epoch) {
    std::vector<EventScalar> scalars = {
        {"epoch/train_loss", static_cast<float>(epoch.training.loss)},
        {"epoch/images_per_second", static_cast<float>(epoch.training.images_per_second)}};
    if (epoch.test) scalars.push_back({"epoch/test_accuracy", static_cast<float>(epoch.test->accuracy())});
    for (const GradientNorm& layer : trainer_.gradient_norms())
      scalars.push_back({"gradient_norm/" + layer.layer, static_cast<float>(layer.norm)});
    events_->add(trainer_.attempts(), scalars);
  }

  /// Keeps the first step that is lost and that no loss scale will cure.
  void watch(const StepReport& step) {
    const StepState after = trainer_.parameters().read_state();
    const bool dynamic = precision_.loss_scale.mode == LossScale::Mode::dynamic;
    const bool cured = dynamic && after.outcome == static_cast<std::int32_t>(StepOutcome::overflow) && !step.stop;
    if (!step.reason.empty() && !cured && !encapsulated_) encapsulate(step.reason);
    before_ = after;
  }

  void say_net(Metadata& metadata) const {
    metadata["net"] = net_.name;
    if (!net_.graph.empty()) metadata["graph"] = net_.graph;
  }

  void encapsulate(const std::string& reason) {
    Metadata facts = metadata_of(train_.dataset());
    say_net(facts);
    facts["precision"] = settings_.recipe.precision;
    facts["words"] = Json(settings_.words).dump();
    facts["batches"] = std::to_string(train_.batches());
    facts["reason"] = reason;
    write_capsule(settings_.capsule, trainer_, before_, facts);
    encapsulated_ = true;
    fmt::print("capsule: {} in {}\n", reason, settings_.capsule);
  }

  /// The last batch once more: the training is over, and its checkpoint is written.
  void encapsulate_last() {
    before_ = trainer_.parameters().read_state();
    encapsulate("the step after the last, on the same batch");
  }

  /// Whether the last epoch, or the last one that came to the end of a step, skipped all of its steps.
  bool in_vain() const { return results_.back().training.committed_steps == 0 && !first_reason_.empty(); }

  void keep(const EpochResult& epoch) {
    if (!settings_.out.empty()) {
      Metadata model = metadata_of(train_.dataset());
      say_net(model);
      model["precision"] = settings_.recipe.precision;
      if (epoch.test) best_.offer(epoch.test->accuracy(), trainer_.parameters(), model);
      Identity state = identity();
      best_.note(state);
      patience_.note(state);
      trainer_.save(settings_.out, model, state);
    }
    trace_.write();  // perhaps into the folder that saving has made
  }

  std::int64_t left_over() const { return trainer_.batches() % settings_.accumulate; }

  void report(bool finished) const {
    const Json results = final_results(results_);
    if (finished)
      fmt::print("test error {:.2f} %, best {:.2f} % on {}\n", 100 * results["test_error"].get<double>(),
                 100 * results["best_test_error"].get<double>(), name_for_people(test_.dataset()));
    if (finished && left_over() > 0)
      fmt::print("--accumulate {}: the last {} batches made no step\n", settings_.accumulate, left_over());
    write_json(settings_.json, json(finished));
  }

  Json json(bool finished) const {
    Json json = {{"net", net_.name},
                 {"data", train_.dataset().name},
                 {"synthetic", train_.dataset().synthetic},
                 {"device", trainer_.options().device.backend().name()},
                 {"hardware", trainer_.options().device.backend().description()},
                 {"precision", settings_.recipe.precision},
                 {"seed", settings_.seed},
                 {"parameters", parameter_count(graph_)},
                 {"classes", train_.dataset().classes},
                 {"left_out", train_.dataset().left_out.size() + test_.dataset().left_out.size()},
                 {"interrupted", !finished},
                 {"left_over_batches", left_over()},
                 {"views", settings_.recipe.views ? std::ssize(six_views()) : 1},
                 {"epochs", Json::array()}};
    for (const EpochResult& epoch : results_) json["epochs"].push_back(to_json(epoch));
    json["final"] = final_results(results_);
    json["memory"] = to_json(trainer_.memory());
    json["numerics"] = to_json(trainer_.numerics());
    return json;
  }

  const TrainSettings& settings_;
  Precision precision_;
  Loader train_, test_;
  const Net& net_;
  std::string checksum_;  // of the data
  LoadReport begun_;
  Graph graph_;
  Value labels_, logits_, loss_;
  Trainer trainer_;
  Value accuracy_;
  Trace trace_;
  BestModel best_;
  Patience patience_;
  std::optional<EventFile> events_;
  std::optional<FolderLock> lock_, capsule_lock_;
  std::vector<std::string> changes_;
  std::vector<EpochResult> results_;
  bool quiet_ = false;
  std::vector<StepReport> steps_;  // where it is quiet
  StepState before_ = {};          // of the step that comes, where there is to be a capsule
  bool encapsulated_ = false;
  std::string first_reason_;  // why the first step after the last commit was skipped
};

/// Gives images the mean and deviation that a model was trained with, where its file tells them.
void normalize_as(const std::string& checkpoint, Dataset& data) {
  if (!read_safetensors(model_file(checkpoint)).metadata.contains("mean")) return;
  const ModelDescription model = read_model_description(checkpoint);
  if (model.image.c != data.image.c)
    fail(fmt::format("--init-from {}: its images have {} channels, those of {} {}", checkpoint, model.image.c,
                     data.name, data.image.c));
  if (model.dtype != data.dtype)
    fail(fmt::format("--init-from {}: its images are {}, those of {} {}", checkpoint, name_of(model.dtype), data.name,
                     name_of(data.dtype)));
  data.mean = model.mean, data.stddev = model.stddev;
}

}  // namespace

Identity::Facts facts_of(const TrainSettings& settings) {
  check(settings);
  return Run(settings).facts();
}

std::shared_ptr<const Dataset> TrainSettings::load(Split split) const {
  auto& data = loaded->data[split];
  if (data) return data;
  DataOptions options = this->data;
  options.threads = device.cpu.threads;
  if (split == Split::test) options.limit = 0;
  if (options.image.h == 0 && is_own_data(recipe.data) && recipe.net.ends_with(".onnx") && net().image.elements() > 0)
    options.image = net().image;
  Dataset read = load_dataset(recipe.data, split, options);
  normalize_as(net(), read);
  if (!init_from.empty()) normalize_as(init_from, read);
  data = std::make_shared<const Dataset>(std::move(read));
  print_left_out(*data);
  return data;
}

const Net& TrainSettings::net() const {
  if (!loaded->net) loaded->net = std::make_shared<const Net>(find_net(recipe.net, new_head));
  return *loaded->net;
}

Value build_net(const TrainSettings& s, Value images, const Dataset& data, LoadReport* report) {
  const Value logits = s.net().build(images, data.classes);
  for (const std::string& text : s.recipe.freeze) {
    const auto frozen = [&](const auto& p) { return in_scope(p.name, text.substr(0, text.find(':'))); };
    if (std::ranges::none_of(graph_of(logits)->parameters, frozen))
      fail(fmt::format("--freeze {}: no parameter lies in it", text));
  }
  if (!s.recipe.whiten.empty()) whiten(graph_of(logits), s.recipe.whiten + ".weight", data);
  if (s.init_from.empty()) return logits;
  LoadOptions options;
  if (s.new_head) options.left_out = head_of(logits);
  const LoadReport found =
      naming("--init-from", [&] { return start_from(model_file(s.init_from), graph_of(logits), options); });
  if (report) *report = found;
  return logits;
}

Loader training_loader(const TrainSettings& s) {
  const Recipe& r = s.recipe;
  return Loader(s.load(Split::train), {.batch = r.batch,
                                       .crop = r.crop,
                                       .reflect = r.reflect,
                                       .flip = r.flip,
                                       .alternate = r.alternate,
                                       .cutout = r.cutout,
                                       .workers = s.workers,
                                       .seed = s.seed});
}

Setting::Setting(const TrainSettings& s, Loader the_loader, double batches)
    : precision((check(s), precision_of(s))),
      loader(std::move(the_loader)),
      options(trainer_options(s, precision, batches)) {
  Graph graph;
  const Inputs in = inputs(graph, loader);
  const Value logits = build_net(s, in.images, loader.dataset());
  loss = loss_of(s, logits, in.labels);
}

TrainResult train_quietly(const TrainSettings& settings, const Interrupt& interrupt) {
  check(settings);
  return Run(settings).quietly(interrupt);
}

int train(const TrainSettings& settings) {
  check(settings);
  Run run(settings);
  const Interrupt interrupt;
  return run(interrupt);
}

}  // namespace halftone::cli
