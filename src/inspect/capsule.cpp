#include "halftone/inspect/capsule.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <halftone/version.hpp>

#include "halftone/graph/core_ops.hpp"
#include "halftone/io/atomic_file.hpp"
#include "halftone/io/regular_file.hpp"
#include "halftone/io/safetensors.hpp"

namespace halftone {
namespace fs = std::filesystem;

namespace {

std::string crc_of(const void* data, std::size_t bytes) {
  return fmt::format("{:08x}", ::crc32_z(0, static_cast<const Bytef*>(data), bytes));
}

StoredTensor as_bytes(const std::string& name, std::vector<std::byte> bytes) {
  const auto count = static_cast<std::int64_t>(bytes.size());
  return {name, DType::u8, {count}, std::move(bytes)};
}

std::vector<std::byte> bytes_of(const StepState& state) {
  std::vector<std::byte> bytes(sizeof state);
  std::memcpy(bytes.data(), &state, sizeof state);
  return bytes;
}

SafeTensors read(const fs::path& directory) {
  const fs::path file = directory / "capsule.safetensors";
  SafeTensors capsule = read_safetensors(file);
  const auto& facts = capsule.metadata;
  const std::string version = text_at(facts, "version");
  if (version.empty() || !capsule.find("state_after")) throw FileError(file.string() + ": that is no capsule");
  if (version != halftone::version || capsule.at("state_after").data.size() != sizeof(StepState))
    throw FileError(fmt::format("{}: written by halftone {}, this is {}", file.string(), version, halftone::version));
  for (const StoredTensor& tensor : capsule.tensors)
    if (crc_of(tensor.data.data(), tensor.data.size()) != text_at(facts, "crc." + tensor.name))
      throw FileError(fmt::format("{}: damaged: {} is not what was written", file.string(), tensor.name));
  for (const char* name : {"state", "model"})
    if (const fs::path file = directory / fmt::format("{}.safetensors", name);
        checksum_of_file(file) != text_at(facts, fmt::format("crc.{}", name)))
      throw FileError(file.string() + ": damaged or of another capsule");
  return capsule;
}

std::optional<BadTensor> look(const Trainer& trainer, int id, const std::string& node, bool backward) {
  const ValueInfo& info = trainer.plan().graph().info(id);
  const std::vector<float> values = trainer.plan().view(id).read();
  const auto bad = [](float x) { return !std::isfinite(x); };
  const auto found = std::find_if(values.begin(), values.end(), bad);
  if (found == values.end()) return std::nullopt;
  constexpr std::int64_t beside = 3;
  BadTensor tensor{node, info.name, name_of(info.spec.role), backward, found - values.begin(), *found};
  tensor.first = std::max<std::int64_t>(tensor.index - beside, 0);
  tensor.around.assign(values.begin() + tensor.first,
                       values.begin() + std::min<std::int64_t>(tensor.index + beside + 1, std::ssize(values)));
  tensor.count = std::count_if(found, values.end(), bad);
  tensor.numbers = std::ssize(values);
  return tensor;
}

/// Inputs and outputs of all nodes, a line each.
std::string listing(const Graph& graph) {
  std::string text;
  const auto names = [&](const std::vector<int>& ids) {
    std::vector<std::string> all;
    for (const int id : ids)
      all.push_back(fmt::format("{} {} {}", graph.info(id).name, to_string(graph.info(id).spec.shape),
                                to_string(graph.info(id).spec.storage)));
    return fmt::format("{}", fmt::join(all, ", "));
  };
  for (const Node& node : graph->nodes)
    text += fmt::format("{} ({}): {} -> {}\n", node.name, node.op->name(), names(node.inputs), names(node.outputs));
  return text;
}

}  // namespace

std::string to_string(const BadTensor& t) {
  const std::string where =
      fmt::format("{}{}, role {}, {}", t.tensor, t.node.empty() || t.node == t.tensor ? "" : " of node " + t.node,
                  t.role, t.backward ? "backward" : "forward");
  if (t.index < 0) return where + ": a number that is not finite, stored in a code that has none";
  return fmt::format("{}: {} at index {}, {} of {} numbers are not finite; from index {} on: {}", where,
                     std::isnan(t.value) ? "NaN"
                     : t.value > 0       ? "infinity"
                                         : "-infinity",
                     t.index, t.count, t.numbers, t.first, fmt::join(t.around, ", "));
}

std::optional<BadTensor> first_bad_tensor(const Trainer& trainer) {
  if (!trainer.options().keep_values)
    fail("first_bad_tensor: the trainer keeps no values (TrainerOptions::keep_values)");
  const Graph graph = trainer.plan().graph();
  for (const int id : graph->inputs)
    if (auto bad = look(trainer, id, {}, false)) return bad;
  const std::int32_t hidden = trainer.parameters().read_state().bad_node;
  bool backward = false;
  for (std::size_t n = 0; n < graph->nodes.size(); ++n) {
    const Node& node = graph->nodes[n];
    backward = backward || dynamic_cast<const SeedGradient*>(node.op.get()) != nullptr;
    for (const int id : node.outputs) {
      const ValueInfo& info = graph.info(id);
      if (info.store != Store::none && info.store != Store::gradients) continue;  // state, and what lasts: it is finite
      if (auto bad = look(trainer, id, node.name, backward)) return bad;
      if (static_cast<std::int32_t>(n) == hidden)
        return BadTensor{node.name, info.name, name_of(info.spec.role), backward};
    }
  }
  return std::nullopt;
}

StepReport write_capsule(const fs::path& directory, Trainer& trainer, const StepState& before, const Metadata& facts) {
  if (trainer.options().accumulate > 1) fail("write_capsule: a step of several micro-batches cannot be repeated");
  make_folder(directory);
  const Graph graph = trainer.plan().graph();
  std::vector<std::vector<std::byte>> inputs;
  for (const int id : graph->inputs) inputs.push_back(trainer.plan().view(id).read_bytes());
  trainer.parameters().write_state(before);
  trainer.save(directory, facts);
  const StepReport report = trainer.step(std::vector<std::span<const std::byte>>(inputs.begin(), inputs.end()));
  std::vector<StoredTensor> tensors = {as_bytes("state_after", bytes_of(trainer.parameters().read_state()))};
  for (std::size_t i = 0; i < inputs.size(); ++i)
    tensors.push_back(as_bytes("input." + graph.info(graph->inputs[i]).name, std::move(inputs[i])));
  Metadata all = facts;
  all["version"] = halftone::version;
  for (const char* name : {"state", "model"})
    all[fmt::format("crc.{}", name)] = checksum_of_file(directory / fmt::format("{}.safetensors", name));
  for (const StoredTensor& tensor : tensors) all["crc." + tensor.name] = crc_of(tensor.data.data(), tensor.data.size());
  write_file(directory / "graph.txt", listing(graph));
  write_safetensors(directory / "capsule.safetensors", tensors, all);
  return report;
}

Metadata read_capsule(const fs::path& directory) { return read(directory).metadata; }

std::vector<std::byte> capsule_input(const fs::path& directory, const std::string& name) {
  return read(directory).at("input." + name).data;
}

Replay replay(const fs::path& directory, Trainer& trainer) {
  const SafeTensors capsule = read(directory);
  trainer.load(directory);
  const Graph graph = trainer.plan().graph();
  std::vector<std::span<const std::byte>> inputs;
  for (const int id : graph->inputs) inputs.push_back(capsule.at("input." + graph.info(id).name).data);
  Replay result;
  result.report = trainer.step(inputs);
  result.same_bits = bytes_of(trainer.parameters().read_state()) == capsule.at("state_after").data;
  result.first = first_bad_tensor(trainer);
  return result;
}

}  // namespace halftone
