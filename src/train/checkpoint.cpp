#include "halftone/train/checkpoint.hpp"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
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

/// A tensor of a file as f32 numbers, after a check of its name, format, shape and numbers.
std::vector<float> f32_values(const SafeTensors& file, const std::string& name,
                              const std::vector<std::int64_t>& shape) {
  const StoredTensor& tensor = file.at(name);
  if (tensor.dtype != DType::f32 || tensor.shape != shape)
    throw FileError(fmt::format("{}: tensor {} is {} [{}], not f32 [{}]", file.file.string(), name,
                                name_of(tensor.dtype), fmt::join(tensor.shape, ", "), fmt::join(shape, ", ")));
  return file.numbers(name);
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

/// What no training leaves in its state, or nothing.
const char* fault_in(const StepState& s, const std::map<std::string, std::string>& metadata) {
  const auto told = [&](const char* key, const std::string& otherwise) {
    const auto found = metadata.find(key);
    return found == metadata.end() ? otherwise : found->second;
  };
  const auto within = [](auto value, auto least, auto most) { return value >= least && value <= most; };  // NaN is not
  constexpr std::int64_t most_steps = std::int64_t{1} << 40;  // random numbers are drawn for so many
  std::int64_t accumulate = std::numeric_limits<std::int32_t>::max();
  const std::string given = told("trainer.accumulate", "");
  std::from_chars(given.data(), given.data() + given.size(), accumulate);
  const auto steps = static_cast<double>(s.steps);

  if (!within(s.steps, 0, s.attempts) || s.attempts > most_steps) return "its counts of steps are impossible";
  if (told("attempts", "") != std::to_string(s.attempts)) return "its count of steps is not that of the metadata";
  if (told("trainer.seed", std::to_string(s.seed)) != std::to_string(s.seed))
    return "its seed is not that of the metadata";
  for (const float scale : {s.scale.scale, s.used_scale})
    if (!std::isnormal(scale) || scale < 0) return "its loss scale is not a positive, normal number";
  if (s.scale.good_steps < 0 || s.scale.bad_steps < 0 || s.scale.consecutive_skips < 0 || !within(s.scale.stop, 0, 1))
    return "its counts of the loss scale are impossible";
  if (!within(s.zero_gradient_shares, 0.0, steps) || !within(s.unchanged_weight_shares, 0.0, steps))
    return "its sums of shares are impossible";
  if (!within(s.micro_batch, 0, accumulate - 1) || !within(s.good_micro_batches, 0, accumulate))
    return "its counts of micro-batches are impossible";
  if (!std::isfinite(s.loss_sum) || s.zero_gradients < 0 || s.unchanged_weights < 0 || s.nonfinite < 0 ||
      s.nonfinite_total < 0)
    return "its findings of the last step are impossible";
  return nullptr;
}

StepState read_state(const SafeTensors& file) {
  const StoredTensor& stored = file.at(state_name);
  const auto refuse = [&](const char* why) {
    throw FileError(fmt::format("{}: tensor {}: {}", file.file.string(), state_name, why));
  };
  StepState step;
  if (stored.dtype != DType::u8) refuse("it does not hold bytes");
  if (stored.data.size() != sizeof step) refuse("it was written by another version");
  std::memcpy(&step, stored.data.data(), sizeof step);
  if (const char* fault = fault_in(step, file.metadata)) refuse(fault);
  return step;
}

struct Files {
  SafeTensors model, state;
};

/// Both files of a checkpoint, after a check that they belong together.
Files read_files(const std::filesystem::path& directory) {
  Files files{read_safetensors(directory / "model.safetensors"), read_safetensors(directory / "state.safetensors")};
  if (files.model.metadata != files.state.metadata)
    throw FileError(fmt::format("{}: model.safetensors and state.safetensors are of different moments or nets",
                                directory.string()));
  return files;
}

std::vector<float> read_flat(const SafeTensors& state, const char* store, const ParameterSlot& slot) {
  return f32_values(state, fmt::format("{}.{}", store, slot.name), file_shape(slot.shape, slot.rank));
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
  const auto [model, state] = read_files(directory);
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
        pending.push_back({parameters.element(store, slot), read_flat(state, name, slot)});
  if (state.tensors.size() != pending.size() + 1)
    throw FileError(fmt::format("{}: it was written for another optimizer", state.file.string()));
  const StepState step = read_state(state);
  put_model(numbers, parameters);
  for (const auto& p : pending) p.view.write(p.values);
  parameters.write_state(step);
}

void load_model(const std::filesystem::path& file, const Parameters& parameters) {
  put_model(read_model(read_safetensors(file), parameters), parameters);
}

void load_average(const std::filesystem::path& directory, const Parameters& parameters) {
  const SafeTensors state = read_files(directory).state;
  std::vector<std::vector<float>> values;
  for (const auto& slot : parameters.slots) values.push_back(read_flat(state, "average", slot));
  for (std::size_t i = 0; i < values.size(); ++i) parameters.assign(parameters.slots[i], values[i]);
}

}  // namespace halftone
