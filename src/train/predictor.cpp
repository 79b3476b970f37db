#include "halftone/train/predictor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <nlohmann/json.hpp>

#include "halftone/ops/softmax.hpp"
#include "halftone/tensor/text.hpp"
#include "halftone/train/inputs.hpp"
#include "halftone/train/onnx.hpp"
#include "halftone/train/pipeline.hpp"
#include "src/train/model_format.hpp"

namespace halftone {
namespace {

/// Reads the metadata of a checkpoint's model, each entry by its key.
class Description {
 public:
  explicit Description(const std::filesystem::path& checkpoint)
      : directory_(checkpoint), metadata_(read_model_metadata(checkpoint)) {}

  ModelDescription read() const {
    ModelDescription model;
    model.file = model_file(directory_);
    model.net = net();
    model.classes = static_cast<int>(whole(text("classes"), "it does not say how many classes it tells apart"));
    model.image = image(model.net->image);
    if (const std::string dtype = text("dtype"); !dtype.empty()) model.dtype = dtype_of(dtype);
    model.mean = per_channel("mean", model.image.c);
    model.stddev = per_channel("stddev", model.image.c);
    model.class_names = names(text("class_names"));
    if (std::ssize(model.class_names) != model.classes) model.class_names.clear();
    model.data = text("data");
    if (const std::string share = text("validation"); !share.empty()) model.validation = share_of(share);
    if (const std::string precision = text("precision"); !precision.empty()) model.precision = known(precision);
    model.averaged = text("weights") == "averaged";
    return model;
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    throw FileError(fmt::format("{}: {}", directory_.string(), why));
  }

  std::string text(const std::string& key) const { return text_at(metadata_, key); }

  std::int64_t whole(std::string_view text, const std::string& otherwise) const {
    const auto number = parse_number(text);
    if (!number || *number < 1 || *number > 1e6 || *number != static_cast<double>(static_cast<int>(*number)))
      refuse(otherwise);
    return static_cast<std::int64_t>(*number);
  }

  std::shared_ptr<const Net> net() const {
    const std::string name = text("net"), graph = text("graph");
    if (name.empty()) refuse("it does not say which net it holds");
    if (!graph.empty()) return std::make_shared<const Net>(onnx_net(name, graph));
    for (const Net& net : nets())
      if (net.name == name) return std::make_shared<const Net>(net);
    refuse(fmt::format("it holds the net '{}', which is unknown", name));
  }

  Shape image(Shape otherwise) const {
    const std::string said = text("image");
    if (said.empty()) return otherwise;
    const std::string bad = fmt::format("its image is '{}', not HEIGHTxWIDTHxCHANNELS", said);
    const auto extents = parts(said, 'x');
    if (extents.size() != 3) refuse(bad);
    return {1, whole(extents[0], bad), whole(extents[1], bad), whole(extents[2], bad)};
  }

  DType dtype_of(const std::string& name) const {
    const auto dtype = parse_dtype(name);
    if (dtype != DType::u8 && dtype != DType::f32) refuse(fmt::format("its dtype is '{}', not u8 or f32", name));
    return *dtype;
  }

  std::string known(const std::string& precision) const {
    try {
      return precision_by_name(precision), precision;
    } catch (const Error& error) {
      refuse(error.what());
    }
  }

  /// A JSON list; older files have the names between commas.
  std::vector<std::string> names(const std::string& said) const {
    if (said.empty()) return {};
    if (!said.starts_with('[')) {
      const auto all = parts(said, ',');
      return {all.begin(), all.end()};
    }
    try {
      return nlohmann::json::parse(said).get<std::vector<std::string>>();
    } catch (const nlohmann::json::exception&) {
      refuse("its class names are not a list of names");
    }
  }

  double share_of(const std::string& said) const {
    const auto share = parse_number(said);
    if (!share || !(*share > 0 && *share < 1)) refuse(fmt::format("its validation is '{}', not between 0 and 1", said));
    return *share;
  }

  std::vector<float> per_channel(const char* key, std::int64_t channels) const {
    const std::string said = text(key);
    std::vector<float> numbers;
    for (const std::string_view part : parts(said, ',')) {
      const auto number = parse_number(part);
      if (number && fits_f32(*number)) numbers.push_back(static_cast<float>(*number));
    }
    if (std::ssize(numbers) != channels) refuse(fmt::format("its {} is not that of {} channels", key, channels));
    return numbers;
  }

