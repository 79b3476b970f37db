#include "halftone/graph/parameters.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace halftone {

std::string name_in(Store store, const std::string& parameter) {
  if (store == Store::weights) return parameter;
  return store == Store::gradients ? "gradient of " + parameter : fmt::format("{}.{}", name_of(store), parameter);
}

namespace {

const char* role_of(Store store) {
  return store == Store::weights                          ? "weights"
         : store == Store::masters                        ? "update"
         : store == Store::gradients                      ? "weight_gradients"
         : store == Store::slot0 || store == Store::slot1 ? "slots"
                                                          : name_of(store);
}

}  // namespace

Parameters::Parameters(const Graph& graph, Device device, const Options& options) : device_(std::move(device)) {
  for (const auto& info : graph->parameters) add_slot(graph, info, options);
  for (const auto& info : graph->statistics) {
    const Shape shape = graph.info(info.value).spec.shape;
    std::size_t& size = sizes_[at(Store::statistics)];
    statistics.push_back({info.name, shape, size});
    size += padded(TensorSpec{shape, DType::f32}.bytes());
  }
  for (const Node& node : graph->nodes)
    for (int id : node.outputs)
      if (const ValueInfo& value = graph.info(id); value.spec.storage.has_range() && !node.op->is_view())
        add_range(value.name, name_of(value.spec.role), value.spec.storage, false);
  if (options.average) sizes_[at(Store::averaged_statistics)] = sizes_[at(Store::statistics)];
  if (options.accumulate) sizes_[at(Store::kept_statistics)] = sizes_[at(Store::statistics)];
  sizes_[at(Store::ranges)] = ranges.size() * sizeof(RangeState);
  sizes_[at(Store::state)] = sizeof(StepState);
  for (std::size_t store = 0; store < store_count; ++store) stores_[store] = Buffer(device_, sizes_[store]);

  StepState state;
  state.seed = options.seed;
  write_state(state);
  std::vector<RangeState> first(ranges.size());
  for (std::size_t i = 0; i < ranges.size(); ++i) first[i].scale = first[i].next = ranges[i].storage.first_scale();
  write_ranges(first);
  initialize(graph, options.seed);
}

void Parameters::initialize(const Graph& graph, std::uint64_t seed) {
  for (std::size_t i = 0; i < entries.size(); ++i) {
    std::vector<float> values(static_cast<std::size_t>(entries[i].shape.elements()));
    naming("parameter " + entries[i].name,
           [&] { graph->parameters[i].initializer(values, seed, static_cast<std::uint32_t>(i)); });
    for (const Store store : {Store::weights, Store::masters}) make_room(store, entries[i], values);
    assign(entries[i], values);
  }
  for (std::size_t i = 0; i < statistics.size(); ++i) {
    std::vector<float> values = graph->statistics[i].values;
    values.resize(static_cast<std::size_t>(statistics[i].shape.elements()), graph->statistics[i].initial);
    assign_statistic(i, values);
  }
}

void Parameters::add_slot(const Graph& graph, const ParameterInfo& info, const Options& options) {
  const ValueSpec& spec = graph.info(info.value).spec;
  const RoleStorage& roles = options.precision.at(info.name);
  ParameterSlot slot{info.name, spec.shape, info.rank, info.trainable && info.gradient >= 0, info.flattened};
  put(slot, Store::weights, spec.storage);
  if (options.gradients && roles.update != spec.storage) put(slot, Store::masters, roles.update);
  if (options.average) put(slot, Store::average, DType::f32);
  if (slot.trainable) {
    if (options.gradients) put(slot, Store::gradients, graph.info(info.gradient).spec.storage);
    if (options.accumulate) put(slot, Store::accumulated, DType::f32);
    if (options.slot_count > 0) put(slot, Store::slot0, roles.optimizer_slots);
    if (options.slot_count > 1) put(slot, Store::slot1, roles.optimizer_slots);
    if (roles.compensated) put(slot, Store::compensation, roles.optimizer_slots);
  }
  entries.push_back(std::move(slot));
}

