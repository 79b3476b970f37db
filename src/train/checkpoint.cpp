#include "halftone/train/checkpoint.hpp"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "halftone/io/atomic_file.hpp"
#include "halftone/io/safetensors.hpp"
#include "halftone/version.hpp"
#include "src/train/state_fields.hpp"

namespace halftone {
namespace {

constexpr const char* format_key = "format";
constexpr const char* format = "halftone 2";

/// What a parameter has in the state of a checkpoint, each as it is stored.
constexpr Store lasting[] = {Store::weights, Store::masters,      Store::accumulated, Store::slot0,
                             Store::slot1,   Store::compensation, Store::average};

std::vector<std::int64_t> file_shape(Shape s, int rank) {
  if (rank == 1) return {s.c};
  if (rank == 2) return {s.n, s.c};
  return {s.n, s.h, s.w, s.c};
}

StoredTensor f32_tensor(std::string name, std::vector<std::int64_t> shape, const std::vector<float>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {std::move(name), DType::f32, std::move(shape), {bytes.begin(), bytes.end()}};
}

std::string join(std::span<const std::int64_t> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

/// What a file must hold, apart from the numbers themselves.
StoredTensor blank(const std::string& name, const TensorSpec& spec, int rank) {
  if (bits_of(spec.storage.code) % 8 != 0 || spec.storage.block > 0)  // packed: bytes to everybody else
    return {name, DType::u8, {static_cast<std::int64_t>(spec.bytes())}, {}};
  return {name, spec.storage.code, file_shape(spec.shape, rank), {}};
}

void check_format(const SafeTensors& file) {
  const auto found = file.metadata.find(format_key);
  const std::string text = found == file.metadata.end() ? "" : found->second;
  if (text == "halftone 1")
    throw FileError(fmt::format("{}: it was written by Halftone 0.1.0, whose checkpoints this version does not read",
                                file.file.string()));
  if (text != format) throw FileError(fmt::format("{}: it is no checkpoint of this version", file.file.string()));
}

/// The bytes of a tensor that is as `expected` says; numbers that are not finite are refused.
std::vector<std::byte> bytes_of(const SafeTensors& file, const StoredTensor& expected, const TensorSpec& spec) {
  const StoredTensor& tensor = file.at(expected.name);
  const auto refuse = [&](const std::string& why) {
    throw FileError(fmt::format("{}: tensor {} {}", file.file.string(), expected.name, why));
  };
  if (tensor.dtype != expected.dtype || tensor.shape != expected.shape)
    refuse(fmt::format("is {} {}, not {} {}", name_of(tensor.dtype), join(tensor.shape), name_of(expected.dtype),
                       join(expected.shape)));
  const std::int64_t count = spec.shape.elements();
  for (std::int64_t i = 0; i < count; ++i)
    if (!std::isfinite(read_number(spec.storage, tensor.data.data(), count, i)))
      refuse(fmt::format("holds a number that is not finite at place {}", i));
  return tensor.data;
}

std::vector<StoredTensor> model_tensors(const Parameters& parameters) {
  std::vector<StoredTensor> tensors;
  for (const auto& slot : parameters.slots) {
    const auto add = [&](const std::string& name, Store store) {
      tensors.push_back(f32_tensor(name, file_shape(slot.shape, slot.rank), parameters.view(store, slot).read()));
    };
    const bool averaged = slot.in(Store::average).has_value();
    add(slot.name, averaged ? Store::average : slot.truth());
    if (averaged) add("raw." + slot.name, slot.truth());
  }
  for (std::size_t i = 0; i < parameters.statistics.size(); ++i)
    tensors.push_back(f32_tensor(parameters.statistics[i].name, file_shape(parameters.statistics[i].shape, 1),
                                 parameters.statistic(i).read()));
  return tensors;
}

/// A tensor of memory that a checkpoint holds, and what a file calls it.
struct Kept {
  TensorView view;
  StoredTensor tensor;
};

/// All memory that a resume needs but for the step's state, in the order of the file.
std::vector<Kept> kept(const Parameters& parameters) {
  std::vector<Kept> result;
  const auto add = [&](const std::string& name, const TensorView& view, int rank) {
    result.push_back({view, blank(name, view.spec, rank)});
  };
  for (const auto& slot : parameters.slots)
    for (const Store store : lasting)
      if (slot.in(store)) add(fmt::format("{}.{}", name_of(store), slot.name), parameters.view(store, slot), slot.rank);
  for (std::size_t i = 0; i < parameters.statistics.size(); ++i)
    add("statistics." + parameters.statistics[i].name, parameters.statistic(i), 1);
  return result;
}

void check_identity(const SafeTensors& file, const Identity& identity) {
  for (const auto& [key, value] : identity) {
    const auto found = file.metadata.find(key);
    if (found != file.metadata.end() && found->second == value) continue;
    fail(fmt::format("{}: the checkpoint has {} {}, not {}", file.file.string(), key,
                     found == file.metadata.end() ? "unknown" : found->second, value));
  }
}

}  // namespace

void save_checkpoint(const std::filesystem::path& directory, const Parameters& parameters, const Metadata& model,
                     const Identity& identity) {
  make_folder(directory);
  Metadata of_state(identity.begin(), identity.end());
  of_state[format_key] = format;
  put_fields(parameters.read_state(), of_state);
  std::vector<StoredTensor> tensors;
  for (Kept& k : kept(parameters)) {
    k.tensor.data = k.view.read_bytes();
    tensors.push_back(std::move(k.tensor));
  }
  const auto ranges = parameters.read_ranges();
  for (std::size_t i = 0; i < ranges.size(); ++i) put_fields(ranges[i], parameters.ranges[i].value, of_state);
  write_safetensors(directory / "state.safetensors", tensors, of_state);
  save_model(directory, parameters, model);
}

void save_model(const std::filesystem::path& directory, const Parameters& parameters, const Metadata& model) {
  make_folder(directory);
  Metadata of_model = model;
  of_model[format_key] = format;
  of_model["version"] = version;
  of_model["weights"] = parameters.bytes(Store::average) > 0 ? "averaged" : "raw";
  write_safetensors(directory / "model.safetensors", model_tensors(parameters), of_model);
}

void load_checkpoint(const std::filesystem::path& directory, Parameters& parameters, const Identity& identity) {
  const SafeTensors file = read_safetensors(directory / "state.safetensors");
  check_format(file);
  check_identity(file, identity);
  auto memory = kept(parameters);
  for (Kept& k : memory) k.tensor.data = bytes_of(file, k.tensor, k.view.spec);
  if (file.tensors.size() != memory.size())
    throw FileError(fmt::format("{}: it holds {} tensors, this training has {}", file.file.string(),
                                file.tensors.size(), memory.size()));
  const auto take = [&](auto&& read) {
    try {
      return read();
    } catch (const Error& error) {
      throw FileError(fmt::format("{}: {}", file.file.string(), error.what()));
    }
  };
  const StepState step = take([&] { return step_state_of(file.metadata); });
  std::vector<RangeState> ranges;
  for (const auto& range : parameters.ranges)
    ranges.push_back(take([&] { return range_state_of(file.metadata, range.value); }));

  for (Kept& k : memory) k.view.write_bytes(k.tensor.data);
  parameters.write_state(step);
  parameters.write_ranges(ranges);
}

Metadata read_model_metadata(const std::filesystem::path& directory) {
  const SafeTensors file = read_safetensors(directory / "model.safetensors");
  check_format(file);
  return file.metadata;
}

void load_model(const std::filesystem::path& path, Parameters& parameters, ModelWeights which) {
  const SafeTensors file = read_safetensors(path);
  check_format(file);
  const auto numbers = [&](const std::string& name, const Shape& shape, int rank) {
    const TensorSpec spec{shape, DType::f32};
    bytes_of(file, blank(name, spec, rank), spec);
    return file.numbers(name);
  };
  std::vector<std::vector<float>> of_parameters, of_statistics;
  std::size_t tensors = 0;
  for (const auto& slot : parameters.slots) {
    of_parameters.push_back(numbers(slot.name, slot.shape, slot.rank));
    ++tensors;
    if (!file.find("raw." + slot.name)) continue;
    auto raw = numbers("raw." + slot.name, slot.shape, slot.rank);  // checked whichever is wanted
    if (which == ModelWeights::raw) of_parameters.back() = std::move(raw);
    ++tensors;
  }
  for (const auto& s : parameters.statistics) of_statistics.push_back(numbers(s.name, s.shape, 1));
  tensors += of_statistics.size();
  if (file.tensors.size() != tensors)
    throw FileError(
        fmt::format("{}: it holds {} tensors, the net has {}", file.file.string(), file.tensors.size(), tensors));
  for (std::size_t i = 0; i < of_parameters.size(); ++i) parameters.assign(parameters.slots[i], of_parameters[i]);
  for (std::size_t i = 0; i < of_statistics.size(); ++i) parameters.statistic(i).write(of_statistics[i]);
}

}  // namespace halftone
