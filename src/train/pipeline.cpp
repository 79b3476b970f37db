#include "halftone/train/pipeline.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "halftone/graph/differentiate.hpp"
#include "halftone/graph/fuse.hpp"
#include "halftone/graph/step_ops.hpp"
#include "halftone/train/binarize.hpp"
#include "src/train/parameter_groups.hpp"

namespace halftone {
namespace {

/// The trained parameters of each group; the last ones follow the trainer's own rule.
std::vector<std::vector<int>> members(const Graph& graph, const Parameters& parameters,
                                      const std::vector<ParameterGroup>& groups) {
  std::vector<std::vector<int>> result(groups.size() + 1);
  std::vector<bool> fitted(groups.size() + 1, false);
  for (std::size_t i = 0; i < parameters.entries.size(); ++i) {
    const std::size_t g = group_of(groups, parameters.entries[i].name, parameters.entries[i].rank);
    for (std::size_t all = 0; all < groups.size(); ++all)
      fitted[all] = fitted[all] || fits(groups[all], parameters.entries[i].name, parameters.entries[i].rank);
    if (graph->parameters[i].gradient >= 0) result[g].push_back(static_cast<int>(i));
  }
  for (std::size_t g = 0; g < groups.size(); ++g)
    if (!fitted[g])
      fail(fmt::format("parameter group {}: no parameter{}'s name begins with \"{}\" and ends with \"{}\"", g + 1,
                       groups[g].rank ? fmt::format(" of rank {}", *groups[g].rank) : "", groups[g].scope,
                       groups[g].ending));
  return result;
}

}  // namespace

Graph for_training(const Graph& graph, int loss, const TrainerOptions& options, std::int64_t steps) {
  const Precision& given = options.precision;
  for (const auto& exception : given.exceptions) {
    const auto fits = [&](const auto& named) { return in_scope(named.name, exception.scope); };
    if (std::none_of(graph->nodes.begin(), graph->nodes.end(), fits) &&
        std::none_of(graph->parameters.begin(), graph->parameters.end(), fits))
      fail(fmt::format("precision {}: no node and no parameter lies in \"{}\"", given.name, exception.scope));
  }
  Graph result = graph.clone();
  const Precision precision = given.binarizes ? with_signs(given, binarize(result, given)) : given;
  freeze(result, options.frozen);
  for (ParameterInfo& parameter : result->parameters)
    if (is_frozen(options.groups, parameter.name, parameter.rank, steps)) parameter.trainable = false;
  differentiate(result, result.value(loss));
  std::vector<int> wanted = {loss};
  for (const auto& parameter : result->parameters)
    if (parameter.gradient >= 0) wanted.push_back(parameter.gradient);
  prune(result, wanted);
  narrow(result, precision);
  if (precision.fuses) fuse(result, options.device, wanted);
  return result;
}

Graph for_evaluation(const Graph& graph, int output, std::int64_t batch, const Precision& given, const Device& device,
                     std::vector<FoldedNorm>* folded) {
  const int outputs[] = {output};
  Graph result = graph.clone();
  const Precision precision = given.binarizes ? with_signs(given, binarize(result, given)) : given;
  result = with_batch(for_inference(result, outputs), batch);
  if (folded) *folded = fold_norms(result, outputs);
  result.info(output).spec.role = Role::exact;
  narrow(result, precision);
  if (precision.fuses) fuse(result, device, outputs);
  return result;
}

namespace {

/// The nodes of a step's beginning and end, over the values that each parameter has in stores.
class StepEnd {
 public:
  StepEnd(Graph& graph, const Parameters& parameters, const TrainerOptions& options)
      : graph_(graph), parameters_(parameters), options_(options), policy_(policy_of()) {}

