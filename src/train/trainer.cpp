#include "halftone/train/trainer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <deque>
#include <ostream>
#include <set>

#include "halftone/graph/recompute.hpp"
#include "halftone/train/binarize.hpp"
#include "halftone/train/inputs.hpp"
#include "halftone/train/pipeline.hpp"
#include "src/train/parameter_groups.hpp"

namespace halftone {
namespace {

int slots_of(const TrainerOptions& options) {
  const auto slots = [](const UpdateRule& rule) {
    return std::visit([](const auto& r) { return r.slot_count(); }, rule);
  };
  int most = slots(options.optimizer);
  for (const auto& group : options.groups)
    if (group.rule) most = std::max(most, slots(*group.rule));
  return most;
}

/// The input of a graph that node `n` reads, where it holds a number that is not finite.
std::string bad_input(const Plan& plan, std::int32_t n) {
  const Graph& graph = plan.graph();
  for (int id : graph->nodes[at(n)].inputs) {
    if (std::find(graph->inputs.begin(), graph->inputs.end(), id) == graph->inputs.end()) continue;
    const auto values = plan.view(id).read();
    const auto bad = std::find_if(values.begin(), values.end(), [](float x) { return !std::isfinite(x); });
    if (bad != values.end())
      return fmt::format(", of input {}, which is {} at place {}", graph.info(id).name, *bad, bad - values.begin());
  }
  return {};
}

/// What is known of a forward pass that gave a number which is not finite.
std::string forward_fault(const StepState& state, const Plan& plan, bool inputs_are_its) {
  if (state.bad_row != StepState::none)
    return fmt::format("label {} of image {} is no class", state.bad_label, state.bad_row);
  if (state.bad_node == StepState::none) return {};
  return fmt::format("the first output that is not finite is that of {}{}",
                     plan.graph()->nodes[at(state.bad_node)].name,
                     inputs_are_its ? bad_input(plan, state.bad_node) : "");
}

/// `inputs_are_its`: no later batch has been uploaded since.
std::string reason_of(const StepState& state, const Parameters& parameters, const Plan& plan, bool inputs_are_its) {
  if (state.outcome == 0) return "the loss scale's policy has stopped training";  // before this batch
  const std::string forward = forward_fault(state, plan, inputs_are_its);
  const std::string loss = std::isnan(state.loss) ? "nan" : fmt::format("{}", state.loss);  // no sign before nan
  if (!std::isfinite(state.loss)) return fmt::format("loss is {}{}{}", loss, forward.empty() ? "" : ": ", forward);
  if (!forward.empty()) return forward;
  if (state.first_bad_parameter >= 0)
    return fmt::format("{} non-finite weight gradients; the first is element {} of {}", state.nonfinite,
                       state.first_bad_element, parameters.entries[at(state.first_bad_parameter)].name);
  return "the gradient's norm is not finite";
}

/// All values that nodes compute.
std::vector<int> values_written(const Graph& graph) {
  std::vector<int> values;
  for (const Node& node : graph->nodes) values.insert(values.end(), node.outputs.begin(), node.outputs.end());
  return values;
}

std::array<std::span<const std::byte>, 2> inputs_of(const Batch& batch) {
  return {batch.images, std::as_bytes(std::span(batch.labels))};
}

/// Copies raw bytes into a plan's inputs, in the order in which the graph has them.
void feed(const Plan& plan, std::span<const std::span<const std::byte>> inputs) {
  const Graph& graph = plan.graph();
  if (inputs.size() != graph->inputs.size())
    fail(fmt::format("the graph has {} inputs, {} were given", graph->inputs.size(), inputs.size()));
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    try {
      plan.view(graph->inputs[i]).write_bytes(inputs[i]);
    } catch (const Error& error) {
      fail(fmt::format("{}: {}", graph.info(graph->inputs[i]).name, error.what()));
    }
  }
}

/// While it lives, the working weights and the running statistics are the averaged ones.
class AveragedWeights {
 public:
  explicit AveragedWeights(Parameters& parameters) : parameters_(parameters) {
    for (const auto& slot : parameters_.entries) {
      saved_.push_back(parameters_.weight(slot).read_bytes());
      parameters_.assign(Store::weights, slot, parameters_.view(Store::average, slot).read());
    }
    for (std::size_t i = 0; i < parameters_.statistics.size(); ++i) {
      saved_.push_back(parameters_.statistic(i).read_bytes());
      parameters_.statistic(i).write_bytes(parameters_.statistic(i, Store::averaged_statistics).read_bytes());
    }
  }
  ~AveragedWeights() {
    auto saved = saved_.begin();
    for (const auto& slot : parameters_.entries) parameters_.weight(slot).write_bytes(*saved++);
    for (std::size_t i = 0; i < parameters_.statistics.size(); ++i) parameters_.statistic(i).write_bytes(*saved++);
  }
  AveragedWeights(const AveragedWeights&) = delete;
  AveragedWeights& operator=(const AveragedWeights&) = delete;

