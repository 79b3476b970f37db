#pragma once
#include <array>
#include <map>

#include "halftone/graph/graph.hpp"
#include "halftone/graph/step_state.hpp"

namespace halftone {

/// Where one parameter lies in the flat stores.
struct ParameterSlot {
  std::string name;
  Shape shape;
  int rank = 4;
  bool trainable = true;  ///< and the loss depends on it: it has a gradient
  std::int64_t count = 0;
  std::int64_t offset = 0;  ///< in elements, in the f32 stores: masters, accumulated, slots, average
  DType weight_dtype = DType::f32, gradient_dtype = DType::f32;
  std::size_t weight_offset = 0, gradient_offset = 0;  ///< in bytes
};

/// All memory of a model that outlasts a step, one flat buffer a kind, so that optimizer, loss scale and norms see one
/// array: weights (working copies), f32 masters (absent where all weights are f32), gradients, optimizer slots, running
/// average, statistics, and the step's state. Shared by training and evaluation plans.
class Parameters {
 public:
  struct Options {
    int slots = 0;  ///< f32 values per weight that the optimizer keeps
    bool gradients = true, accumulate = false, average = false;
    std::uint64_t seed = 1;
  };

  /// Lays out and initialises what `graph`, already narrowed, names.
  Parameters(const Graph& graph, Device device, const Options& options);

  /// Tells `graph`'s values (this one or another of the same model) where their memory lies. Throws Error for a
  /// stranger.
  void place(Graph& graph) const;

  TensorView weight(const ParameterSlot& slot) const;  ///< the working copy
  TensorView master(
      const ParameterSlot& slot) const;  ///< the f32 truth: the master, or the weight itself where there is none
  TensorView gradient(const ParameterSlot& slot) const;              ///< throws Error where there is none
  TensorView element(Store store, const ParameterSlot& slot) const;  ///< of slot0, slot1, average, accumulated
  TensorView statistic(std::size_t i) const;
  const ParameterSlot& find(const std::string& name) const;  ///< throws Error for an unknown name

  /// Writes f32 numbers into a parameter: its master, its running average and, rounded, its working copy.
  void assign(const ParameterSlot& slot, std::span<const float> values) const;

  bool has_masters() const { return bytes(Store::masters) > 0; }
  std::size_t bytes(Store store) const { return stores_[static_cast<std::size_t>(store)].bytes(); }
  std::byte* data(Store store) const { return stores_[static_cast<std::size_t>(store)].data(); }
  StepState* state() const { return reinterpret_cast<StepState*>(state_.data()); }  ///< device memory
  StepState read_state() const;
  std::function<void()> read_state_later(StepState& state) const;  ///< as `Backend::download_later`
  void write_state(const StepState& state) const;
  const Device& device() const { return device_; }

  std::vector<ParameterSlot> slots;
  struct StatisticSlot {
    std::string name;
    Shape shape;
    std::size_t offset;
  };
  std::vector<StatisticSlot> statistics;

 private:
  TensorView view(Store store, std::size_t offset, TensorSpec spec) const;
  Device device_;
  std::array<Buffer, static_cast<std::size_t>(Store::count)> stores_;
  Buffer state_;
};

}  // namespace halftone
