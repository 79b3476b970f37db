#include "halftone/train/checkpoint.hpp"

#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "halftone/io/atomic_file.hpp"
#include "halftone/version.hpp"
#include "src/train/model_format.hpp"
#include "src/train/state_fields.hpp"

namespace halftone {
namespace {

/// What a parameter has in the state of a checkpoint, each as it is stored.
constexpr Store lasting[] = {Store::weights, Store::masters,      Store::accumulated, Store::slot0,
                             Store::slot1,   Store::compensation, Store::average};

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

[[noreturn]] void refuse_version(const SafeTensors& file) {
  throw FileError(fmt::format("{}: it is no checkpoint of this version", file.file.string()));
}

void check_format(const SafeTensors& file) {
  if (!is_own(file)) refuse_version(file);
}

/// The place of the first number that is not finite.
std::optional<std::int64_t> first_bad(std::span<const std::byte> data, const TensorSpec& spec) {
  for (std::int64_t i = 0, count = spec.shape.elements(); i < count; ++i)
    if (!std::isfinite(read_number(spec.storage, data.data(), count, i))) return i;
  return std::nullopt;
}

/// What could not be loaded replaces nothing.
void check_finite(const std::filesystem::path& directory, const std::string& name, std::span<const std::byte> data,
                  const TensorSpec& spec) {
  if (const auto bad = first_bad(data, spec))
    throw Failure(fmt::format("{}: not written, {} holds a number that is not finite at place {}", directory.string(),
                              name, *bad));
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
  if (const auto bad = first_bad(tensor.data, spec))
    refuse(fmt::format("holds a number that is not finite at place {}", *bad));
  return tensor.data;
}

/// A tensor of a model: as it was trained and, where averages are kept, as it is best used.
struct ModelTensor {
  std::string name;
  int rank;
  TensorView trained;
  std::optional<TensorView> average;
};

std::vector<ModelTensor> model_of(const Parameters& parameters) {
  std::vector<ModelTensor> tensors;
  const bool averaged = parameters.bytes(Store::average) > 0;
  for (const auto& slot : parameters.entries) {
    tensors.push_back({slot.name, slot.rank, parameters.truth(slot), {}});
    if (averaged) tensors.back().average = parameters.view(Store::average, slot);
  }
  for (std::size_t i = 0; i < parameters.statistics.size(); ++i) {
    tensors.push_back({parameters.statistics[i].name, 1, parameters.statistic(i), {}});
    if (averaged) tensors.back().average = parameters.statistic(i, Store::averaged_statistics);
  }
  return tensors;
}

/// What a model's file says of itself.
Metadata described(const Parameters& parameters, Metadata model) {
  model[format_key] = own_format;
  model["version"] = version;
  const auto ranges = parameters.read_ranges();
  for (std::size_t i = 0; i < ranges.size(); ++i)
    if (parameters.ranges[i].storage.scaling == Scaling::range) put_scale(ranges[i], parameters.ranges[i].value, model);
  return model;
}

/// A tensor of memory that a checkpoint holds, and what a file calls it.
struct Kept {
  TensorView view;
  StoredTensor tensor;
};

/// All memory that a resume needs but for the step's state, in the order of the file. Sums of gradients and what
/// statistics were count only within a step.
std::vector<Kept> kept(const Parameters& parameters, bool within_a_step) {
  std::vector<Kept> result;
  const auto add = [&](const std::string& name, const TensorView& view, int rank) {
    result.push_back({view, blank(name, view.spec, rank)});
  };
  for (const auto& slot : parameters.entries)
    for (const Store store : lasting)
      if (slot.in(store) && (store != Store::accumulated || within_a_step))
        add(fmt::format("{}.{}", name_of(store), slot.name), parameters.view(store, slot), slot.rank);
  for (std::size_t i = 0; i < parameters.statistics.size(); ++i)
    for (const Store store : {Store::statistics, Store::averaged_statistics, Store::kept_statistics})
      if (parameters.bytes(store) > 0 && (store != Store::kept_statistics || within_a_step))
        add(fmt::format("{}.{}", name_of(store), parameters.statistics[i].name), parameters.statistic(i, store), 1);
  return result;
}

void check_identity(const SafeTensors& file, const Identity& identity) {
  for (const auto& [key, value] : identity.fixed) {
    const auto found = file.metadata.find(key);
    if (found == file.metadata.end() ? value == "none" : found->second == value) continue;
    fail(fmt::format("{}: the checkpoint has {} {}, not {}", file.file.string(), key,
                     found == file.metadata.end() ? "unknown" : found->second, value));
  }
}

std::vector<std::string> changes(const SafeTensors& file, const Identity& identity) {
  std::vector<std::string> result;
  for (const auto& [key, value] : identity.changeable)
    if (const auto found = file.metadata.find(key); found != file.metadata.end() && found->second != value)
      result.push_back(fmt::format("{} was {:.40}, is {}", key, found->second, value));
  return result;
}

}  // namespace

bool is_own(const SafeTensors& file) {
  const std::string text = text_at(file.metadata, format_key);
  if (text == "halftone 1")
    throw FileError(fmt::format("{}: it was written by Halftone 0.1.0, whose checkpoints this version does not read",
                                file.file.string()));
  if (text != own_format && text.starts_with("halftone ")) refuse_version(file);
  return text == own_format;
}

std::vector<std::int64_t> file_shape(Shape s, int rank) {
  if (rank == 1) return {s.c};
  if (rank == 2) return {s.n, s.c};
  return {s.n, s.h, s.w, s.c};
}

std::string text_at(const Metadata& metadata, const std::string& key) {
  const auto found = metadata.find(key);
  return found == metadata.end() ? "" : found->second;
}

void save_checkpoint(const std::filesystem::path& directory, const Parameters& parameters, const Metadata& model,
                     const Identity& identity) {
  make_folder(directory);
  Metadata of_state(identity.fixed.begin(), identity.fixed.end());
  of_state.insert(identity.changeable.begin(), identity.changeable.end());
  of_state[format_key] = own_format;
  const StepState step = parameters.read_state();
  put_fields(step, of_state);
  std::vector<StoredTensor> tensors;
  for (Kept& k : kept(parameters, step.micro_batch > 0)) {
    k.tensor.data = k.view.read_bytes();
    check_finite(directory, k.tensor.name, k.tensor.data, k.view.spec);
    tensors.push_back(std::move(k.tensor));
  }
  const auto ranges = parameters.read_ranges();
  for (std::size_t i = 0; i < ranges.size(); ++i) put_fields(ranges[i], parameters.ranges[i].value, of_state);
  write_safetensors(directory / "state.safetensors", tensors, of_state);
  save_model(directory, parameters, model);
}

void save_model(const std::filesystem::path& directory, const Parameters& parameters, const Metadata& model) {
  make_folder(directory);
  Metadata of_model = described(parameters, model);
  of_model["weights"] = parameters.bytes(Store::average) > 0 ? "averaged" : "raw";
  std::vector<StoredTensor> tensors;
  for (const ModelTensor& t : model_of(parameters)) {
    const auto add = [&](const std::string& name, const TensorView& view) {
      check_finite(directory, name, view.read_bytes(), view.spec);
      tensors.push_back(f32_tensor(name, file_shape(view.spec.shape, t.rank), view.read()));
    };
    add(t.name, t.average.value_or(t.trained));
    if (t.average) add(raw_name(t.name), t.trained);
  }
  write_safetensors(directory / "model.safetensors", tensors, of_model);
}

void save_packed(const std::filesystem::path& file, const Parameters& parameters, const Metadata& model) {
  if (parameters.bytes(Store::average) > 0)
    fail("save_packed: the parameters have averages; export_packed takes a checkpoint's");
  std::vector<StoredTensor> tensors;
  const auto add = [&](const std::string& name, const TensorView& view, int rank) {
    check_finite(file, name, view.read_bytes(), view.spec);
    tensors.push_back(f32_tensor(name, file_shape(view.spec.shape, rank), view.read()));
  };
  for (const ParameterSlot& slot : parameters.entries) {
    const TensorView weight = parameters.weight(slot);
    if (is_packed(weight.spec.storage)) {
      tensors.push_back(blank(slot.name, weight.spec, slot.rank));
      tensors.back().data = weight.read_bytes();
    } else {
      add(slot.name, parameters.truth(slot), slot.rank);
    }
  }
  for (std::size_t i = 0; i < parameters.statistics.size(); ++i)
    add(parameters.statistics[i].name, parameters.statistic(i), 1);
  write_safetensors(file, tensors, described(parameters, model));
}

std::filesystem::path model_file(const std::filesystem::path& checkpoint) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(checkpoint, ignored) ? checkpoint : checkpoint / "model.safetensors";
}