  void add(int loss) {
    begin();
    check(loss);
    if (options_.accumulate > 1) accumulate();
    write(std::make_shared<Advance>(policy_), {}, {});
    const std::vector<Value> ranges = move_ranges();
    const auto groups = members(graph_, parameters_, options_.groups);
    for (std::size_t g = 0; g < groups.size(); ++g)
      if (!groups[g].empty()) update(groups[g], g);
    if (!ranges.empty()) graph_.add_writing(std::make_shared<SettleRanges>(), {}, ranges);
    const bool keeps = options_.accumulate > 1 && !graph_->statistics.empty();
    if (keeps) keep_statistics(false);
    add_commits(graph_);
    if (keeps) keep_statistics(true);
    if (options_.average_decay > 0) options_.lookahead > 0 ? look_ahead() : average();
    write(std::make_shared<Finish>(policy_), {}, {});
  }

 private:
  StepPolicy policy_of() const {
    StepPolicy policy{options_.precision.loss_scale, options_.schedule, options_.clip_norm, options_.accumulate, 0};
    for (const int i : trained()) policy.weights += parameters_.entries[at(i)].shape.elements();
    if (policy.weights == 0) fail("the loss depends on no trainable parameter");
    return policy;
  }

  /// Adds a node that also writes the step's state.
  void write(std::shared_ptr<const Op> op, const std::vector<Value>& inputs, std::vector<Value> outputs) {
    outputs.push_back(graph_.state());
    graph_.add_writing(std::move(op), inputs, outputs);
  }

  void begin() {
    write(std::make_shared<BeginMicroBatch>(), {}, {});
    std::rotate(graph_->nodes.begin(), graph_->nodes.end() - 1, graph_->nodes.end());
  }

  /// The value that a store holds for parameter `i`, made when it is first asked for.
  Value in(Store store, int i) {
    const ParameterInfo& info = graph_->parameters[at(i)];
    if (store == Store::weights) return graph_.value(info.value);
    if (store == Store::gradients) return graph_.value(info.gradient);
    const auto [known, is_new] = values_.try_emplace({store, i});
    const ParameterSlot& slot = parameters_.entries[at(i)];
    if (is_new)
      known->second =
          graph_.stored(name_in(store, slot.name), {slot.shape, slot.in(store)->storage, Role::exact}, store, i);
    return known->second;
  }

  std::vector<Value> all(Store store, const std::vector<int>& numbers) {
    std::vector<Value> values;
    for (int i : numbers) values.push_back(in(store, i));
    return values;
  }

  std::vector<int> trained() const {
    std::vector<int> numbers;
    for (std::size_t i = 0; i < parameters_.entries.size(); ++i)
      if (graph_->parameters[i].gradient >= 0) numbers.push_back(static_cast<int>(i));
    return numbers;
  }

  void check(int loss) {
    std::vector<Value> inputs = all(Store::gradients, trained());
    inputs.insert(inputs.begin(), graph_.value(loss));
    write(std::make_shared<CheckGradients>(trained()), inputs, {});
  }

  void accumulate() {
    write(std::make_shared<AccumulateGradients>(), all(Store::gradients, trained()),
          all(Store::accumulated, trained()));
  }

  /// All scales that move, as one value; none where there are none.
  std::vector<Value> move_ranges() {
    if (parameters_.ranges.empty()) return {};
    const auto bytes = static_cast<std::int64_t>(parameters_.bytes(Store::ranges));
    const Value ranges = graph_.stored("ranges", {Shape::vector(bytes), DType::u8, Role::exact}, Store::ranges);
    auto move = std::make_shared<MoveRanges>();
    for (const auto& range : parameters_.ranges)
      move->ranges.push_back(
          {range.storage.controller, range.storage.scaling == Scaling::range && !was_frozen(range.value), range.lasts});
    graph_.add_writing(move, {graph_.state()}, {ranges});
    return {ranges};
  }

  /// Whether a value is the weights or masters of a parameter that once was trained: nobody would write them by
  /// another scale.
  bool was_frozen(const std::string& value) const {
    for (std::size_t i = 0; i < parameters_.entries.size(); ++i) {
      const ParameterSlot& slot = parameters_.entries[i];
      if (slot.trainable && graph_->parameters[i].gradient < 0 &&
          (value == slot.name || value == name_in(Store::masters, slot.name)))
        return true;
    }
    return false;
  }