 private:
  Parameters& parameters_;
  std::vector<std::vector<std::byte>> saved_;
};

TrainerOptions with_groups(TrainerOptions options, const Graph& graph) {
  if (!options.precision.binarizes) return options;
  auto groups = groups_of_signs(graph);
  for (ParameterGroup& group : groups)  // each of one parameter
    if (const std::size_t g = group_of(options.groups, group.scope, 4); g < options.groups.size())
      group.until = options.groups[g].until;
  options.groups.insert(options.groups.begin(), groups.begin(), groups.end());
  return options;
}

Identity joined(Identity own, const Identity& given) {
  own.fixed.insert(own.fixed.begin(), given.fixed.begin(), given.fixed.end());
  own.changeable.insert(own.changeable.begin(), given.changeable.begin(), given.changeable.end());
  return own;
}

}  // namespace

struct Trainer::Impl {
  Impl(Value loss, const TrainerOptions& given) : Impl(loss, given, for_training(graph_of(loss), loss.id(), given)) {}

  Impl(Value the_loss, const TrainerOptions& given, Graph graph)
      : loss(the_loss),
        given(given),
        options(with_groups(given, graph)),
        parameters(graph, options.device,
                   {.precision = options.precision,
                    .slot_count = slots_of(options),
                    .accumulate = options.accumulate > 1,
                    .average = options.average_decay > 0,
                    .seed = options.seed}) {
    make_plan(graph);
    follow_groups();
    ring.resize(options.lockstep ? 1 : static_cast<std::size_t>(options.device.backend().steps_ahead()) + 1);
    StepState state = parameters.read_state();
    state.scale = initial_state(options.precision.loss_scale);
    state.stress = options.stress;
    parameters.write_state(state);
  }

  ~Impl() {
    try {
      settle();
    } catch (...) {  // a device that fails now has nobody left to tell
    }
  }

  void make_plan(Graph graph) {
    plan.reset();
    add_step(graph, loss.id(), parameters, options);
    trained = 0;
    for (std::size_t i = 0; i < parameters.entries.size(); ++i)
      if (graph->parameters[i].gradient >= 0) trained += static_cast<double>(parameters.entries[i].shape.elements());
    std::vector<int> keep = {loss.id()};
    if (options.keep_values) keep = values_written(graph);
    add_recomputation(graph, keep);
    plan = std::make_unique<Plan>(graph, parameters, keep);
  }

  /// Wherever the steps have come to: a plan that computes the gradients of just those who are trained there, unless
  /// that is nobody.
  void follow_groups() {
    next_freeze = never;
    bool any = false, differs = false;
    for (std::size_t i = 0; i < parameters.entries.size(); ++i) {
      const ParameterSlot& slot = parameters.entries[i];
      const bool trains = slot.trainable && !is_frozen(options.groups, slot.name, slot.rank, last.steps);
      any = any || trains;
      differs = differs || trains != (plan->graph()->parameters[i].gradient >= 0);
    }
    if (!any) return;
    for (const ParameterGroup& group : options.groups)
      if (group.until > last.steps) next_freeze = std::min(next_freeze, group.until);
    if (differs) make_plan(for_training(graph_of(loss), loss.id(), options, last.steps));
  }

  /// A step that was enqueued; its state is here once `arrived` returns.
  struct UnderWay {
    StepState state;
    std::function<void()> arrived;
  };

  /// Whether a step under way may be the last before something is frozen.
  bool freezes_soon() const {
    return under_way > 0 && last.steps + static_cast<std::int64_t>(under_way) >= next_freeze;
  }

  /// Before a step is fed.
  void prepare() {
    if (under_way == 0 && last.micro_batch == 0 && last.steps >= next_freeze) follow_groups();
  }

  void enqueue() {
    plan->run();
    UnderWay& step = ring[(oldest + under_way) % ring.size()];
    step.arrived = parameters.read_state_later(step.state);
    ++under_way;
  }

