#pragma once
#include <string>

#include "halftone/nn/models.hpp"
#include "halftone/train/predictor.hpp"

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

/// The same in evaluation, with weights of birth.
struct BenchPredictor {
  BenchPredictor(const std::string& net, const std::string& precision, std::int64_t batch_size, const Device& device);

  Batch batch;
  Graph graph;
  Predictor predict;

 private:
  BenchPredictor(const Net& net, const std::string& precision, std::int64_t batch_size, const Device& device);
};

}  // namespace halftone::cli
