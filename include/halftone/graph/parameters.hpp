#pragma once
#include <array>
#include <map>
#include <optional>

#include "halftone/graph/precision.hpp"
#include "halftone/graph/step_state.hpp"

namespace halftone {

/// What a store holds for one parameter, and where: bytes from the store's beginning.
struct Place {
  Storage storage;
  std::size_t offset = 0;
};

struct ParameterSlot {
  std::string name;
  Shape shape;
  int rank = 4;
  bool trainable = true;  ///< and the loss depends on it: it has a gradient
  Shape flattened = {};   ///< as in `ParameterInfo`
  std::array<std::optional<Place>, store_count> places = {};

  const std::optional<Place>& in(Store store) const { return places[at(store)]; }
  /// Where the numbers lie that an update changes: the masters or, where there are none, the weights.
  Store truth() const { return in(Store::masters) ? Store::masters : Store::weights; }
};

/// All memory of a model that outlasts a step, one flat buffer a store: weights (the copies that nodes work with), the
/// masters of those whose update is stored otherwise, gradients, optimizer slots, running average, statistics, scales
/// that move, and the step's state. Shared by training and evaluation plans.
class Parameters {
 public:
  struct Options {
    Precision precision = Precision::f32();  ///< says how updates and slots are stored
    int slot_count = 0;                      ///< numbers per weight that the optimizer keeps
    bool gradients = true;                   ///< false: neither they nor masters, for what never trains
    bool accumulate = false, average = false;
    std::uint64_t seed = 1;
  };

  /// Lays out and initialises what `graph`, already narrowed, names.
  Parameters(const Graph& graph, Device device, const Options& options);

  /// Draws all numbers as at birth, by the scales that hold now, or wider ones where these are too small.
  void initialize(const Graph& graph, std::uint64_t seed);

  /// Tells `graph`'s values (this one or another of the same model) where their memory lies. Throws Error for a
  /// stranger.
  void place(Graph& graph) const;

  /// What a store holds for a parameter; throws Error where it holds nothing.
  TensorView view(Store store, const ParameterSlot& slot) const;
  TensorView weight(const ParameterSlot& slot) const { return view(Store::weights, slot); }
  TensorView truth(const ParameterSlot& slot) const { return view(slot.truth(), slot); }
  TensorView gradient(const ParameterSlot& slot) const { return view(Store::gradients, slot); }
  TensorView statistic(std::size_t i, Store store = Store::statistics) const;  ///< or averaged or kept ones, likewise
  const ParameterSlot& find(const std::string& name) const;                    ///< throws Error for an unknown name

  /// Widens the scale of a parameter's weights or masters, where it moves and is too small for finite numbers that
  /// they are to hold.
  void make_room(Store store, const ParameterSlot& slot, std::span<const float> values);
  /// Writes f32 numbers into a parameter: its truth, its running average and its working copy, each rounded to the
  /// nearest that is stored.
  void assign(const ParameterSlot& slot, std::span<const float> values);
  void assign(Store store, const ParameterSlot& slot, std::span<const float> values);  ///< in one store alone
  void assign_statistic(std::size_t i, std::span<const float> values);                 ///< its average too

  /// Takes over all that lasts of the same model in other storages: numbers, each rounded to the nearest that is stored
  /// here, and the step's state. Throws Error for another model.
  void take(const Parameters& from);
  /// The ranges alone: each scale so that its tensor's largest number is about the same.
  void take_ranges(const Parameters& from);

  std::size_t bytes(Store store) const { return stores_[at(store)].bytes(); }
  std::byte* data(Store store) const { return stores_[at(store)].data(); }  ///< device memory

  StepState* state() const { return reinterpret_cast<StepState*>(data(Store::state)); }  ///< device memory
  StepState read_state() const;
  std::function<void()> read_state_later(StepState& state) const;  ///< as `Backend::download_later`
  void write_state(const StepState& state);

  /// The scale of a value that has one, in device memory; null where it has none.
  RangeState* range(const std::string& value) const;
  std::vector<RangeState> read_ranges() const;  ///< in the order of `ranges`
  void write_ranges(std::span<const RangeState> states);

  const Device& device() const { return device_; }

  std::vector<ParameterSlot> entries;
  struct StatisticSlot {
    std::string name;
    Shape shape;
    std::size_t offset;
  };
  std::vector<StatisticSlot> statistics;
  struct RangeSlot {
    std::string value;  ///< its name
    const char* role;   ///< as in `role_names`; "compensation" and "exact" for what has none
    Storage storage;
    bool lasts;  ///< the value is in a store
  };
  std::vector<RangeSlot> ranges;

 private:
  void add_slot(const Graph& graph, const ParameterInfo& info, const Options& options);
  void put(ParameterSlot& slot, Store store, const Storage& storage);
  void add_range(const std::string& value, const char* role, const Storage& storage, bool lasts);

  Device device_;
  std::array<std::size_t, store_count> sizes_ = {};
  std::array<Buffer, store_count> stores_;
  std::map<std::string, std::size_t> range_of_;
};

/// The name of what a store holds for a parameter: "conv1.weight", "gradient of conv1.weight", "masters.conv1.weight".
std::string name_in(Store store, const std::string& parameter);

}  // namespace halftone