  const std::filesystem::path& directory_;
  Metadata metadata_;
};

Value probabilities(const ModelDescription& model, std::int64_t batch) {
  Shape images = model.image;
  images.n = batch;
  return softmax(logits_of(model, Graph(), images));
}

PredictorOptions as_trained(PredictorOptions options, const ModelDescription& model) {
  options.precision = precision_for(model, options.precision);
  return options;
}

}  // namespace

ModelDescription read_model_description(const std::filesystem::path& checkpoint) {
  return Description(checkpoint).read();
}

Precision precision_for(const ModelDescription& model, const std::optional<Precision>& wanted) {
  const Precision trained = precision_by_name(model.precision);
  if (wanted && (wanted->binarizes != trained.binarizes || wanted->shift_norms != trained.shift_norms))
    fail(fmt::format("precision {}: the net was trained in {}, and {} is another net", wanted->name, trained.name,
                     wanted->shift_norms || trained.shift_norms ? "binary:shift" : "binary"));
  return wanted.value_or(trained);
}

Value logits_of(const ModelDescription& model, Graph graph, Shape images) {
  Dataset like;
  like.image = images;
  like.dtype = model.dtype;
  like.mean = model.mean;
  like.stddev = model.stddev;
  const Value logits = model.net->build(inputs(graph, like, images.n).images, model.classes);
  std::int64_t weights = 0;
  for (const ParameterInfo& parameter : graph->parameters) weights += graph.info(parameter.value).spec.shape.elements();
  std::error_code none;
  const auto bytes = std::filesystem::file_size(model.file, none);
  if (!none && static_cast<std::uintmax_t>(weights) / 8 > bytes)
    throw FileError(fmt::format("{}: it describes a net of {} weights, more than its {} bytes can hold",
                                model.file.string(), weights, bytes));
  return logits;
}

PackedReport export_packed(const std::filesystem::path& checkpoint, const std::filesystem::path& file,
                           ModelWeights weights) {
  const ModelDescription model = read_model_description(checkpoint);
  const Precision precision = precision_for(model, {});
  const Value logits = logits_of(model, Graph(), model.image);
  const Device device = cpu_device();
  Parameters parameters(for_evaluation(graph_of(logits), logits.id(), 1, precision, device), device,
                        {.precision = precision, .gradients = false});
  load_model(model_file(checkpoint), parameters, {.weights = weights});
  PackedReport report;
  for (const ParameterSlot& slot : parameters.entries) {
    const TensorSpec spec = parameters.weight(slot).spec;
    report.weights += spec.shape.elements();
    if (!is_packed(spec.storage)) continue;
    report.signs += spec.shape.elements();
    report.bytes += static_cast<std::int64_t>(spec.bytes());
  }
  if (report.signs == 0) fail(fmt::format("packed: no weight of {} in {} is a sign", model.net->name, precision.name));
  Metadata metadata = read_model_metadata(checkpoint);
  metadata["weights"] = model.averaged && weights == ModelWeights::best ? "averaged" : "raw";
  save_packed(file, parameters, metadata);
  return report;
}

struct Predictor::Impl {
  Impl(Value the_output, const Precision& the_precision, const Device& device, Parameters* of_others, bool may_fold)
      : graph(graph_of(the_output)),
        output(the_output.id()),
        precision(the_precision),
        folds(may_fold && is_plain_f32(the_precision)),
        parameters(of_others) {
    check(precision);
    if (graph->inputs.empty()) fail("predictor: the graph has no input");
    batch = graph.info(graph->inputs[0]).spec.shape.n;
    const Graph evaluated = evaluation(batch, device);
    inputs = evaluated->inputs;
    if (parameters) return;
    own = std::make_unique<Parameters>(evaluated, device,
                                       Parameters::Options{.precision = precision, .gradients = false});
    parameters = own.get();
  }

  static bool is_plain_f32(const Precision& p) {
    const Storage f32(DType::f32);
    return p.storage.weights == f32 && p.storage.activations == f32 && p.exceptions.empty() && !p.binarizes;
  }

  LoadReport load(const std::filesystem::path& file, const LoadOptions& options) {
    if (folded && !(options.scopes.empty() && options.left_out.empty()))
      fail(
          "predictor: batch norm has been folded: a part can be loaded before the first prediction, or without "
          "fold_norms");
    LoadReport report = load_model(file, *parameters, options);
    folded = false;
    return report;
  }

  /// The graph that computes the output, with no inputs but those that it takes.
  Graph evaluation(std::int64_t n, const Device& device) {
    Graph result = for_evaluation(graph, output, n, precision, device, folds ? &norms : nullptr);
    const auto read_by = readers(result);
    std::erase_if(result->inputs, [&](int id) { return id != output && read_by[at(id)].empty(); });
    return result;
  }

  Plan& plan(std::int64_t n) {
    for (const auto& [size, plan] : plans)
      if (size == n) return *plan;
    if (plans.size() >= 4) plans.pop_front();
    const int keep[] = {output};
    plans.emplace_back(n, std::make_unique<Plan>(evaluation(n, parameters->device()), *parameters, keep));
    return *plans.back().second;
  }

