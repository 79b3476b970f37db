#pragma once
#include <filesystem>
#include <string>

#include "halftone/train/checkpoint.hpp"

namespace halftone::cli {

/// OUT/best/model.safetensors: the net as it was when it told most test images right. How many that were stands in it
/// and in the checkpoint, so that a resume knows whether it is its own. Without a folder it does nothing.
class BestModel {
 public:
  explicit BestModel(std::filesystem::path folder) : folder_(std::move(folder)) {}

  /// Goes on from the best of the checkpoint in `from` where the folder holds it.
  void resume(const std::filesystem::path& from);
  void offer(double accuracy, const Parameters& parameters, Metadata model);
  /// Adds what the checkpoint must know to its identity; a resume does not ask for it.
  void note(Identity& identity) const;

 private:
  std::filesystem::path file() const { return folder_ / "model.safetensors"; }

  std::filesystem::path folder_;
  std::string best_;  // test accuracy; empty: none so far
};

}  // namespace halftone::cli