void Parameters::put(ParameterSlot& slot, Store store, const Storage& storage) {
  std::size_t& size = sizes_[at(store)];
  slot.places[at(store)] = {storage, size};
  size += padded(storage.bytes(slot.shape.elements()));
  if (storage.has_range()) add_range(name_in(store, slot.name), role_of(store), storage, store != Store::gradients);
}

void Parameters::add_range(const std::string& value, const char* role, const Storage& storage, bool lasts) {
  if (!range_of_.try_emplace(value, ranges.size()).second) return;
  ranges.push_back({value, role, storage, lasts});
}

void Parameters::place(Graph& graph) const {
  const auto put = [&](int id, Store store, const ParameterSlot& slot) {
    ValueInfo& value = graph.info(id);
    const auto& place = slot.in(store);
    if (!place) fail(fmt::format("{}: there is no such memory", value.name));
    if (slot.shape != value.spec.shape)
      fail(fmt::format("parameter {}: {} in the graph, {} in memory", slot.name, to_string(value.spec.shape),
                       to_string(slot.shape)));
    value.store = store;
    value.offset = place->offset;
    value.spec.storage = place->storage;
  };
  for (const auto& info : graph->parameters) {
    put(info.value, Store::weights, find(info.name));
    if (info.gradient >= 0) put(info.gradient, Store::gradients, find(info.name));
  }
  for (std::size_t id = 0; id < graph->values.size(); ++id) {
    ValueInfo& value = graph->values[id];
    if (value.owner < 0) continue;
    const auto owner = static_cast<std::size_t>(value.owner);
    if (value.store < Store::statistics) {
      put(static_cast<int>(id), value.store, find(graph->parameters[owner].name));
      continue;
    }
    const std::string& name = graph->statistics[owner].name;
    const auto slot = std::find_if(statistics.begin(), statistics.end(), [&](const auto& s) { return s.name == name; });
    if (slot == statistics.end()) fail(fmt::format("there is no statistic {}", name));
    value.offset = slot->offset;
  }
}

TensorView Parameters::view(Store store, const ParameterSlot& slot) const {
  const auto& place = slot.in(store);
  if (!place) fail(fmt::format("parameter {} has no {}", slot.name, name_of(store)));
  return {
      {slot.shape, place->storage}, data(store) + place->offset, &device_.backend(), range(name_in(store, slot.name))};
}

TensorView Parameters::statistic(std::size_t i, Store store) const {
  const bool holds_statistics =
      store == Store::statistics || store == Store::kept_statistics || store == Store::averaged_statistics;
  if (i >= statistics.size() || !holds_statistics || bytes(store) == 0)
    fail(fmt::format("statistic {} has no {}", i, name_of(store)));
  return {{statistics[i].shape, DType::f32}, data(store) + statistics[i].offset, &device_.backend()};
}

const ParameterSlot& Parameters::find(const std::string& name) const {
  for (const auto& slot : entries)
    if (slot.name == name) return slot;
  fail(fmt::format("there is no parameter {}", name));
}

void Parameters::assign(const ParameterSlot& slot, std::span<const float> values) {
  for (const Store store : {Store::weights, Store::masters, Store::average})
    if (slot.in(store)) assign(store, slot, values);
}

void Parameters::make_room(Store store, const ParameterSlot& slot, std::span<const float> values) {
  const auto& place = slot.in(store);
  if (!place || place->storage.scaling != Scaling::range) return;
  RangeState* const range = this->range(name_in(store, slot.name));
  RangeState state;
  device_.backend().download(&state, range, sizeof state);
  const float top = place->storage.largest();
  float largest = 0;
  for (const float x : values) largest = std::max(largest, std::abs(x));
  if (largest <= top * state.scale) return;
  state.scale = state.next = BlockScale::decode(BlockScale::fitting(largest, top));
  device_.backend().upload(range, &state, sizeof state);
}

