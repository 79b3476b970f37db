#include "halftone/train/predictor.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "halftone/halftone.hpp"
#include "tests/io/temporary_folder.hpp"

namespace halftone {
namespace {

Dataset toy_data(std::int64_t images) {
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(images) * 16);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(37 * i + i / 7);
  std::vector<std::int32_t> labels(static_cast<std::size_t>(images));
  for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::int32_t>(i % 3);
  return in_memory("toy", {1, 4, 4, 1}, pixels, labels, 3);
}

/// A small net that has seen some batches, so that its batch norm has statistics. A bias before that would have a
/// gradient of rounding errors alone, which Adam makes whole steps of.
struct Toy {
  std::shared_ptr<const Dataset> data = std::make_shared<Dataset>(toy_data(11));
  Loader loader{data, {.batch = 4}};
  Device device = cpu_device({.threads = 1});
  Graph graph;
  Inputs in = inputs(graph, loader);
  Value hidden = relu(batch_norm(conv2d(in.images, 4, 3, {.bias = false})));
  Value logits = dense(dropout(hidden, 0.5f), 3), loss = cross_entropy(logits, in.labels);
  Trainer trainer;

  explicit Toy(const Precision& precision = Precision::f32())
      : trainer(loss, {.device = device, .precision = precision, .optimizer = adamw()}) {
    trainer.epoch(loader);
    trainer.epoch(loader);
  }

