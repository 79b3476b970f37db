#include "halftone/graph/kernel.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "halftone/graph/core_ops.hpp"
#include "halftone/graph/graph.hpp"

namespace halftone {
namespace {

/// The values of one side of a launch: those that its kernel does not take are f32 numbers in the workspace.
struct Staged {
  struct Value {
    std::size_t index, offset;
    Launch cast;
  };
  std::vector<ValueSpec> specs;
  std::vector<Value> values = {};
  std::shared_ptr<std::vector<Memory>> memory;  ///< where the kernel finds all values

  void bind(std::span<const Memory> given, void* workspace) const {
    std::copy(given.begin(), given.end(), memory->begin());
    for (const Value& value : values) (*memory)[value.index] = {static_cast<std::byte*>(workspace) + value.offset};
  }
};

/// The cast between a value and the f32 numbers that stand for it.
struct Staging {
  ValueSpec stored, numbers;
  Cast op;
  bool is_input;

  Staging(const ValueSpec& value, bool is_input)
      : stored(value),
        numbers{value.shape, DType::f32, Role::exact},  // the cast sees whether activations stay finite
        op(is_input ? Storage() : value.storage),
        is_input(is_input) {}
  Request request(const Device& device) const {
    const std::span<const ValueSpec> from(is_input ? &stored : &numbers, 1), to(is_input ? &numbers : &stored, 1);
    return {op, from, to, device};
  }
};

/// A launch of `kernel` between casts.
Launch make_staged(const Kernel& kernel, const Request& request) {
  std::size_t bytes = 0, scratch = 0;
  const auto side = [&](std::span<const ValueSpec> given, Takes takes, bool are_inputs) {
    Staged staged{{given.begin(), given.end()}, {}, std::make_shared<std::vector<Memory>>(given.size())};
    for (std::size_t i = 0; i < given.size(); ++i) {
      if (takes(given[i].storage)) continue;
      const Staging staging(given[i], are_inputs);
      staged.specs[i] = staging.numbers;
      staged.values.push_back({i, bytes, choose_kernel(staging.request(request.device)).launch});
      bytes += padded(staging.numbers.tensor().bytes());
      scratch = std::max(scratch, staged.values.back().cast.workspace);
    }
    return staged;
  };
  const Staged inputs = side(request.inputs, kernel.reads, true), outputs = side(request.outputs, kernel.writes, false);
  Launch launch = kernel.make({request.op, inputs.specs, outputs.specs, request.device});
  const auto in_turn = [inputs, outputs, bytes](const auto& inner, auto of_cast, const Arguments& a) {
    void* const rest = static_cast<std::byte*>(a.workspace) + bytes;
    const auto cast = [&](const Staged::Value& value, std::span<const Memory> from, std::span<const Memory> to) {
      if (value.cast.*of_cast)
        (value.cast.*of_cast)({from.subspan(value.index, 1), to.subspan(value.index, 1), rest, a.state, a.stream});
    };
    inputs.bind(a.inputs, a.workspace);
    outputs.bind(a.outputs, a.workspace);
    for (const auto& value : inputs.values) cast(value, a.inputs, *inputs.memory);
    if (inner) inner({*inputs.memory, *outputs.memory, rest, a.state, a.stream});
    for (const auto& value : outputs.values) cast(value, *outputs.memory, a.outputs);
  };
  int overwrites = -1;  // where output 0 is staged it is written when all inputs have been read
  for (std::size_t i = request.inputs.size(); i-- > 0 && !outputs.values.empty() && outputs.values[0].index == 0;)
    if (request.inputs[i].tensor().bytes() == request.outputs[0].tensor().bytes()) overwrites = static_cast<int>(i);
  return {.run = [=, inner = launch.run](const Arguments& a) { in_turn(inner, &Launch::run, a); },
          .workspace = bytes + std::max(launch.workspace, scratch),
          .overwrites = overwrites,
          .on_host = launch.on_host,
          .prepare = [=, inner = launch.prepare](const Arguments& a) { in_turn(inner, &Launch::prepare, a); }};
}

std::string declined_by(const Kernel& kernel, const Request& request) {
  if (std::string reason = kernel.decline ? kernel.decline(request) : ""; !reason.empty()) return reason;
  const auto castable = [&](std::span<const ValueSpec> values, Takes takes, bool are_inputs) {
    return std::all_of(values.begin(), values.end(), [&](const ValueSpec& value) {
      return takes(value.storage) || has_kernel(Staging(value, are_inputs).request(request.device));
    });
  };
  if (castable(request.inputs, kernel.reads, true) && castable(request.outputs, kernel.writes, false)) return {};
  return "a storage that it does not take, and no cast does";
}

}  // namespace

bool Kernel::takes(const Request& request) const {
  const auto all = [](std::span<const ValueSpec> values, Takes takes) {
    return std::all_of(values.begin(), values.end(), [&](const ValueSpec& value) { return takes(value.storage); });
  };
  return all(request.inputs, reads) && all(request.outputs, writes);
}

std::span<const Kernel> KernelTable::find(const Op& op) const {
  const auto found = lists_.find(typeid(op));
  return found == lists_.end() ? std::span<const Kernel>() : std::span<const Kernel>(found->second.kernels);
}

std::vector<ValueSpec> as_read(std::vector<ValueSpec> inputs) {
  for (ValueSpec& input : inputs) input.storage.noticed = false;
  return inputs;
}

bool has_kernel(const Request& request) {
  const auto kernels = request.device.backend().kernels().find(request.op);
  return std::any_of(kernels.begin(), kernels.end(),
                     [&](const Kernel& kernel) { return declined_by(kernel, request).empty(); }) ||
         request.op.lower(request).run;
}

Choice choose_kernel(const Request& request) {
  const std::string operation = request.op.name();
  Choice choice;
  if (Launch own = request.op.lower(request); own.run) return {operation + "/own", std::move(own), {}};
  for (const Kernel& kernel : request.device.backend().kernels().find(request.op)) {
    if (const std::string reason = declined_by(kernel, request); !reason.empty()) {
      choice.declined.push_back(fmt::format("{}/{}: {}", operation, kernel.name, reason));
      continue;
    }
    choice.kernel = operation + "/" + kernel.name;
    choice.launch = kernel.takes(request) ? kernel.make(request) : make_staged(kernel, request);
    break;
  }
  return choice;
}

Choice choose_kernel(const Graph& graph, const Node& node, const Device& device) {
  const auto inputs = as_read(graph.specs(node.inputs)), outputs = graph.specs(node.outputs);
  return choose_kernel({*node.op, inputs, outputs, device});
}

}  // namespace halftone