void Parameters::assign(Store store, const ParameterSlot& slot, std::span<const float> values) {
  TensorView memory = view(store, slot);
  memory.spec.storage.rounding = Rounding::nearest;
  memory.write(values);
}

void Parameters::assign_statistic(std::size_t i, std::span<const float> values) {
  statistic(i).write(values);
  if (bytes(Store::averaged_statistics) > 0) statistic(i, Store::averaged_statistics).write(values);
}

void Parameters::take(const Parameters& from) {
  if (entries.size() != from.entries.size() || statistics.size() != from.statistics.size())
    fail("these are the parameters of another net");
  take_ranges(from);
  for (const ParameterSlot& slot : entries) {
    const ParameterSlot& theirs = from.find(slot.name);
    if (theirs.shape != slot.shape)
      fail(fmt::format("parameter {}: {} here, {} there", slot.name, to_string(slot.shape), to_string(theirs.shape)));
    const auto values = from.truth(theirs).read();
    for (const Store store : {Store::weights, Store::masters})
      if (!from.range(slot.name)) make_room(store, slot, values);
    assign(slot, values);
    for (const Store store : {Store::slot0, Store::slot1, Store::compensation, Store::average})
      if (slot.in(store) && theirs.in(store)) assign(store, slot, from.view(store, theirs).read());
  }
  for (std::size_t i = 0; i < statistics.size(); ++i) {
    assign_statistic(i, from.statistic(i).read());
    if (const Store averaged = Store::averaged_statistics; bytes(averaged) > 0 && from.bytes(averaged) > 0)
      statistic(i, averaged).write(from.statistic(i, averaged).read());
  }
  write_state(from.read_state());
}

void Parameters::take_ranges(const Parameters& from) {
  std::vector<RangeState> states = read_ranges();
  const std::vector<RangeState> theirs = from.read_ranges();
  for (std::size_t i = 0; i < states.size(); ++i) {
    auto found = from.range_of_.find(ranges[i].value);
    if (const std::string masters = name_in(Store::masters, "");  // which weights of the update's own storage have not
        found == from.range_of_.end() && ranges[i].value.starts_with(masters))
      found = from.range_of_.find(ranges[i].value.substr(masters.size()));
    if (found == from.range_of_.end() || ranges[i].storage.scaling != Scaling::range) continue;
    const Storage& storage = from.ranges[found->second].storage;
    if (storage.scaling != Scaling::range) continue;
    const int more_bits = std::ilogb(storage.largest()) - std::ilogb(ranges[i].storage.largest());
    states[i] = {};
    states[i].scale = states[i].next =
        std::clamp(std::ldexp(theirs[found->second].scale, more_bits), smallest_scale, largest_scale);
  }
  write_ranges(states);
}

StepState Parameters::read_state() const {
  StepState result;
  device_.backend().download(&result, state(), sizeof result);
  return result;
}

std::function<void()> Parameters::read_state_later(StepState& result) const {
  return device_.backend().download_later(&result, state(), sizeof result);
}

void Parameters::write_state(const StepState& from) { device_.backend().upload(state(), &from, sizeof from); }

RangeState* Parameters::range(const std::string& value) const {
  const auto found = range_of_.find(value);
  if (found == range_of_.end()) return nullptr;
  return reinterpret_cast<RangeState*>(data(Store::ranges)) + found->second;
}

std::vector<RangeState> Parameters::read_ranges() const {
  std::vector<RangeState> states(ranges.size());
  device_.backend().download(states.data(), data(Store::ranges), bytes(Store::ranges));
  return states;
}

void Parameters::write_ranges(std::span<const RangeState> states) {
  if (states.size() != ranges.size()) fail(fmt::format("{} scales move, not {}", ranges.size(), states.size()));
  device_.backend().upload(data(Store::ranges), states.data(), bytes(Store::ranges));
}

}  // namespace halftone
