#include "kernels/cuda/staging.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include "halftone/graph/core_ops.hpp"
#include "kernels/cuda/table.hpp"

namespace halftone::cuda {
namespace {

bool is_read(const ValueSpec& value) { return is_known(value.storage); }
bool is_written(const ValueSpec& value) { return is_compiled(value.storage); }

/// A value that is f32 in the workspace while the kernel runs.
struct Staged {
  std::size_t value, offset;
  Launch cast;
};

/// Values with f32 numbers in place of those that are not known, and the way between.
struct Stage {
  std::vector<ValueSpec> values;
  std::vector<Staged> staged;

  Stage(std::span<const ValueSpec> given, const Device& device, bool are_inputs, std::size_t& bytes)
      : values(given.begin(), given.end()) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (are_inputs ? is_read(values[i]) : is_written(values[i])) continue;
      values[i] = {values[i].shape, DType::f32, Role::exact};
      const Cast op(are_inputs ? Storage() : given[i].storage);
      const std::span<const ValueSpec> stored(&given[i], 1), numbers(&values[i], 1);
      const Request request{op, are_inputs ? stored : numbers, are_inputs ? numbers : stored, device};
      staged.push_back({i, bytes, cast(request)});
      bytes += (values[i].tensor().bytes() + 127) / 128 * 128;
    }
  }
  std::vector<Memory> memory(std::span<const Memory> given, void* workspace) const {
    std::vector<Memory> memory(given.begin(), given.end());
    for (const Staged& s : staged) memory[s.value] = {static_cast<std::byte*>(workspace) + s.offset};
    return memory;
  }
};

}  // namespace

std::string decline_staging(const Request& request) {
  for (const ValueSpec& output : request.outputs) {
    const Cast op(output.storage);
    const ValueSpec numbers{output.shape, DType::f32, Role::exact};
    if (const auto why = decline_cast({op, {&numbers, 1}, {&output, 1}, request.device}); !why.empty()) return why;
  }
  return {};
}

Launch stage(const Request& request, Launch (*factory)(const Request&)) {
  if (std::all_of(request.inputs.begin(), request.inputs.end(), is_read) &&
      std::all_of(request.outputs.begin(), request.outputs.end(), is_written))
    return factory(request);
  std::size_t bytes = 0;
  const Stage inputs(request.inputs, request.device, true, bytes),
      outputs(request.outputs, request.device, false, bytes);
  const Launch inner = factory({request.op, inputs.values, outputs.values, request.device});
  const auto in_turn = [=](const Arguments& a, bool runs) {
    const auto in = inputs.memory(a.inputs, a.workspace), out = outputs.memory(a.outputs, a.workspace);
    const Arguments own{in, out, static_cast<std::byte*>(a.workspace) + bytes, a.state, a.stream};
    if (!runs) return inner.prepare ? inner.prepare(own) : void();
    for (const Staged& s : inputs.staged)
      s.cast.run({a.inputs.subspan(s.value, 1), std::span(in).subspan(s.value, 1), nullptr, a.state, a.stream});
    inner.run(own);
    for (const Staged& s : outputs.staged)
      s.cast.run({std::span(out).subspan(s.value, 1), a.outputs.subspan(s.value, 1), nullptr, a.state, a.stream});
  };
  return {.run = [in_turn](const Arguments& a) { in_turn(a, true); },
          .workspace = bytes + inner.workspace,
          .prepare = [in_turn](const Arguments& a) { in_turn(a, false); }};
}

}  // namespace halftone::cuda
