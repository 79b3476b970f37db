#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "halftone/train/trainer.hpp"

namespace halftone {

/// A tensor that holds a number which is not finite.
struct BadTensor {
  std::string node, tensor;  ///< a node or, of an input of the graph, nothing
  std::string role;          ///< "activations", ... (`role_names`), "input" or "exact"
  bool backward = false;
  std::int64_t index = -1;  ///< of the first such number; -1: it was stored in a code that has none
  float value = 0;
  std::int64_t first = 0;               ///< index of the first of `around`
  std::vector<float> around = {};       ///< some numbers before and behind
  std::int64_t count = 0, numbers = 0;  ///< of such numbers, and of all
};

/// "conv2.conv2d_d_input1, role activation_gradients, backward: infinity at index 17, 3 of 4608 numbers are not ..."
std::string to_string(const BadTensor& tensor);

/// The first one in the order of the last step's work; none where all numbers are finite. Throws Error for a trainer
/// that keeps no values (`TrainerOptions::keep_values`).
std::optional<BadTensor> first_bad_tensor(const Trainer& trainer);

/// Does the trainer's last step again, from `before` and on the batch that its inputs hold, and writes a folder from
/// which that can be repeated: DIR/state.safetensors and model.safetensors (a checkpoint of what was before it),
/// capsule.safetensors (the batch, what came out, `facts`) and graph.txt, for people. `before` is the state that the
/// step began with; it must not have been committed. Or it is the state that holds now: then this is one step more.
/// Throws Error where a step has several micro-batches and FileError naming what cannot be written.
StepReport write_capsule(const std::filesystem::path& directory, Trainer& trainer, const StepState& before,
                         const Metadata& facts = {});

/// What `write_capsule` was given, and `version`. Throws FileError for a damaged capsule and one of another version.
Metadata read_capsule(const std::filesystem::path& directory);

/// The raw bytes of one input of the graph's, by its name.
std::vector<std::byte> capsule_input(const std::filesystem::path& directory, const std::string& name);

struct Replay {
  StepReport report;
  bool same_bits = false;  ///< loss, norm, counts and flags of the step are those of the first time
  std::optional<BadTensor> first;
};

/// Does a capsule's step again in a trainer of the same net and options that keeps its values. Throws as `read_capsule`
/// and `Trainer::load` do.
Replay replay(const std::filesystem::path& directory, Trainer& trainer);

}  // namespace halftone