  /// The state after the oldest step under way, waited for.
  const StepState& take() {
    UnderWay& step = ring[oldest];
    oldest = (oldest + 1) % ring.size();
    --under_way;
    step.arrived();
    return last = step.state;
  }

  /// Batches taken, those under way left out.
  std::int64_t consumed() const { return last.attempts * options.accumulate + last.micro_batch; }

  /// Waits for steps whose reports nobody took.
  void settle() {
    while (under_way > 0) take();
  }

  StepReport report(const StepState& state) const {
    const bool complete = state.micro_batch == 0;
    StepReport report;
    report.attempt = state.attempts + (complete ? 0 : 1);
    report.loss = state.loss;
    report.step_loss =
        state.good_micro_batches > 0 ? static_cast<float>(state.loss_sum / state.good_micro_batches) : state.loss;
    report.learning_rate = state.learning_rate;
    report.gradient_norm = state.gradient_norm;
    report.scale = state.used_scale;
    if (complete && state.commit) {
      report.zero_weight_gradients = static_cast<double>(state.zero_gradients) / (trained * state.good_micro_batches);
      report.unchanged_weights = static_cast<double>(state.unchanged_weights) / trained;
    }
    report.complete = complete;
    report.skipped = complete && !state.commit;
    report.stop = state.scale.stop != 0;
    if (!state.good || report.skipped) report.reason = reason_of(state, parameters, *plan, under_way == 0);
    return report;
  }

  struct Evaluation {
    std::uint64_t graph;  ///< `Graph::identity`
    std::size_t nodes;
    int metric;
    std::int64_t batch;
    std::unique_ptr<Plan> plan;
  };

  /// The plan that computes `metric` on batches of `batch`; the last few are kept.
  Plan& evaluation(Value metric, std::int64_t batch) {
    const Graph graph = graph_of(metric);
    for (const auto& e : evaluations)
      if (e.graph == graph.identity() && e.nodes == graph->nodes.size() && e.metric == metric.id() && e.batch == batch)
        return *e.plan;
    if (evaluations.size() >= 4) evaluations.pop_front();
    const int keep[] = {metric.id()};
    evaluations.push_back(
        {graph.identity(), graph->nodes.size(), metric.id(), batch,
         std::make_unique<Plan>(for_evaluation(graph, metric.id(), batch, options.precision, options.device),
                                parameters, keep)});
    return *evaluations.back().plan;
  }

  /// Calls f(values of `output`, images) batch by batch.
  template <class F>
  void evaluate(const Loader& loader, Value output, bool average, const F& f) {
    std::optional<AveragedWeights> averaged;
    if (average && parameters.bytes(Store::average) == 0)
      fail("evaluate: this trainer keeps no averaged weights (average_decay)");
    if (average) averaged.emplace(parameters);
    check_images(graph_of(output), loader);
    const Loader in_order = loader.in_order();
    Epoch batches = in_order.epoch(0);
    while (const Batch* batch = batches.next()) {
      Plan& plan = evaluation(output, batch->size);
      feed(plan, inputs_of(*batch));
      plan.run();
      f(plan.view(output.id()).read(), batch->size);
    }
  }

  Value loss;
  TrainerOptions given, options;  // and with what the number system adds
  Parameters parameters;
  double trained = 0;                // weights
  std::int64_t next_freeze = never;  // the step from which on the plan computes gradients in vain
  std::unique_ptr<Plan> plan;
  std::deque<Evaluation> evaluations;
  std::vector<UnderWay> ring;  // one more than may be under way
  std::size_t oldest = 0, under_way = 0;
  StepState last;  // that was waited for
  bool ranges_found = false;
};

Trainer::Trainer(Value loss, const TrainerOptions& options) {
  check(options);
  impl_ = std::make_unique<Impl>(loss, options);
}

Trainer::~Trainer() = default;

StepReport Trainer::step(const Batch& batch) { return step(inputs_of(batch)); }

StepReport Trainer::step(std::span<const std::span<const std::byte>> inputs) {
  impl_->settle();
  impl_->prepare();
  feed(*impl_->plan, inputs);
  impl_->enqueue();
  return impl_->report(impl_->take());
}

