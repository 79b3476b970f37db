#pragma once
#include <string>

#include "halftone/nn/models.hpp"
#include "halftone/train/trainer.hpp"

namespace halftone::cli {

/// A net ready to train on random images of its own size.
struct BenchModel {
  BenchModel(const std::string& net, const std::string& precision, std::int64_t batch_size, const Device& device);

  Batch batch;
  Graph graph;
  Trainer trainer;

 private:
  BenchModel(const Net& net, const std::string& precision, std::int64_t batch_size, const Device& device);
  Value build(const Net& net);
};

}  // namespace halftone::cli