  void update(const std::vector<int>& numbers, std::size_t group) {
    auto op = std::make_shared<Update>();
    op->rule = options_.optimizer;
    if (group < options_.groups.size()) {
      op->rule = options_.groups[group].rule.value_or(options_.optimizer);
      op->learning_rate = options_.groups[group].learning_rate;
      op->limit = options_.groups[group].limit.value_or(op->limit);
      op->until = options_.groups[group].until;
    }
    op->policy = policy_;
    const int slots = std::visit([](const auto& rule) { return rule.slot_count(); }, op->rule);
    std::vector<Value> outputs;
    for (int i : numbers) {
      const ParameterSlot& slot = parameters_.entries[at(i)];
      outputs.push_back(in(slot.truth(), i));
      if (slots > 0) outputs.push_back(in(Store::slot0, i));
      if (slots > 1) outputs.push_back(in(Store::slot1, i));
      const Update::Updated updated{slot.in(Store::compensation).has_value(), slot.truth() != Store::weights};
      if (updated.compensated) outputs.push_back(in(Store::compensation, i));
      if (updated.has_copy) outputs.push_back(in(Store::weights, i));
      op->parameters.push_back(updated);
    }
    write(std::move(op), all(options_.accumulate > 1 ? Store::accumulated : Store::gradients, numbers),
          std::move(outputs));
  }

  /// Those that are or once were trained: an average still follows what has been frozen.
  std::vector<int> averaged() const {
    std::vector<int> numbers;
    for (std::size_t i = 0; i < parameters_.entries.size(); ++i)
      if (parameters_.entries[i].trainable) numbers.push_back(static_cast<int>(i));
    return numbers;
  }

  void average() {
    std::vector<Value> truths, averages;
    for (int i : averaged()) {
      truths.push_back(in(parameters_.entries[at(i)].truth(), i));
      averages.push_back(in(Store::average, i));
    }
    for (std::size_t i = 0; i < parameters_.statistics.size(); ++i) {
      truths.push_back(graph_.value(graph_->statistics[i].value));
      averages.push_back(statistic_in(Store::averaged_statistics, i));
    }
    graph_.add_writing(std::make_shared<AverageWeights>(options_.average_decay), truths, averages);
  }

  void look_ahead() {
    auto op = std::make_shared<Lookahead>(options_.average_decay, options_.lookahead, options_.schedule.total);
    std::vector<Value> truths, outputs;
    const auto add = [&](Value truth, Value average) {
      truths.push_back(truth);
      outputs.insert(outputs.end(), {average, truth});
      op->has_copy.push_back(false);
    };
    for (int i : averaged()) {
      const Store truth = parameters_.entries[at(i)].truth();
      add(in(truth, i), in(Store::average, i));
      if (truth == Store::weights) continue;
      outputs.push_back(in(Store::weights, i));
      op->has_copy.back() = true;
    }
    for (std::size_t i = 0; i < parameters_.statistics.size(); ++i)
      add(graph_.value(graph_->statistics[i].value), statistic_in(Store::averaged_statistics, i));
    graph_.add_writing(std::move(op), truths, outputs);
  }

  Value statistic_in(Store store, std::size_t i) {
    const auto& [name, shape, offset] = parameters_.statistics[i];
    return graph_.stored(name_in(store, name), {shape, DType::f32, Role::exact}, store, static_cast<int>(i));
  }

  void keep_statistics(bool back) {
    std::vector<Value> from, to;
    for (std::size_t i = 0; i < graph_->statistics.size(); ++i) {
      from.push_back(graph_.value(graph_->statistics[i].value));
      to.push_back(statistic_in(Store::kept_statistics, i));
    }
    if (back) std::swap(from, to);
    graph_.add_writing(std::make_shared<KeepStatistics>(back), from, to);
  }

  Graph& graph_;
  const Parameters& parameters_;
  const TrainerOptions& options_;
  StepPolicy policy_;
  std::map<std::pair<Store, int>, Value> values_;
};

}  // namespace

void add_step(Graph& graph, int loss, const Parameters& parameters, const TrainerOptions& options) {
  StepEnd(graph, parameters, options).add(loss);
}

}  // namespace halftone