  /// How many images there are, by the first input where `count` does not say; all must agree.
  std::int64_t images_in(std::span<const std::span<const std::byte>> given, std::int64_t count) const {
    if (given.size() != inputs.size())
      fail(fmt::format("predictor: the output depends on {} inputs, {} were given", inputs.size(), given.size()));
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const ValueInfo& input = graph.info(inputs[i]);
      const auto bytes = static_cast<std::int64_t>(input.spec.tensor().bytes()) / batch;
      if (count < 0) count = std::ssize(given[i]) / bytes;
      if (std::ssize(given[i]) != count * bytes)
        fail(fmt::format("predictor: {} gets {} bytes for {} images of {}", input.name, given[i].size(), count, bytes));
    }
    return count;
  }

  std::vector<float> predict(std::vector<std::span<const std::byte>> given, std::int64_t count = -1) {
    count = images_in(given, count);
    if (folds && !folded) fold_numbers(*parameters, norms);
    folded = folds;
    std::vector<float> result;
    for (std::int64_t n; count > 0; count -= n) {
      n = std::min(batch, count);
      Plan& part = plan(n);
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        TensorView input = part.view(inputs[i]);
        input.write_bytes(given[i].first(input.spec.bytes()));
        given[i] = given[i].subspan(input.spec.bytes());
      }
      part.run();
      const auto values = part.view(output).read();
      result.insert(result.end(), values.begin(), values.end());
    }
    return result;
  }

  /// Those of a batch's two parts that the output depends on.
  std::vector<std::span<const std::byte>> parts_of(const Batch& b) const {
    const std::span<const std::byte> both[] = {b.images, std::as_bytes(std::span(b.labels))};
    std::vector<std::span<const std::byte>> needed;
    for (const int id : inputs) {
      const auto i = std::find(graph->inputs.begin(), graph->inputs.end(), id) - graph->inputs.begin();
      if (i >= std::ssize(both)) fail(fmt::format("predictor: a batch has nothing for {}", graph.info(id).name));
      needed.push_back(both[i]);
    }
    return needed;
  }

  Graph graph;
  int output;
  Precision precision;
  bool folds, folded = false;  // whether norms are, and the numbers have been
  std::vector<FoldedNorm> norms;
  std::int64_t batch = 0;
  std::vector<int> inputs;  // that the output depends on
  std::unique_ptr<Parameters> own;
  Parameters* parameters;
  std::deque<std::pair<std::int64_t, std::unique_ptr<Plan>>> plans;  // by batch size, the last few
};

Predictor::Predictor(const std::filesystem::path& checkpoint, const PredictorOptions& options) {
  const ModelDescription model = read_model_description(checkpoint);
  *this = Predictor(probabilities(model, options.batch), as_trained(options, model));
  load(model_file(checkpoint), {.weights = options.weights});
}

Predictor::Predictor(Value output, const PredictorOptions& options)
    : impl_(std::make_unique<Impl>(output, options.precision.value_or(Precision::f32()), options.device, nullptr,
                                   options.fold_norms)) {}

Predictor::Predictor(Value output, Trainer& trainer)
    : Predictor(output, trainer.parameters(), trainer.options().precision) {}

Predictor::Predictor(Value output, Parameters& parameters, const Precision& precision)
    : impl_(std::make_unique<Impl>(output, precision, parameters.device(), &parameters, false)) {}

Predictor::Predictor(Predictor&&) noexcept = default;
Predictor& Predictor::operator=(Predictor&&) noexcept = default;
Predictor::~Predictor() = default;

LoadReport Predictor::load(const std::filesystem::path& file, const LoadOptions& options) {
  return impl_->load(file, options);
}

std::vector<float> Predictor::operator()(std::span<const std::byte> images) { return impl_->predict({images}); }

std::vector<float> Predictor::operator()(std::span<const std::span<const std::byte>> inputs) {
  return impl_->predict({inputs.begin(), inputs.end()});
}

std::vector<float> Predictor::operator()(const Batch& batch) {
  return impl_->predict(impl_->parts_of(batch), batch.size);
}

std::vector<float> Predictor::operator()(const Loader& loader) {
  check_images(impl_->graph, loader);
  std::vector<float> result;
  const Loader in_order = loader.in_order();
  Epoch batches = in_order.epoch(0);
  while (const Batch* batch = batches.next()) {
    const auto values = (*this)(*batch);
    result.insert(result.end(), values.begin(), values.end());
  }
  return result;
}

Shape Predictor::row() const {
  Shape row = impl_->graph.info(impl_->output).spec.shape;
  row.n = 1;
  return row;
}

MemoryReport Predictor::memory() const {
  MemoryReport report{.weights = impl_->parameters->bytes(Store::weights)};
  for (const auto& [size, plan] : impl_->plans) {
    report.activations = std::max(report.activations, plan->arena_bytes());
    report.workspace = std::max(report.workspace, plan->workspace_bytes());
  }
  report.peak = impl_->parameters->device().peak();
  return report;
}

}  // namespace halftone