bool Trainer::find_ranges(const Loader& loader, std::int64_t steps, const Observer& observer) {
  if (steps == 0) return true;
  impl_->settle();
  TrainerOptions options = impl_->given;
  options.precision = options.precision.wide();
  Trainer first(impl_->loss, options);
  bool go_on = true;
  const auto observe = [&](const StepReport& step) {
    go_on = go_on && (!observer || observer(step));
    return go_on && step.attempt < steps;
  };
  while (first.attempts() < steps && go_on)
    if (first.epoch(loader, observe).committed_steps == 0 && go_on) fail("find_ranges: no step could be committed");
  if (!go_on) return false;
  impl_->parameters.take_ranges(first.parameters());
  impl_->parameters.initialize(impl_->plan->graph(), options.seed);
  return impl_->ranges_found = true;
}

EpochReport Trainer::epoch(const Loader& loader, const Observer& observer) {
  if (!*loader.options().drop_last && loader.size() % loader.batch() != 0)
    fail(fmt::format("epoch: the last batch of {} images would be shorter than {}; training needs drop_last",
                     loader.size(), loader.batch()));
  check_images(impl_->plan->graph(), loader);
  impl_->settle();
  if (impl_->consumed() == 0 && !impl_->ranges_found) find_ranges(loader, impl_->options.precision.range_steps);
  const auto began = std::chrono::steady_clock::now();
  const std::int64_t first = impl_->consumed() % loader.batches();
  EpochReport report;
  report.epoch = impl_->consumed() / loader.batches() + 1;
  std::int64_t finite = 0, images = 0;
  bool go_on = true, stopped_by_policy = false;
  const auto take_report = [&] {
    const StepReport step = impl_->report(impl_->take());
    if (stopped_by_policy) return;  // it was under way already and changed nothing
    if (std::isfinite(step.loss)) report.loss += step.loss, ++finite;
    images += loader.batch();
    report.skipped_steps += step.skipped;
    report.committed_steps += step.complete && !step.skipped;
    stopped_by_policy = step.stop;
    go_on = (!observer || observer(step)) && go_on && !step.stop;
  };
  Epoch batches = loader.epoch(report.epoch - 1, first);
  while (go_on) {
    const Batch* batch = batches.next();
    if (!batch) break;
    while (impl_->freezes_soon()) take_report();
    if (!go_on) break;
    impl_->prepare();
    feed(*impl_->plan, inputs_of(*batch));
    impl_->enqueue();
    if (impl_->under_way == impl_->ring.size()) take_report();
  }
  while (impl_->under_way > 0) take_report();
  report.stopped = stopped_by_policy || impl_->consumed() < report.epoch * loader.batches();
  report.loss = finite > 0 ? report.loss / static_cast<double>(finite) : std::nan("");
  report.loss_scale = impl_->parameters.read_state().scale.scale;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  report.images_per_second = static_cast<double>(images) / std::max(report.seconds, 1e-9);
  return report;
}

double Trainer::evaluate(const Loader& loader, Value metric, bool average) {
  if (metric.shape().elements() != 1)
    fail("evaluate: the metric must be a single number, not " + to_string(metric.shape()));
  double sum = 0;
  std::int64_t images = 0;
  impl_->evaluate(loader, metric, average, [&](const std::vector<float>& values, std::int64_t size) {
    sum += values[0] * static_cast<double>(size);
    images += size;
  });
  return sum / static_cast<double>(std::max<std::int64_t>(images, 1));
}

std::vector<float> Trainer::predict(const Loader& loader, Value output, bool average) {
  std::vector<float> result;
  impl_->evaluate(loader, output, average, [&](const std::vector<float>& values, std::int64_t) {
    result.insert(result.end(), values.begin(), values.end());
  });
  return result;
}

void Trainer::save(const std::filesystem::path& directory, const Metadata& model, const Identity& identity) const {
  Metadata all = model;
  all.insert(impl_->plan->graph()->metadata.begin(), impl_->plan->graph()->metadata.end());
  save_checkpoint(directory, impl_->parameters, all, joined(identity_of(impl_->options), identity));
}

std::vector<std::string> Trainer::load(const std::filesystem::path& directory, const Identity& identity) {
  impl_->settle();
  const LossScale& loss_scale = impl_->options.precision.loss_scale;
  auto changes =
      load_checkpoint(directory, impl_->parameters, joined(identity_of(impl_->options), identity), loss_scale);
  StepState state = impl_->parameters.read_state();
  state.stress = impl_->options.stress;
  state.scale.stop = 0;
  if (loss_scale.mode != LossScale::Mode::dynamic) state.scale.scale = loss_scale.options.initial;
  impl_->parameters.write_state(state);
  impl_->last = state;
  impl_->follow_groups();
  return changes;
}

