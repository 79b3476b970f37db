#include "halftone/graph/kernel.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "halftone/graph/core_ops.hpp"
#include "halftone/graph/graph.hpp"

namespace halftone {
namespace {

bool is_packed(const ValueSpec& value) { return value.storage.granule() > 1; }

/// An f32 number in place of each that is packed.
std::vector<ValueSpec> unpacked(std::span<const ValueSpec> values) {
  std::vector<ValueSpec> result(values.begin(), values.end());
  for (ValueSpec& value : result)
    if (is_packed(value)) value.storage = DType::f32;
  return result;
}

/// A launch of `kernel` whose packed outputs go through f32 numbers at the workspace's end.
Launch make_packed(const Kernel& kernel, const Request& request) {
  struct Packing {
    std::size_t output, offset;  ///< of its f32 numbers in the workspace
    Launch cast;
  };
  const auto outputs = unpacked(request.outputs);
  Launch launch = kernel.make({request.op, request.inputs, outputs, request.device});
  std::size_t bytes = padded(launch.workspace), scratch = 0;
  std::vector<Packing> packings;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (!is_packed(request.outputs[i])) continue;
    const Cast op(request.outputs[i].storage);
    Choice cast = choose_kernel({op, {&outputs[i], 1}, {&request.outputs[i], 1}, request.device});
    scratch = std::max(scratch, cast.launch.workspace);
    packings.push_back({i, bytes, std::move(cast.launch)});
    bytes += padded(outputs[i].tensor().bytes());
  }
  auto memory = std::make_shared<std::vector<Memory>>(outputs.size());
  const auto in_turn = [packings = std::move(packings), memory, bytes](const auto& first, const auto& then,
                                                                       const Arguments& a) {
    const auto workspace = [&](std::size_t offset) { return static_cast<std::byte*>(a.workspace) + offset; };
    std::copy(a.outputs.begin(), a.outputs.end(), memory->begin());
    for (const Packing& p : packings) (*memory)[p.output].data = workspace(p.offset);
    if (first) first({a.inputs, *memory, a.workspace, a.state, a.stream});
    for (const Packing& p : packings)
      if (p.cast.*then)
        (p.cast.*
         then)({{&(*memory)[p.output], 1}, a.outputs.subspan(p.output, 1), workspace(bytes), a.state, a.stream});
  };
  return {.run = [=, inner = launch.run](const Arguments& a) { in_turn(inner, &Launch::run, a); },
          .workspace = bytes + scratch,
          .on_host = launch.on_host,
          .prepare = [=, inner = launch.prepare](const Arguments& a) { in_turn(inner, &Launch::prepare, a); }};
}

std::string declined_by(const Kernel& kernel, const Request& request) {
  return kernel.decline ? kernel.decline(request) : std::string();
}

}  // namespace

std::span<const Kernel> KernelTable::find(const Op& op) const {
  const auto found = lists_.find(typeid(op));
  return found == lists_.end() ? std::span<const Kernel>() : std::span<const Kernel>(found->second.kernels);
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
  const bool packed = std::any_of(request.outputs.begin(), request.outputs.end(), is_packed);
  for (const Kernel& kernel : request.device.backend().kernels().find(request.op)) {
    if (const std::string reason = declined_by(kernel, request); !reason.empty()) {
      choice.declined.push_back(fmt::format("{}/{}: {}", operation, kernel.name, reason));
      continue;
    }
    choice.kernel = operation + "/" + kernel.name;
    choice.launch = packed && !kernel.packs ? make_packed(kernel, request) : kernel.make(request);
    break;
  }
  return choice;
}

Choice choose_kernel(const Graph& graph, const Node& node, const Device& device) {
  const auto inputs = graph.specs(node.inputs), outputs = graph.specs(node.outputs);
  return choose_kernel({*node.op, inputs, outputs, device});
}

}  // namespace halftone
