#include "cli/classifier.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/report.hpp"
#include "halftone/train/onnx.hpp"

namespace halftone::cli {
namespace {

bool is_onnx(const std::string& checkpoint) {
  std::error_code ignored;
  return checkpoint.ends_with(".onnx") && !std::filesystem::is_directory(checkpoint, ignored);
}

/// What an ONNX file does not say is the data's.
ModelDescription description_of(const std::string& checkpoint) {
  if (!is_onnx(checkpoint)) return read_model_description(checkpoint);
  auto net = std::make_shared<const Net>(read_onnx(checkpoint));
  return {.net = net, .image = net->image, .classes = net->classes, .file = checkpoint};
}

}  // namespace

void ClassifierOptions::add_to(CLI::App& app) {
  app.add_option("--checkpoint", checkpoint,
                 "folder that `halftone train --out` wrote, file of `halftone export --packed`, or ONNX file")
      ->required();
  app.add_option("--data", data, data_spellings() + " [as trained]");
  add_data_options(app, reading);
  app.add_option("--precision", precision, "the number system [as trained]");
  app.add_flag("--raw", raw, "the weights themselves where the checkpoint has an average (train --ema)");
  app.add_option("--batch", batch, "images at a time")->check(whole(1, 1e9))->capture_default_str();
  device.add_to(app);
}

Classifier::Classifier(const ClassifierOptions& o, Split split)
    : checkpoint_(o.checkpoint), model_(description_of(o.checkpoint)), device_(o.device.open()), raw_(o.raw) {
  precision_ = o.precision.empty() ? model_.precision : o.precision;
  precision_for(model_, precision_by_name(precision_));
  const std::string name = o.data.empty() ? model_.data : o.data;
  if (o.data.empty() && is_own_data(name))
    fail(fmt::format("--data is missing: a checkpoint does not tell where {} lies", name));
  const bool onnx = is_onnx(checkpoint_);
  if (onnx && o.raw) fail("--raw: an ONNX file has weights of one kind");
  if (name.empty()) fail(fmt::format("--data is missing: {} does not say what it was trained on", checkpoint_));
  DataOptions reading = o.reading;
  reading.threads = o.device.cpu.threads;
  if (is_own_data(name)) {
    if (reading.image.h == 0 && model_.image.elements() > 0) reading.image = model_.image;
    const bool folder = name.starts_with("folder:");
    if (folder) reading.class_names = model_.class_names;
    if (folder && model_.class_names.empty() && !onnx)
      fail(fmt::format("--data {}: the checkpoint in {} does not say what its classes are called", name, checkpoint_));
    reading.validation_without_parts = data_name(name) == model_.data ? model_.validation : 0;
  }
  Dataset data = load_dataset(name, split, reading);
  if (onnx) {
    normalize_as(*model_.net, data);
    model_.mean = data.mean, model_.stddev = data.stddev, model_.dtype = data.dtype;
    if (model_.image.elements() == 0) model_.image = data.image;
    if (model_.classes == 0) model_.classes = data.classes;
    if (model_.classes == data.classes) model_.class_names = data.class_names;
  }
  if (classes() == 0)
    fail(fmt::format("--data {}: without labels nothing says how many classes {} tells apart", name, checkpoint_));
  data_ = std::make_shared<const Dataset>(std::move(data));
  print_left_out(*data_);
  if (data_->image.c != model_.image.c)
    throw FileError(fmt::format("{}: its mean is not that of {} channels", checkpoint_, data_->image.c));
  if (data_->dtype != model_.dtype)
    throw FileError(fmt::format("{}: its images are {}, those of {} {}", checkpoint_, halftone::name_of(model_.dtype),
                                data_->name, halftone::name_of(data_->dtype)));
  if (data_->classes > classes())
    throw FileError(
        fmt::format("{}: it tells {} classes apart, {} has {}", checkpoint_, classes(), data_->name, data_->classes));
  batch_ = std::min(o.batch, data_->size());
}

std::vector<float> Classifier::operator()(Value (*of_logits)(Value)) const {
  Shape images = data_->image;
  images.n = batch_;
  Predictor predictor(of_logits(logits_of(model_, Graph(), images)),
                      {.device = device_, .precision = precision_by_name(precision_), .fold_norms = false});
  if (!is_onnx(checkpoint_))
    predictor.load(model_file(checkpoint_), {.weights = raw_ ? ModelWeights::raw : ModelWeights::best});
  std::vector<float> values = predictor(Loader(data_, {.batch = batch_, .shuffle = false, .drop_last = false}));
  const auto bad = std::ranges::find_if(values, [](float x) { return !std::isfinite(x); });
  if (bad != values.end())
    throw Failure(
        fmt::format("image {}: the net's output in {} is not finite", (bad - values.begin()) / classes(), precision_));
  return values;
}

std::string Classifier::part() const {
  if (data_->whole)
    return labelled() && data_->name == model_.data ? "all images, trained ones among them" : "all images";
  return data_->validation != 0 ? fmt::format("{} of each class", data_->validation) : "";
}

std::string Classifier::name_of(std::int64_t label) const {
  return model_.class_names.empty() ? std::to_string(label) : model_.class_names[static_cast<std::size_t>(label)];
}

std::int64_t first_largest(const float* x, std::int64_t n) { return std::max_element(x, x + n) - x; }

}  // namespace halftone::cli
