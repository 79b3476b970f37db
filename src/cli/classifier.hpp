#pragma once
#include <memory>
#include <string>

#include "cli/options.hpp"
#include "halftone/train/predictor.hpp"

namespace halftone::cli {

/// Options that name a checkpoint, images, and how to run the one on the other.
struct ClassifierOptions {
  DeviceOptions device;
  DataOptions reading;
  std::string checkpoint, data, precision;
  std::int64_t batch = 128;
  bool raw = false;

  void add_to(CLI::App& app);
};

/// A checkpoint's net on a data set.
class Classifier {
 public:
  /// Throws FileError naming the checkpoint, and Error where net and data do not fit together.
  Classifier(const ClassifierOptions& options, Split split);

  /// What `of_logits` makes of the logits, a number a class in a row an image, in the order of the data. Throws Failure
  /// naming the first image for which it is not finite.
  std::vector<float> operator()(Value (*of_logits)(Value logits)) const;

  const Dataset& data() const { return *data_; }
  const ModelDescription& model() const { return model_; }
  int classes() const { return model_.classes; }
  bool labelled() const { return data_->labels.front() >= 0; }
  /// Which of the data's images these are, where they are no split that is a part of its own.
  std::string part() const;
  /// A class's name, else its number.
  std::string name_of(std::int64_t label) const;
  std::string precision() const { return precision_; }
  const char* weights() const { return model_.averaged && !raw_ ? "averaged" : "raw"; }
  std::string device_name() const { return device_.backend().name(); }

 private:
  std::string checkpoint_, precision_;
  ModelDescription model_;
  std::shared_ptr<const Dataset> data_;
  Device device_;
  std::int64_t batch_;
  bool raw_;
};

/// The place of the first largest of n numbers.
std::int64_t first_largest(const float* x, std::int64_t n);

}  // namespace halftone::cli
