#include "halftone/graph/plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <numeric>

#include "halftone/graph/core_ops.hpp"

namespace halftone {
namespace {

/// Streams of random numbers that values round with; lower ones are operations'.
constexpr std::uint32_t value_streams = 0x80000000u;

/// A net as it was written runs as in training, which a plan for its outputs must not do unasked.
void check_purpose(const Graph& graph) {
  const auto trains = [](const Node& node) { return dynamic_cast<const SeedGradient*>(node.op.get()) != nullptr; };
  if (graph->evaluates || std::any_of(graph->nodes.begin(), graph->nodes.end(), trains)) return;
  for (const Node& node : graph->nodes)
    if (node.op->inference())
      fail(fmt::format("{}: it would run as in training, and the graph is neither differentiated nor for_inference's",
                       node.name));
}

int root_of(const std::vector<int>& root, int id) {
  while (root[at(id)] != id) id = root[at(id)];
  return id;
}

}  // namespace

Plan::Plan(const Graph& graph, const Parameters& parameters, std::span<const int> keep)
    : graph_(graph.clone()), parameters_(parameters) {
  check_purpose(graph_);
  parameters_.place(graph_);
  if (graph_->evaluates) {
    make_state();
    widen_unknown();
  }
  for (const Pass pass : parameters_.device().backend().kernels().passes()) pass(graph_, parameters_.device(), keep);
  std::vector<int> root(graph_->values.size());  // the value whose memory a value shares
  std::iota(root.begin(), root.end(), 0);
  choose(root);
  place(root, keep);
  bind();
  capture();
}

/// An evaluation draws the same random numbers every time, whatever the step.
void Plan::make_state() {
  StepState state;
  state.seed = parameters_.read_state().seed;
  state.steps = -2;  // no training reaches it, and birth draws by -1
  state_ = Buffer(parameters_.device(), sizeof state);
  parameters_.device().backend().upload(state_.data(), &state, sizeof state);
}

/// What training did not compute has no range that was found: f32.
void Plan::widen_unknown() {
  for (const Node& node : graph_->nodes)
    for (const int id : node.outputs) {
      ValueInfo& value = graph_.info(id);
      Storage& storage = value.spec.storage;
      if (node.op->is_view()) {
        storage = graph_.info(node.inputs[0]).spec.storage;
      } else if (storage.scaling == Scaling::range && !parameters_.range(value.name)) {
        storage = DType::f32;
      }
    }
}

void Plan::capture() {
  for (std::size_t first = 0, end = 0; first < steps_.size(); first = end) {
    const bool on_host = steps_[first].launch.on_host;
    end = first + 1;
    while (end < steps_.size() && !on_host && !steps_[end].launch.on_host) ++end;
    const auto run = [this, first, end] {
      for (std::size_t s = first; s < end; ++s) steps_[s].launch.run(arguments(steps_[s]));
    };
    replays_.push_back(on_host ? run : parameters_.device().backend().capture(run));
  }
}

void Plan::choose(std::vector<int>& root) {
  for (std::size_t n = 0; n < graph_->nodes.size(); ++n) {
    const Node& node = graph_->nodes[n];
    if (node.op->is_view()) {
      root[at(node.outputs[0])] = root_of(root, node.inputs[0]);
      continue;
    }
    Choice choice = choose_kernel(graph_, node, parameters_.device());
    if (choice.kernel.empty())
      fail(fmt::format("{}: no kernel on {} for {}{}{}", node.name, parameters_.device().backend().name(),
                       node.op->name(), choice.declined.empty() ? "" : "; ", fmt::join(choice.declined, "; ")));
    steps_.push_back({std::move(choice.launch), {}, {}});
    step_nodes_.push_back(static_cast<int>(n));
    reports_.push_back({n, node.name, choice.kernel, choice.declined});
  }
}

void Plan::place(const std::vector<int>& root, std::span<const int> keep) {
  const int end = static_cast<int>(steps_.size());
  std::vector<int> first(graph_->values.size(), end), last(graph_->values.size(), -1);
  const auto touch = [&](int id, int step) {
    const int r = root_of(root, id);
    first[at(r)] = std::min(first[at(r)], step);
    last[at(r)] = std::max(last[at(r)], step);
  };
  readable_.assign(graph_->values.size(), false);
  for (int id : graph_->inputs) touch(id, 0), touch(id, end), readable_[at(id)] = true;
  for (int s = 0; s < end; ++s) {
    for (int id : graph_->nodes[at(step_nodes_[at(s)])].inputs) touch(id, s);
    for (int id : graph_->nodes[at(step_nodes_[at(s)])].outputs) touch(id, s);
  }
  for (int id : keep) touch(id, end), readable_[at(id)] = true;
  std::vector<bool> written(graph_->values.size(), false);
  for (int id : graph_->inputs) written[at(id)] = true;
  for (const Node& node : graph_->nodes)
    for (int id : node.outputs) written[at(id)] = true;
  for (std::size_t id = 0; id < written.size(); ++id)
    if (!written[id] && last[id] >= 0 && graph_->values[id].store == Store::none)
      fail(fmt::format("{}: it is read, but no node computes it", graph_->values[id].name));

  // An output may take the memory of an input that dies with this launch and is no smaller.
  std::vector<int> host(graph_->values.size());
  std::iota(host.begin(), host.end(), 0);
  const auto bytes_of = [&](int id) { return padded(graph_.info(id).spec.tensor().bytes()); };
  for (int s = 0; s < end; ++s) {
    const Node& node = graph_->nodes[at(step_nodes_[at(s)])];
    if (steps_[at(s)].launch.overwrites < 0) continue;
    const int input = root_of(root, node.inputs[at(steps_[at(s)].launch.overwrites)]);
    const int output = root_of(root, node.outputs[0]);
    const int memory = root_of(host, input);
    const bool lasting = graph_.info(input).store != Store::none || graph_.info(output).store != Store::none;
    const bool read_twice =
        std::count_if(node.inputs.begin(), node.inputs.end(), [&](int id) { return root_of(root, id) == input; }) > 1;
    if (lasting || read_twice || last[at(input)] != s || first[at(output)] != s || bytes_of(output) > bytes_of(memory))
      continue;
    host[at(output)] = memory;
    last[at(memory)] = std::max(last[at(memory)], last[at(output)]);
  }
  for (std::size_t id = 0; id < root.size(); ++id) {
    const int value = static_cast<int>(id);
    if (root[id] == value && host[id] == value && last[id] >= 0 && graph_->values[id].store == Store::none)
      placements_.push_back({value, 0, bytes_of(value), first[id], last[id]});
  }
  arena_ = Buffer(parameters_.device(), place_intervals(placements_));
  memory_.assign(graph_->values.size(), {});
  for (const Placement& placement : placements_) memory_[at(placement.value)].data = arena_.data() + placement.offset;
  for (std::size_t id = 0; id < root.size(); ++id) {
    const int own = root_of(root, static_cast<int>(id));
    const auto& value = graph_.info(own);
    if (value.store != Store::none) {
      memory_[id].data = parameters_.data(value.store) + value.offset;
      readable_[id] = true;
    } else {
      memory_[id].data = memory_[at(root_of(host, own))].data;
    }
    if (value.spec.storage.has_range()) memory_[id].range = parameters_.range(value.name);
    memory_[id].stream = value_streams | static_cast<std::uint32_t>(value.same_as >= 0 ? value.same_as : own);
  }
}

void Plan::bind() {
  std::size_t workspace = 0;
  for (std::size_t s = 0; s < steps_.size(); ++s) {
    const Node& node = graph_->nodes[at(step_nodes_[s])];
    for (int id : node.inputs) steps_[s].inputs.push_back(memory_[at(id)]);
    for (int id : node.outputs) {
      steps_[s].outputs.push_back(memory_[at(id)]);
      steps_[s].outputs.back().node = step_nodes_[s];
    }
    workspace = std::max(workspace, steps_[s].launch.workspace);
  }
  workspace_ = Buffer(parameters_.device(), workspace);
  for (const Step& step : steps_)
    if (step.launch.prepare) step.launch.prepare(arguments(step));
}

Arguments Plan::arguments(const Step& step) const {
  StepState* state = state_.bytes() > 0 ? reinterpret_cast<StepState*>(state_.data()) : parameters_.state();
  return {step.inputs, step.outputs, workspace_.data(), state, parameters_.device().backend().stream()};
}

TensorView Plan::view(int id) const {
  if (id < 0 || at(id) >= memory_.size() || !memory_[at(id)].data || !readable_[at(id)])
    fail(fmt::format("value {} is not kept by this plan",
                     id < 0 || at(id) >= memory_.size() ? std::to_string(id) : graph_.info(id).name));
  return {graph_.info(id).spec.tensor(), memory_[at(id)].data, &parameters_.device().backend(), memory_[at(id)].range};
}

std::vector<double> Plan::profile() const {
  std::vector<double> seconds;
  Backend& backend = parameters_.device().backend();
  for (const Step& step : steps_) {
    backend.synchronize();
    const auto began = std::chrono::steady_clock::now();
    step.launch.run(arguments(step));
    backend.synchronize();
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
  }
  return seconds;
}

std::size_t place_intervals(std::vector<Plan::Placement>& intervals) {
  std::vector<std::size_t> order(intervals.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return intervals[a].bytes > intervals[b].bytes; });
  std::vector<std::size_t> placed;  // by offset
  std::size_t total = 0;
  for (std::size_t i : order) {
    Plan::Placement& interval = intervals[i];
    std::size_t offset = 0;
    for (std::size_t j : placed) {
      const Plan::Placement& other = intervals[j];
      if (other.last < interval.first || interval.last < other.first) continue;
      if (other.offset >= offset + interval.bytes) break;
      offset = std::max(offset, padded(other.offset + other.bytes));
    }
    interval.offset = offset;
    total = std::max(total, padded(offset + interval.bytes));
    placed.insert(
        std::upper_bound(placed.begin(), placed.end(), i,
                         [&](std::size_t a, std::size_t b) { return intervals[a].offset < intervals[b].offset; }),
        i);
  }
  return total;
}

}  // namespace halftone
