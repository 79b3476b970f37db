#pragma once
#include <map>
#include <string>
#include <vector>

#include "halftone/inspect/histogram.hpp"
#include "halftone/train/trainer.hpp"

namespace halftone {

/// What was seen of a layer's numbers of one role before anything rounded them.
struct WatchedTensor {
  std::string node;  ///< the layer: "conv1"
  const char* role;  ///< as in `role_names`; `update` is what steps added to the weights
  ExponentHistogram exponents = {};
  // Of role `update` alone: the share of updates that are not 0 and yet leave the weight where it is, without masters.
  double lost_bf16 = 0, lost_f16 = 0;
};

/// Looks at all tensors of a training in f32, layer by layer and role by role. The trainer must keep them
/// (`TrainerOptions::keep_values`).
class Watcher {
 public:
  /// Throws Error for a trainer that keeps no values or stores them narrower than f32.
  explicit Watcher(const Trainer& trainer);

  /// Before a step that is to be looked at.
  void begin();
  /// After it.
  void look();

  /// In the order in which a step comes by them.
  std::vector<WatchedTensor> tensors() const;

 private:
  struct Source {
    int value;
    std::size_t tensor;
  };
  struct Updates {
    std::int64_t moved = 0, lost_bf16 = 0, lost_f16 = 0;
  };
  /// Whenever the trainer has made itself another plan.
  void find_sources();
  std::size_t tensor_of(const std::string& node, const char* role);
  void look_at_update(const ParameterSlot& slot, std::size_t tensor, const std::vector<float>& before);

  const Trainer& trainer_;
  std::vector<WatchedTensor> tensors_;
  std::map<std::pair<std::string, std::string>, std::size_t> known_;
  std::vector<Source> sources_;
  std::uint64_t graph_ = 0;  // that they are of
  std::map<std::size_t, Updates> updates_;
  std::vector<std::vector<float>> before_;  // the weights
  std::vector<float> numbers_;              // of the tensor that is looked at
};

}  // namespace halftone
