#include "halftone/graph/parameters.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace halftone {
namespace {

constexpr std::int64_t alignment = 16;  // elements, so that every parameter begins on a 64-byte line of the f32 stores

std::int64_t padded(std::int64_t count) { return (count + alignment - 1) / alignment * alignment; }

}  // namespace

Parameters::Parameters(const Graph& graph, Device device, const Options& options)
    : device_(std::move(device)), state_(device_, sizeof(StepState)) {
  std::int64_t elements = 0;
  std::size_t weight_bytes = 0, gradient_bytes = 0, statistic_bytes = 0;
  bool masters = false;
  for (const auto& info : graph.parameters) {
    const ValueSpec& spec = graph.info(info.value).spec;
    ParameterSlot slot{info.name, spec.shape, info.rank, info.trainable && info.gradient >= 0, spec.shape.elements(),
                       elements,  spec.dtype};
    slot.weight_offset = weight_bytes;
    if (info.gradient >= 0) {
      slot.gradient_dtype = graph.info(info.gradient).spec.dtype;
      slot.gradient_offset = gradient_bytes;
      gradient_bytes += static_cast<std::size_t>(padded(slot.count)) * size_of(slot.gradient_dtype);
    }
    elements += padded(slot.count);
    weight_bytes += static_cast<std::size_t>(padded(slot.count)) * size_of(slot.weight_dtype);
    masters = masters || slot.weight_dtype != DType::f32;
    slots.push_back(std::move(slot));
  }
  for (const auto& info : graph.statistics) {
    const Shape shape = graph.info(info.value).spec.shape;
    statistics.push_back({info.name, shape, statistic_bytes});
    statistic_bytes += static_cast<std::size_t>(padded(shape.elements())) * sizeof(float);
  }

  const auto flat = static_cast<std::size_t>(elements) * sizeof(float);
  const auto allocate = [&](Store store, std::size_t bytes) {
    stores_[static_cast<std::size_t>(store)] = Buffer(device_, bytes);
  };
  allocate(Store::weights, weight_bytes);
  if (masters) allocate(Store::masters, flat);
  if (options.gradients) allocate(Store::gradients, gradient_bytes);
  if (options.accumulate) allocate(Store::accumulated, flat);
  if (options.slots > 0) allocate(Store::slot0, flat);
  if (options.slots > 1) allocate(Store::slot1, flat);
  if (options.average) allocate(Store::average, flat);
  allocate(Store::statistics, statistic_bytes);

  for (std::size_t i = 0; i < slots.size(); ++i) {
    std::vector<float> values(static_cast<std::size_t>(slots[i].count));
    naming("parameter " + slots[i].name,
           [&] { graph.parameters[i].initializer(values, options.seed, static_cast<std::uint32_t>(i)); });
    assign(slots[i], values);
  }
  for (std::size_t i = 0; i < statistics.size(); ++i) {
    const std::vector<float> values(static_cast<std::size_t>(statistics[i].shape.elements()),
                                    graph.statistics[i].initial);
    statistic(i).write(values);
  }
  StepState state;
  state.seed = options.seed;
  write_state(state);
}

void Parameters::place(Graph& graph) const {
  const auto put = [&](int id, Store store, std::size_t offset) {
    auto& value = graph.info(id);
    value.store = store;
    value.offset = offset;
  };
  for (const auto& info : graph.parameters) {
    const ParameterSlot& slot = find(info.name);
    if (slot.shape != graph.info(info.value).spec.shape)
      fail(fmt::format("parameter {}: {} in the graph, {} in memory", info.name,
                       to_string(graph.info(info.value).spec.shape), to_string(slot.shape)));
    put(info.value, Store::weights, slot.weight_offset);
    graph.info(info.value).spec.dtype = slot.weight_dtype;
    if (info.gradient >= 0) put(info.gradient, Store::gradients, slot.gradient_offset);
  }
  for (const auto& info : graph.statistics) {
    const auto slot =
        std::find_if(statistics.begin(), statistics.end(), [&](const auto& s) { return s.name == info.name; });
    if (slot == statistics.end()) fail(fmt::format("there is no statistic {}", info.name));
    put(info.value, Store::statistics, slot->offset);
  }
}

TensorView Parameters::view(Store store, std::size_t offset, TensorSpec spec) const {
  return {spec, data(store) + offset, &device_.backend()};
}

TensorView Parameters::weight(const ParameterSlot& slot) const {
  return view(Store::weights, slot.weight_offset, {slot.shape, slot.weight_dtype});
}

TensorView Parameters::master(const ParameterSlot& slot) const {
  return has_masters() ? element(Store::masters, slot) : weight(slot);
}

TensorView Parameters::gradient(const ParameterSlot& slot) const {
  if (!slot.trainable) fail(fmt::format("parameter {} has no gradient", slot.name));
  return view(Store::gradients, slot.gradient_offset, {slot.shape, slot.gradient_dtype});
}

TensorView Parameters::element(Store store, const ParameterSlot& slot) const {
  return view(store, static_cast<std::size_t>(slot.offset) * sizeof(float), {slot.shape, DType::f32});
}

TensorView Parameters::statistic(std::size_t i) const {
  return view(Store::statistics, statistics[i].offset, {statistics[i].shape, DType::f32});
}

const ParameterSlot& Parameters::find(const std::string& name) const {
  for (const auto& slot : slots)
    if (slot.name == name) return slot;
  fail(fmt::format("there is no parameter {}", name));
}

void Parameters::assign(const ParameterSlot& slot, std::span<const float> values) const {
  weight(slot).write(values);
  if (has_masters()) master(slot).write(values);
  if (bytes(Store::average) > 0) element(Store::average, slot).write(values);
}

StepState Parameters::read_state() const {
  StepState state;
  device_.backend().download(&state, state_.data(), sizeof state);
  return state;
}

std::function<void()> Parameters::read_state_later(StepState& state) const {
  return device_.backend().download_later(&state, state_.data(), sizeof state);
}

void Parameters::write_state(const StepState& state) const {
  device_.backend().upload(state_.data(), &state, sizeof state);
}

}  // namespace halftone