  PredictorOptions options() const {
    return {.device = device, .precision = trainer.options().precision, .fold_norms = false};
  }
};

constexpr const char* number_systems[] = {"f32",
                                          "f16",
                                          "bf16",
                                          "bf16_pure",
                                          "fixed:6.10:nearest",
                                          "fixed:16.16:nearest",
                                          "dynamic_fixed:10/12",
                                          "fp8",
                                          "fp8:delayed",
                                          "mxfp8",
                                          "nvfp4",
                                          "int8",
                                          "binary",
                                          "binary:shift"};

TEST(Predictor, AgreesWithTheTrainersEvaluation) {
  for (const char* system : number_systems) {
    SCOPED_TRACE(system);
    Toy toy(precision_by_name(system));
    Predictor predict(cast(toy.logits, DType::f32), toy.trainer);
    const std::vector<float> logits = predict(toy.loader);  // 4, 4 and 3 images
    ASSERT_EQ(logits.size(), 33u);
    EXPECT_EQ(predict.row(), Shape::vector(3));
    double loss = 0;
    for (std::size_t i = 0; i < 11; ++i) {
      const double wanted = logits[3 * i + static_cast<std::size_t>(toy.data->labels[i])];
      double sum = 0;
      for (std::size_t j = 0; j < 3; ++j) sum += std::exp(logits[3 * i + j] - wanted);
      loss += std::log(sum) / 11;
    }
    EXPECT_NEAR(toy.trainer.evaluate(toy.loader, toy.loss), loss, 1e-6 * std::max(1., loss));
    EXPECT_EQ(predict(toy.data->pixels), logits);
    const std::vector<float> first(logits.begin(), logits.begin() + 3);
    if (std::string(system) != "nvfp4") {  // where a block of 16 logits spans images
      EXPECT_EQ(predict(std::span(toy.data->pixels).first(16)), first);
    }
    EXPECT_TRUE(predict(std::span<const std::byte>()).empty());
    const std::vector<float> before = logits;
    toy.trainer.epoch(toy.loader);
    EXPECT_NE(predict(toy.loader), before);  // the trainer's weights, as they are
  }
}

TEST(Predictor, ComputesAnyValueFromAFile) {
  for (const char* system : number_systems) {
    SCOPED_TRACE(system);
    Toy toy(precision_by_name(system));
    const TemporaryFolder folder;
    toy.trainer.save(folder / "");
    for (const Value& value : {toy.logits, toy.hidden, softmax(toy.logits)}) {
      Predictor own(value, toy.options()), shared(value, toy.trainer);
      const auto at_birth = own(toy.loader);
      const LoadReport report = own.load(folder / "model.safetensors");
      EXPECT_TRUE(report.kept.empty() && report.unread.empty());
      EXPECT_EQ(own(toy.loader), shared(toy.loader));
      EXPECT_NE(own(toy.loader), at_birth);
    }
  }
}

/// Each folded number and each sum is rounded once more than without.
TEST(Predictor, FoldsBatchNormInF32) {
  const auto shift_based = [](Value x, int classes) {
    x = relu(batch_norm(conv2d(x, 8, 3), {.shift_based = true}));
    return dense(batch_norm(conv2d(x, 8, 3, {.stride = 4}), {.shift_based = true}), classes);
  };
  for (Value (*net)(Value, int) : {resnet20, resnet18, +shift_based}) {
    Graph graph;
    const Value images = graph.input("images", {2, 32, 32, 3}), logits = net(images, 10);
    const Device device = cpu_device({.threads = 1});
    std::vector<float> numbers;
    for (std::int64_t i = 0; i < images.shape().elements(); ++i)
      numbers.push_back(uniform(1, 0, 0, static_cast<std::uint64_t>(i)) - 0.5f);
    const auto bytes = std::as_bytes(std::span(numbers));
    Predictor folded(logits, {.device = device}), whole(logits, {.device = device, .fold_norms = false});
    const TemporaryFolder folder;
    Trainer trainer(mean_squared_error(logits, graph.input("target", logits.shape())), {.device = device});
    for (std::size_t i = 0; i < trainer.parameters().statistics.size(); ++i) {
      std::vector<float> values(static_cast<std::size_t>(trainer.parameters().statistics[i].shape.elements()));
      const bool mean = trainer.parameters().statistics[i].name.ends_with("running_mean");
      for (std::size_t k = 0; k < values.size(); ++k)
        values[k] =
            mean ? 0.02f * (static_cast<float>((k + i) % 9) - 4) : 0.02f + 0.01f * static_cast<float>((k + i) % 9);
      trainer.parameters().assign_statistic(i, values);
    }
    trainer.save(folder / "");
    for (int again = 0; again < 2; ++again) {  // a second load begins anew
      folded.load(folder / "model.safetensors"), whole.load(folder / "model.safetensors");
      const auto a = folded(bytes), b = whole(bytes);
      float largest = 0, difference = 0;
      for (std::size_t i = 0; i < a.size(); ++i) {
        largest = std::max(largest, std::abs(b[i]));
        difference = std::max(difference, std::abs(a[i] - b[i]));
      }
      EXPECT_LT(difference, 1e-5f * largest);
      EXPECT_GT(difference, 0) << "nothing was folded";
    }
    EXPECT_THROW(folded.load(folder / "model.safetensors", {.scopes = {"stage1"}}), Error);
  }
}

TEST(Predictor, GivesARowAPartOfWhatIsOneForABatch) {
  Toy toy;
  Predictor losses(toy.loss, toy.trainer);  // one number a batch
  EXPECT_EQ(losses(toy.loader).size(), 3u);
}

TEST(Predictor, TakesNoMemoryOfTraining) {
  for (const Precision& precision : {Precision::f32(), Precision::f16()}) {
    Toy toy(precision);
    PredictorOptions options = toy.options();
    options.device = cpu_device({.threads = 1});  // counts by itself
    Predictor predict(toy.logits, options);
    predict(toy.loader);
    const MemoryReport memory = predict.memory(), training = toy.trainer.memory();
    EXPECT_EQ(memory.weights, training.weights);
    EXPECT_EQ(memory.masters + memory.gradients + memory.optimizer, 0u);
    EXPECT_GT(memory.activations, 0u);
    EXPECT_LT(memory.activations, training.activations);
    // Two plans (4 and 3 images) with a state each, that of the parameters, statistics and weights: nothing else.
    EXPECT_LE(memory.peak, memory.weights + 2 * (memory.activations + memory.workspace) + 4 * 1024);
  }
}

TEST(Predictor, RefusesWhatDoesNotFit) {
  Toy toy;
  Predictor predict(toy.logits, toy.trainer), loss(toy.loss, toy.trainer);
  const auto refused = [](auto&& call, const std::string& part) {
    try {
      call();
      ADD_FAILURE() << "it was taken: " << part;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  const std::vector<std::byte> bytes(40);
  refused([&] { predict(bytes); }, "images gets 40 bytes");
  refused([&] { loss(bytes); }, "2 inputs, 1 were given");
  refused([&] { predict(Batch{3, bytes, {}}); }, "3 images of 16");
  refused([&] { loss(Batch{2, std::vector<std::byte>(32), {1}}); }, "labels gets 4 bytes");
}

TEST(Predictor, UsesACheckpointThatSaysWhatItIs) {
  const auto data = std::make_shared<Dataset>(rendered_digits(Split::train, 40));
  const Loader loader(data, {.batch = 16});
  const Device device = cpu_device({.threads = 1});
  Graph graph;
  const Inputs in = inputs(graph, loader);
  const Value logits = lenet5(in.images), loss = cross_entropy(logits, in.labels);
  Trainer trainer(loss, {.device = device, .precision = Precision::bf16()});
  trainer.epoch(loader);
  const TemporaryFolder folder;
  trainer.save(folder / "", {{"net", "lenet5"}, {"precision", "bf16"}});

  const ModelDescription model = read_model_description(folder / "");
  EXPECT_EQ(model.image, (Shape{1, 28, 28, 1}));
  EXPECT_EQ(model.mean, data->mean);
  EXPECT_EQ(model.stddev, data->stddev);
  EXPECT_EQ(model.classes, 10);
  EXPECT_EQ(model.precision, "bf16");
  Predictor predict(folder / "", {.device = device, .batch = 16}), expected(softmax(logits), trainer);
  EXPECT_EQ(predict(loader), expected(loader));

  // What a file of before says less.
  SafeTensors file = read_safetensors(folder / "model.safetensors");
  for (const char* key : {"image", "dtype", "precision"}) file.metadata.erase(key);
  write_safetensors(file.file, file.tensors, file.metadata);
  Predictor older(folder / "", {.device = device, .precision = Precision::bf16(), .batch = 16});
  EXPECT_EQ(older(loader), expected(loader));
  file.metadata.erase("mean");
  write_safetensors(file.file, file.tensors, file.metadata);
  EXPECT_THROW(Predictor(folder / "", {.device = device}), FileError);
}

}  // namespace
}  // namespace halftone
