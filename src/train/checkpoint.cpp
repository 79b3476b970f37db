#include "halftone/train/checkpoint.hpp"

#include <fmt/format.h>

#include <cstring>
#include <limits>

#include "halftone/io/safetensors.hpp"
#include "halftone/train/trainer.hpp"

namespace halftone {
namespace {

constexpr const char* state_name = "step_state";
constexpr const char* format = "halftone 1";

struct FlatStore {
  Store store;
  const char* name;
};
constexpr FlatStore flat_stores[] = {
    {Store::slot0, "slot0"}, {Store::slot1, "slot1"}, {Store::average, "average"}, {Store::accumulated, "accumulated"}};

std::vector<std::int64_t> file_shape(Shape s, int rank) {
  if (rank == 1) return {s.c};
  if (rank == 2) return {s.n, s.c};
  return {s.n, s.h, s.w, s.c};
}

StoredTensor f32_tensor(std::string name, std::vector<std::int64_t> shape, const std::vector<float>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {std::move(name), DType::f32, std::move(shape), {bytes.begin(), bytes.end()}};
}

/// A tensor of a file as f32 numbers, after a check of its name, format and shape.
std::vector<float> f32_values(const SafeTensors& file, const std::string& name,
                              const std::vector<std::int64_t>& shape) {
  const StoredTensor& tensor = file.at(name);
  if (tensor.dtype != DType::f32 || tensor.shape != shape)
    throw FileError(fmt::format("{}: tensor {} is {} [{}], not f32 [{}]", file.file.string(), name,
                                name_of(tensor.dtype), fmt::join(tensor.shape, ", "), fmt::join(shape, ", ")));
  std::vector<float> values(tensor.data.size() / sizeof(float));
  std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
  return values;
}

struct ModelNumbers {
  std::vector<std::vector<float>> parameters, statistics;
};

ModelNumbers read_model(const SafeTensors& file, const Parameters& parameters) {
  ModelNumbers numbers;
  for (const auto& slot : parameters.slots)
    numbers.parameters.push_back(f32_values(file, slot.name, file_shape(slot.shape, slot.rank)));
  for (const auto& s : parameters.statistics)
    numbers.statistics.push_back(f32_values(file, s.name, file_shape(s.shape, 1)));
  if (file.tensors.size() != parameters.slots.size() + parameters.statistics.size())
    throw FileError(fmt::format("{}: it holds {} tensors, the net has {}", file.file.string(), file.tensors.size(),
                                parameters.slots.size() + parameters.statistics.size()));
  return numbers;
}

void put_model(const ModelNumbers& numbers, const Parameters& parameters) {
  for (std::size_t i = 0; i < parameters.slots.size(); ++i)
    parameters.assign(parameters.slots[i], numbers.parameters[i]);
  for (std::size_t i = 0; i < parameters.statistics.size(); ++i) parameters.statistic(i).write(numbers.statistics[i]);
}

}  // namespace

void save_checkpoint(const std::filesystem::path& directory, const Parameters& parameters,
                     const std::map<std::string, std::string>& metadata) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (!std::filesystem::is_directory(directory))
    throw FileError(fmt::format("{}: the folder cannot be made", directory.string()));
  std::vector<StoredTensor> model, state;
  for (const auto& slot : parameters.slots) {
    model.push_back(f32_tensor(slot.name, file_shape(slot.shape, slot.rank), parameters.master(slot).read()));
    for (const auto& [store, name] : flat_stores)
      if (parameters.bytes(store) > 0)
        state.push_back(f32_tensor(fmt::format("{}.{}", name, slot.name), file_shape(slot.shape, slot.rank),
                                   parameters.element(store, slot).read()));
  }
  for (std::size_t i = 0; i < parameters.statistics.size(); ++i)
    model.push_back(f32_tensor(parameters.statistics[i].name, file_shape(parameters.statistics[i].shape, 1),
                               parameters.statistic(i).read()));
  const StepState step = parameters.read_state();
  const auto bytes = std::as_bytes(std::span(&step, 1));
  state.push_back({state_name, DType::u8, {static_cast<std::int64_t>(bytes.size())}, {bytes.begin(), bytes.end()}});
  std::map<std::string, std::string> named = metadata;
  named["format"] = format;
  named["attempts"] = std::to_string(step.attempts);
  // Both are on the disk before either takes its place, so that the old pair stays whole until the last moment.
  const std::filesystem::path names[] = {directory / "state.safetensors", directory / "model.safetensors"};
  const auto next = [](std::filesystem::path name) { return name += ".next"; };
  try {
    write_safetensors(next(names[0]), state, named);
    write_safetensors(next(names[1]), model, named);
    for (const auto& name : names) std::filesystem::rename(next(name), name);
  } catch (...) {
    for (const auto& name : names) std::filesystem::remove(next(name), error);
    throw;
  }
}

void load_checkpoint(const std::filesystem::path& directory, const Parameters& parameters,
                     const std::map<std::string, std::string>& expected) {
  const SafeTensors model = read_safetensors(directory / "model.safetensors"),
                    state = read_safetensors(directory / "state.safetensors");
  if (model.metadata != state.metadata)
    throw FileError(fmt::format("{}: model.safetensors and state.safetensors are of different moments or nets",
                                directory.string()));
  std::map<std::string, std::string> wanted = expected;
  wanted["format"] = format;
  for (const auto& [key, value] : wanted) {
    const auto found = state.metadata.find(key);
    if (found == state.metadata.end() || found->second != value)
      throw FileError(fmt::format("{}: its {} is {}, not {}", state.file.string(), key,
                                  found == state.metadata.end() ? "unknown" : found->second, value));
  }
  const ModelNumbers numbers = read_model(model, parameters);
  struct Pending {
    TensorView view;
    std::vector<float> values;
  };
  std::vector<Pending> pending;
  for (const auto& slot : parameters.slots)
    for (const auto& [store, name] : flat_stores)
      if (parameters.bytes(store) > 0)
        pending.push_back({parameters.element(store, slot), f32_values(state, fmt::format("{}.{}", name, slot.name),
                                                                       file_shape(slot.shape, slot.rank))});
  const StoredTensor& stored = state.at(state_name);
  StepState step;
  if (stored.data.size() != sizeof step || state.tensors.size() != pending.size() + 1)
    throw FileError(fmt::format("{}: it was written by another version or for another optimizer", state.file.string()));
  std::memcpy(&step, stored.data.data(), sizeof step);
  if (!(step.scale.scale > 0 && step.scale.scale <= std::numeric_limits<float>::max()) || step.steps < 0 ||
      step.attempts < step.steps || step.micro_batch < 0)
    throw FileError(fmt::format("{}: tensor {} holds no state of a training", state.file.string(), state_name));
  put_model(numbers, parameters);
  for (const auto& p : pending) p.view.write(p.values);
  parameters.write_state(step);
}

void load_model(const std::filesystem::path& file, const Parameters& parameters) {
  put_model(read_model(read_safetensors(file), parameters), parameters);
}

}  // namespace halftone
