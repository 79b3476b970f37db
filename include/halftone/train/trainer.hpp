#pragma once
#include <functional>
#include <iosfwd>
#include <memory>
#include <optional>

#include "halftone/data/loader.hpp"
#include "halftone/graph/plan.hpp"
#include "halftone/train/checkpoint.hpp"
#include "halftone/train/options.hpp"

namespace halftone {

/// What one batch did, true gradients throughout: nobody sees a scaled one. With micro-batches a step has several.
struct StepReport {
  std::int64_t attempt = 0;  ///< steps so far, skipped ones too, this one included
  float loss = 0;            ///< of this batch
  float step_loss = 0;       ///< mean over the step's good micro-batches so far
  float learning_rate = 0, gradient_norm = 0;
  float scale = 1;  ///< that this step's gradients carry
  /// Shares of the weights, once the step is complete: gradients that are 0, and weights that the update left as they
  /// are stored. `Trainer::numerics` has what was flushed and saturated, by tensor.
  double zero_weight_gradients = 0, unchanged_weights = 0;
  bool complete = true;  ///< false for a micro-batch that is not the last of its step
  bool skipped = false;
  bool stop = false;   ///< the loss scale's policy has stopped training: no further step changes anything
  std::string reason;  ///< why the batch does not count: what was not finite, and where
};

struct EpochReport {
  std::int64_t epoch = 0;  ///< from 1
  double loss = 0;         ///< mean of the finite batch losses
  double seconds = 0, images_per_second = 0;
  std::int64_t committed_steps = 0, skipped_steps = 0;
  float loss_scale = 1;
  bool stopped = false;  ///< early, by the observer or the loss scale's policy
};
std::ostream& operator<<(std::ostream& out, const EpochReport& report);

/// Bytes, counted from what was allocated.
struct MemoryReport {
  std::size_t weights = 0, masters = 0, gradients = 0, optimizer = 0, activations = 0, workspace = 0, peak = 0;
};

/// What was seen of one tensor's numbers before they were rounded, over all committed steps; shares of its numbers.
struct TensorNumerics {
  std::string tensor;
  const char* role;  ///< as in `role_names`
  std::int64_t numbers = 0;
  double zeros = 0, flushed = 0, saturated = 0;  ///< exact zeros; others that became zero; at the largest number
  std::optional<double> unchanged;               ///< of what updates wrote, where they write
  float largest = 0;                             ///< magnitude
  int range = 0;                                 ///< the numbers that can be stored now reach up to about 2^range
};

/// Shares over all committed steps, and counts.
struct NumericsReport {
  double zero_weight_gradients = 0, unchanged_weights = 0;
  std::int64_t skipped_steps = 0,
               nonfinite = 0;                ///< nonfinite: numbers in weight gradients, over all steps of this trainer
  std::vector<TensorNumerics> tensors = {};  ///< those whose storage is `noticed`
};

/// The norm of a layer's true gradients together, before clipping.
struct GradientNorm {
  std::string layer;  ///< "conv1" of conv1.weight and conv1.bias
  double norm = 0;
};

/// Wires the passes, the plan and the data into training. The graph is copied; its values' numbers stay valid.
class Trainer {
 public:
  /// Throws Error naming option or node for anything that cannot be trained so.
  explicit Trainer(Value loss, const TrainerOptions& options = {});
  ~Trainer();

  /// One step (or micro-batch) on a batch of images and labels, in the order of `inputs`. Throws Error for other sizes.
  StepReport step(const Batch& batch);
  /// One step on raw bytes, one span per graph input in the order they were made. Throws Error for other sizes.
  StepReport step(std::span<const std::span<const std::byte>> inputs);

  /// Called with every step's report in order; false ends the epoch early. On a device that works ahead of the host, a
  /// report comes some steps late, and those steps still run.
  using Observer = std::function<bool(const StepReport&)>;

  /// Finds where ranges come to in `steps` steps of a first training in wide words, then begins anew with these ranges
  /// (Courbariaux et al. 2014, section 8). `epoch` does so before the first step, for the precision's `range_steps`,
  /// unless it has been done. `observer` is that of the first training: where it ends that early, nothing has changed
  /// and false is returned.
  bool find_ranges(const Loader& loader, std::int64_t steps, const Observer& observer = {});

  /// Trains to the end of the current epoch, from wherever the step count stands in it, so also after a resume. Throws
  /// Error for batches of another size than the graph's, the last one included.
  EpochReport epoch(const Loader& loader, const Observer& observer = {});

  /// The mean of `metric`, a single number, over all images of `loader`, in evaluation: without shuffling, augmentation
  /// or dropped last batch, whatever the loader's options. A batch counts by its images, also where a loss ignores
  /// some. With `average`, by the averaged weights. Throws Error for a metric that is no single number and where there
  /// is no average.
  double evaluate(const Loader& loader, Value metric, bool average = false);

  /// The numbers of `output` for all images of `loader` in order, in evaluation as above.
  std::vector<float> predict(const Loader& loader, Value output, bool average = false);

  /// Writes a checkpoint (`save_checkpoint`), with `model`, then the graph's metadata (of the data, by `inputs`), among
  /// what its model says of itself and `identity` among what a resume must agree with.
  void save(const std::filesystem::path& directory, const Metadata& model = {}, const Identity& identity = {}) const;

  /// Continues from a checkpoint of the same net, precision, optimizer, seed and whatever else `identity_of` and
  /// `identity.fixed` name. Throws Error naming a difference and FileError naming file, tensor or field, before
  /// anything has changed. Returns the differences from `identity.changeable`, each in words.
  std::vector<std::string> load(const std::filesystem::path& directory, const Identity& identity = {});

  /// Goes on from where a trainer of the same net and optimizer stands or, by a copy of its parameters, stood, in this
  /// one's number system: each number becomes the nearest that is stored here, the loss scale begins anew. Throws Error
  /// for another net and within a step.
  void take(const Parameters& other);

  /// Of the last step as a whole, all its micro-batches, in the order of the layers; none where it was skipped or is
  /// not complete. Reads all gradients.
  std::vector<GradientNorm> gradient_norms() const;

  MemoryReport memory() const;
  NumericsReport numerics() const;
  const Plan& plan() const;
  const Parameters& parameters() const;
  Parameters& parameters();
  const TrainerOptions& options() const;
  std::int64_t attempts() const;  ///< steps so far, skipped ones too
  std::int64_t batches() const;   ///< batches taken so far, also those of an unfinished step

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace halftone