void Trainer::take(const Parameters& other) {
  impl_->settle();
  StepState state = other.read_state();
  if (state.micro_batch != 0) fail("take: the other trainer is within a step");
  impl_->parameters.take(other);
  state.seed = impl_->options.seed;
  state.stress = impl_->options.stress;
  state.scale = initial_state(impl_->options.precision.loss_scale);
  impl_->parameters.write_state(state);
  impl_->last = state;
  impl_->follow_groups();
}

std::vector<GradientNorm> Trainer::gradient_norms() const {
  impl_->settle();
  const Parameters& parameters = impl_->parameters;
  const StepState state = parameters.read_state();
  std::vector<GradientNorm> norms;
  if (!state.commit) return norms;
  const bool sums = parameters.bytes(Store::accumulated) > 0;
  const double divisor = sums ? state.good_micro_batches : double{state.gradient_scale()};
  for (std::size_t i = 0; i < parameters.entries.size(); ++i) {
    const ParameterSlot& slot = parameters.entries[i];
    if (impl_->plan->graph()->parameters[i].gradient < 0) continue;
    const std::string layer = slot.name.substr(0, slot.name.rfind('.'));
    if (norms.empty() || norms.back().layer != layer) norms.push_back({layer, 0});
    for (const double x : parameters.view(sums ? Store::accumulated : Store::gradients, slot).read())
      norms.back().norm += (x / divisor) * (x / divisor);
  }
  for (GradientNorm& layer : norms) layer.norm = std::sqrt(layer.norm);
  return norms;
}

MemoryReport Trainer::memory() const {
  const Parameters& p = impl_->parameters;
  return {p.bytes(Store::weights),
          p.bytes(Store::masters),
          p.bytes(Store::gradients) + p.bytes(Store::accumulated),
          p.bytes(Store::slot0) + p.bytes(Store::slot1) + p.bytes(Store::compensation) + p.bytes(Store::average) +
              p.bytes(Store::averaged_statistics) + p.bytes(Store::kept_statistics),
          impl_->plan->arena_bytes(),
          impl_->plan->workspace_bytes(),
          impl_->options.device.peak()};
}

NumericsReport Trainer::numerics() const {
  const StepState state = impl_->parameters.read_state();
  const auto steps = static_cast<double>(std::max<std::int64_t>(state.steps, 1));
  NumericsReport report{state.zero_gradient_shares / steps, state.unchanged_weight_shares / steps,
                        state.attempts - state.steps, state.nonfinite_total};
  std::set<std::string> truths;
  for (const ParameterSlot& slot : impl_->parameters.entries)
    if (slot.trainable) truths.insert(name_in(slot.truth(), slot.name));
  const auto ranges = impl_->parameters.read_ranges();
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const auto& [value, role, storage, lasts] = impl_->parameters.ranges[i];
    const Noticed& total = ranges[i].total;
    const auto share = [&](std::int64_t count) {
      return static_cast<double>(count) / static_cast<double>(std::max<std::int64_t>(total.count, 1));
    };
    const float scale = storage.scaling == Scaling::constant ? math::power_of_two(storage.exponent) : ranges[i].scale;
    report.tensors.push_back({value, role, total.count, share(total.zeros), share(total.flushed),
                              share(total.saturated), std::nullopt, total.largest,
                              std::ilogb(storage.largest() * scale) + 1});
    if (truths.contains(value))
      report.tensors.back().unchanged =
          static_cast<double>(total.unchanged) / static_cast<double>(std::max<std::int64_t>(total.updated, 1));
  }
  return report;
}

const Plan& Trainer::plan() const { return *impl_->plan; }
const Parameters& Trainer::parameters() const { return impl_->parameters; }
Parameters& Trainer::parameters() { return impl_->parameters; }
const TrainerOptions& Trainer::options() const { return impl_->options; }
std::int64_t Trainer::attempts() const { return impl_->last.attempts; }
std::int64_t Trainer::batches() const { return impl_->consumed(); }

std::ostream& operator<<(std::ostream& out, const EpochReport& r) {
  return out << fmt::format("epoch {:3}  loss {:.4f}  {:.0f} images/s  {:.1f} s", r.epoch, r.loss, r.images_per_second,
                            r.seconds)
             << (r.skipped_steps > 0 ? fmt::format("  {} skipped", r.skipped_steps) : "");
}

}  // namespace halftone
