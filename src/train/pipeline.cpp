#include "halftone/train/pipeline.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "halftone/graph/differentiate.hpp"
#include "halftone/graph/fuse.hpp"
#include "halftone/ops/step.hpp"

namespace halftone {
namespace {

/// A whole store as one value of bytes.
Value whole(Graph& graph, const Parameters& parameters, Store store, const char* name) {
  return graph.stored(name, {Shape::vector(static_cast<std::int64_t>(parameters.bytes(store))), DType::u8, Role::exact},
                      store);
}

bool fits(const ParameterGroup& group, const std::string& name) {
  return in_scope(name, group.scope) && name.ends_with(group.ending);
}

/// The group of each parameter; the number of groups stands for the trainer's own rule.
std::vector<std::vector<int>> members(const Parameters& parameters, const std::vector<ParameterGroup>& groups) {
  std::vector<std::vector<int>> result(groups.size() + 1);
  for (std::size_t i = 0; i < parameters.slots.size(); ++i) {
    std::size_t g = 0;
    while (g < groups.size() && !fits(groups[g], parameters.slots[i].name)) ++g;
    if (parameters.slots[i].trainable) result[g].push_back(static_cast<int>(i));
  }
  for (std::size_t g = 0; g < groups.size(); ++g)
    if (result[g].empty())
      fail(fmt::format("parameter group {}: no parameter's name begins with \"{}\" and ends with \"{}\"", g + 1,
                       groups[g].scope, groups[g].ending));
  return result;
}

}  // namespace

Graph for_training(const Graph& graph, int loss, const Precision& precision, const Device& device) {
  for (const auto& exception : precision.exceptions) {
    const auto fits = [&](const auto& named) { return in_scope(named.name, exception.scope); };
    if (std::none_of(graph.nodes.begin(), graph.nodes.end(), fits) &&
        std::none_of(graph.parameters.begin(), graph.parameters.end(), fits))
      fail(fmt::format("precision exception: no node and no parameter lies in \"{}\"", exception.scope));
  }
  Graph result = graph;
  differentiate(result, result.value(loss));
  std::vector<int> wanted = {loss};
  for (const auto& parameter : result.parameters)
    if (parameter.gradient >= 0) wanted.push_back(parameter.gradient);
  prune(result, wanted);
  narrow(result, precision);
  fuse(result, device, wanted);
  return result;
}

Graph for_evaluation(const Graph& graph, int output, std::int64_t batch, const Precision& precision,
                     const Device& device) {
  const int outputs[] = {output};
  Graph result = with_batch(for_inference(graph, outputs), batch);
  result.info(output).spec.role = Role::exact;
  narrow(result, precision);
  fuse(result, device, outputs);
  return result;
}

void add_step(Graph& graph, int loss, const Parameters& parameters, const TrainerOptions& options) {
  const auto segments = segments_of(parameters);
  std::int64_t weights = 0;
  for (const Segment& segment : segments) weights += segment.count;
  if (weights == 0) fail("the loss depends on no trainable parameter");
  const StepPolicy policy{options.precision.loss_scale, options.schedule, options.clip_norm, options.accumulate,
                          weights};

  const Value gradients = whole(graph, parameters, Store::gradients, "gradients");
  const Value masters = whole(graph, parameters, parameters.has_masters() ? Store::masters : Store::weights, "masters");
  const Value working = whole(graph, parameters, Store::weights, "weights");
  const Value slot0 = whole(graph, parameters, Store::slot0, "slot0"),
              slot1 = whole(graph, parameters, Store::slot1, "slot1");
  Value source = gradients;
  graph.add_writing(std::make_shared<CheckGradients>(segments), {gradients, graph.value(loss)}, {});
  if (options.accumulate > 1) {
    source = whole(graph, parameters, Store::accumulated, "accumulated");
    graph.add_writing(std::make_shared<AccumulateGradients>(segments), {gradients}, {source});
  }
  graph.add_writing(std::make_shared<Advance>(policy), {}, {});

  const auto groups = members(parameters, options.groups);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    if (groups[g].empty()) continue;
    auto update = std::make_shared<Update>();
    update->rule = options.optimizer;
    if (g < options.groups.size()) {
      update->rule = options.groups[g].rule.value_or(options.optimizer);
      update->learning_rate = options.groups[g].learning_rate;
    }
    update->segments = segments_of(parameters, groups[g]);
    update->policy = policy;
    update->masters = parameters.has_masters();
    graph.add_writing(update, {source}, {masters, working, slot0, slot1});
  }
  add_commits(graph);
  if (options.average_decay > 0)
    graph.add_writing(std::make_shared<AverageWeights>(options.average_decay, segments, parameters.has_masters()),
                      {masters}, {whole(graph, parameters, Store::average, "average")});
  graph.add_writing(std::make_shared<Finish>(policy), {}, {});
}

}  // namespace halftone