std::vector<std::string> load_checkpoint(const std::filesystem::path& directory, Parameters& parameters,
                                         const Identity& identity, const LossScale& loss_scale) {
  const SafeTensors file = read_safetensors(directory / "state.safetensors");
  check_format(file);
  check_identity(file, identity);
  const auto take = [&](auto&& read) {
    try {
      return read();
    } catch (const Error& error) {
      throw FileError(fmt::format("{}: {}", file.file.string(), error.what()));
    }
  };
  const StepState step = take([&] { return step_state_of(file.metadata); });
  const DynamicOptions& o = loss_scale.options;
  const float scale = step.scale.scale, least = std::min(o.min, o.initial), most = std::max(o.max, o.initial);
  if (loss_scale.mode == LossScale::Mode::dynamic && !(scale >= least && scale <= most))
    throw FileError(
        fmt::format("{}: state.scale: {} is not between {} and {}", file.file.string(), scale, least, most));
  double weights = 0;
  for (const auto& slot : parameters.entries) weights += static_cast<double>(slot.shape.elements());
  if (step.micro_batch > 0 && static_cast<double>(step.zero_gradients) > weights * step.good_micro_batches)
    throw FileError(fmt::format("{}: state.zero_gradients: no training leaves it so", file.file.string()));
  auto memory = kept(parameters, step.micro_batch > 0);
  for (Kept& k : memory) k.tensor.data = bytes_of(file, k.tensor, k.view.spec);
  if (file.tensors.size() != memory.size())
    throw FileError(fmt::format("{}: it holds {} tensors, this training has {}", file.file.string(),
                                file.tensors.size(), memory.size()));
  std::vector<RangeState> ranges;
  for (const auto& range : parameters.ranges)
    ranges.push_back(take([&] { return range_state_of(file.metadata, range.value, range.storage.first_scale()); }));

  for (Kept& k : memory) k.view.write_bytes(k.tensor.data);
  parameters.write_state(step);
  parameters.write_ranges(ranges);
  return changes(file, identity);
}

namespace {

Metadata read_metadata(const std::filesystem::path& path) {
  const SafeTensors file = read_safetensors(path);
  check_format(file);
  return file.metadata;
}

}  // namespace

Metadata read_model_metadata(const std::filesystem::path& checkpoint) { return read_metadata(model_file(checkpoint)); }

Metadata read_state_metadata(const std::filesystem::path& directory) {
  return read_metadata(directory / "state.safetensors");
}

}  // namespace halftone
