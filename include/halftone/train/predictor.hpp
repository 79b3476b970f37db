#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "halftone/nn/models.hpp"
#include "halftone/train/load_model.hpp"
#include "halftone/train/trainer.hpp"

namespace halftone {

/// What a checkpoint's model says of a net that the library can build.
struct ModelDescription {
  std::shared_ptr<const Net> net = nullptr;
  Shape image = {};         ///< [1, h, w, c]; where an older file does not say, what the net was made for
  DType dtype = DType::u8;  ///< of the images before they are normalised
  int classes = 0;
  std::vector<std::string> class_names = {};  ///< one a class, or none
  std::vector<float> mean = {}, stddev = {};  ///< one a channel
  std::string data = {}, precision = "f32";   ///< that it was trained on and in
  double validation = 0;                      ///< the share of these that was held out, 0: none
  bool averaged = false;                      ///< the best weights are averages
  std::filesystem::path file = {};            ///< that says all this
};

/// Reads what a checkpoint's model (`model_file`) says of itself; throws FileError naming it and what it does not say.
ModelDescription read_model_description(const std::filesystem::path& checkpoint);

/// The number system to run a net in: `wanted`, else that in which it was trained. Throws Error where only one of the
/// two makes another net of it (`Precision::binarizes`).
Precision precision_for(const ModelDescription& model, const std::optional<Precision>& wanted);

/// The net's logits [n, 1, 1, classes] over the graph's new `inputs`, normalised by the net's own mean and deviation.
/// `images` is their shape, n included.
Value logits_of(const ModelDescription& model, Graph graph, Shape images);

/// What `export_packed` wrote: weights that became a bit each, all weights, and bytes of the signs in the file.
struct PackedReport {
  std::int64_t signs = 0, weights = 0, bytes = 0;
};

/// Writes a checkpoint's net by `save_packed`, in the number system in which it was trained. Throws FileError as
/// `read_model_description`, and Error for a net that has no weights that are signs.
PackedReport export_packed(const std::filesystem::path& checkpoint, const std::filesystem::path& file,
                           ModelWeights weights = ModelWeights::best);

struct PredictorOptions {
  Device device = best_device();
  std::optional<Precision> precision = {};    ///< by default f32 or, of a checkpoint's net, that of its training
  ModelWeights weights = ModelWeights::best;  ///< of a checkpoint
  std::int64_t batch = 64;                    ///< images that a checkpoint's net takes at a time
  /// In plain f32 batch norms become part of the layers before them, which is faster; results then differ from the
  /// trainer's evaluation, by less than 1e-5 of the largest for the nets that come with the library.
  bool fold_norms = true;
};

/// Runs a graph in evaluation: images in, the numbers of one value out, without gradients, masters or anything else
/// that only training needs. That value itself is f32, all before it is stored as the precision says. It belongs to one
/// thread at a time.
class Predictor {
 public:
  /// The class probabilities of a checkpoint's net, as `halftone train --out`, `Trainer::save` with `net` among its
  /// metadata or `export_packed` wrote it. Throws FileError naming the folder or file and what is wrong with it.
  explicit Predictor(const std::filesystem::path& checkpoint, const PredictorOptions& options = {});

  /// Any value of a graph, by weights of its own: those of birth until `load`.
  explicit Predictor(Value output, const PredictorOptions& options = {});

  /// Any value of a graph by a trainer's weights, as they are at each call. The trainer must live as long.
  Predictor(Value output, Trainer& trainer);
  Predictor(Value output, Parameters& parameters, const Precision& precision);

  Predictor(Predictor&&) noexcept;
  Predictor& operator=(Predictor&&) noexcept;
  ~Predictor();

  /// `load_model` into the weights; a part only before the first prediction, which folds batch norms.
  LoadReport load(const std::filesystem::path& file, const LoadOptions& options = {});

  /// The output's numbers for any count of images, as the only input that the output depends on stores them: image by
  /// image, in parts of the graph's batch size of which the last may be shorter. An output that is one for the whole
  /// batch, such as a loss, gives a row a part. Throws Error for bytes that are no whole images.
  std::vector<float> operator()(std::span<const std::byte> images);

  /// The same for several inputs, in the order in which the graph has them, those left out that the output does not
  /// depend on. Throws Error naming an input that does not fit.
  std::vector<float> operator()(std::span<const std::span<const std::byte>> inputs);

  /// The same for a batch's images and labels, whether or not the output depends on both. Throws Error for other sizes.
  std::vector<float> operator()(const Batch& batch);

  /// The same for all images of a loader in their order, without augmentation.
  std::vector<float> operator()(const Loader& loader);

  Shape row() const;            ///< of the output for one image: [1, h, w, c]
  MemoryReport memory() const;  ///< weights, and activations and workspace of the largest batch so far

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace halftone
