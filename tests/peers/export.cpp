// halftone_peer_export NET SEED FILE.safetensors: trains lenet5, resnet20 or `everything` for a few steps and writes
// all that compare.py needs to do the same in PyTorch: inputs, initial parameters, logits, loss, gradients, and what
// five steps of two optimizers made of the parameters and the running statistics.
#include <array>
#include <iostream>

#include "halftone/graph/plan.hpp"
#include "halftone/io/safetensors.hpp"
#include "halftone/nn/models.hpp"
#include "halftone/numeric/philox.hpp"
#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/dense.hpp"
#include "halftone/ops/initializers.hpp"
#include "halftone/ops/loss.hpp"
#include "halftone/ops/norm.hpp"
#include "halftone/ops/pointwise.hpp"
#include "halftone/ops/pool2d.hpp"
#include "halftone/train/pipeline.hpp"
#include "halftone/train/trainer.hpp"

namespace halftone {
namespace {

constexpr std::int64_t batch = 16, classes = 10;
constexpr int steps = 5;

struct Model {
  Value images, logits, loss;
};

/// Every differentiable operation but `custom` and `quantize`, whose jumps would make whole steps of last-bit
/// differences. The convolution before batch norm has no bias: the gradient of one would be rounding noise around zero.
Model everything(Graph& graph) {
  const Value images = graph.input("images", {batch, 13, 11, 3});
  const Value labels = graph.input("labels", {batch, 1, 1, 1}, DType::i32);
  Value x = normalize(images, {0.1f, -0.2f, 0.3f}, {1.0f, 0.8f, 1.25f});
  x = relu(batch_norm(conv2d(x, 12, 3, {.bias = false})));
  x = leaky_relu(conv2d(x, 16, {3, 5}, {.stride = {2, 1}, .padding = Extent{2, 1}, .groups = 4}), 0.1f);  // 8x9
  const Value depthwise = conv2d(x, 16, 3, {.padding = 2, .dilation = 2, .groups = 16});
  const Value gate = sigmoid(conv2d(x, 16, 1, {.bias = false}));
  x = gelu(group_norm(depthwise, 4)) * gate + scale(silu(x), 0.5f);
  const Value largest = max_pool2d(x, 3, {.stride = 2, .padding = 1});
  x = concat({largest, avg_pool2d(x, {2, 3}, {.stride = 2, .padding = {0, 1}})});  // 4x5
  x = dropout(tanh(layer_norm(conv2d(x, 24, 1))), 0);
  x = cast(reshape(x, {-1, 5, 4, 24}), DType::f32);
  const Value pooled = gelu_tanh(dense(concat({global_avg_pool(x), global_max_pool(x)}), 32));
  const Value flat = hard_tanh(dense(x, 32));
  const Value shared = graph.parameter("shared.weight", Shape::matrix(classes, 32), uniform(0.2f), 2);
  const Value logits = dense(pooled, shared) + dense(flat, shared);
  return {images, logits,
          cross_entropy(logits, labels, {.label_smoothing = 0.1f}) + scale(mean_squared_error(pooled, flat), 0.5f)};
}

Model build(Graph& graph, const std::string& name) {
  if (name == "everything") return everything(graph);
  const Net& net = net_by_name(name);
  const bool large = net.image.h > 28;  // so many relus that rounding always throws one over
  const Value images = graph.input("images", {batch, large ? 8 : net.image.h, large ? 8 : net.image.w, net.image.c});
  const Value labels = graph.input("labels", {batch, 1, 1, 1}, DType::i32);
  const Value logits = net.build(images, classes);
  return {images, logits, cross_entropy(logits, labels)};
}

/// Everything that one net is asked, and the tensors for the file.
class Export {
 public:
  Export(const std::string& name, std::uint64_t seed) : seed_(seed), model_(build(graph_, name)) {
    images_.resize(static_cast<std::size_t>(model_.images.shape().elements()));
    for (std::size_t i = 0; i < images_.size(); ++i) images_[i] = noise(1.75f, 0, i);  // variance about 1
    for (std::size_t i = 0; i < batch; ++i)
      labels_.push_back(static_cast<std::int32_t>(bits(seed_, 0, 1, i) % classes));
    add("images", DType::f32, model_.images.shape(), inputs()[0]);
    add("labels", DType::i32, Shape::vector(batch), inputs()[1], 1);
  }

  /// One forward and backward pass of training, without an update.
  void pass() {
    const Device device = cpu_device();
    Graph graph = for_training(graph_, model_.loss.id(), {.device = device});
    Parameters parameters(graph, device, {.seed = seed_});
    stir(parameters);
    const int keep[] = {model_.logits.id(), model_.loss.id()};
    const Plan plan(graph, parameters, keep);
    for (std::size_t i = 0; i < graph_->inputs.size(); ++i) plan.view(graph_->inputs[i]).write_bytes(inputs()[i]);
    add_model("initial.", parameters);
    plan.run();
    add("logits", plan.view(model_.logits.id()), 2);
    add("loss", plan.view(model_.loss.id()), 1);
    for (const ParameterSlot& slot : parameters.entries)
      add("gradient." + slot.name, parameters.gradient(slot), slot.rank);
  }

  void train(const std::string& name, const UpdateRule& rule, float learning_rate) {
    TrainerOptions options{.device = cpu_device(), .optimizer = rule};
    options.schedule = Schedule::constant(learning_rate);
    options.seed = seed_;
    Trainer trainer(model_.loss, options);
    stir(trainer.parameters());
    for (int i = 0; i < steps; ++i)
      if (trainer.step(inputs()).skipped) fail(name + ": a step was skipped");
    add_model(name + ".", trainer.parameters());
  }

  void write(const char* path) const { write_safetensors(path, tensors_); }

 private:
  /// Evenly spread in [-bound, bound).
  float noise(float bound, std::uint32_t stream, std::size_t i) const {
    return bound * (2 * uniform(seed_, 0, stream, i) - 1);
  }

  /// Vectors would start at 0 or 1, where a mistake may hide.
  void stir(Parameters& parameters) const {
    std::uint32_t stream = 2;
    for (const ParameterSlot& slot : parameters.entries) {
      std::vector<float> values = parameters.weight(slot).read();
      for (std::size_t i = 0; i < values.size() && slot.rank == 1; ++i) values[i] += noise(0.25f, stream, i);
      parameters.assign(slot, values);
      ++stream;
    }
  }

  std::array<std::span<const std::byte>, 2> inputs() const {
    return {std::as_bytes(std::span(images_)), std::as_bytes(std::span(labels_))};
  }

  void add(const std::string& name, DType dtype, Shape s, std::span<const std::byte> bytes, int rank = 4) {
    std::vector<std::int64_t> shape{s.n, s.h, s.w, s.c};
    if (rank == 2) shape = {s.n, s.c};
    if (rank == 1) shape = {s.elements()};
    tensors_.push_back({name, dtype, shape, {bytes.begin(), bytes.end()}});
  }

  void add(const std::string& name, const TensorView& view, int rank) {
    const std::vector<float> values = view.read();
    add(name, DType::f32, view.spec.shape, std::as_bytes(std::span(values)), rank);
  }

  void add_model(const std::string& prefix, const Parameters& parameters) {
    for (const ParameterSlot& slot : parameters.entries) add(prefix + slot.name, parameters.weight(slot), slot.rank);
    for (std::size_t i = 0; i < parameters.statistics.size(); ++i)
      add(prefix + parameters.statistics[i].name, parameters.statistic(i), 1);
  }

  std::uint64_t seed_;
  Graph graph_;
  Model model_;
  std::vector<float> images_;
  std::vector<std::int32_t> labels_;
  std::vector<StoredTensor> tensors_;
};

}  // namespace
}  // namespace halftone

int main(int count, char** arguments) try {
  using namespace halftone;
  if (count != 4) {
    std::cerr << "usage: halftone_peer_export lenet5|resnet20|everything SEED FILE.safetensors\n";
    return 2;
  }
  Export net(arguments[1], std::stoull(arguments[2]));
  net.pass();
  net.train("sgd", Sgd{.momentum = 0.9f, .weight_decay = 5e-4f, .nesterov = true}, 0.02f);
  net.train("adamw", Adam{.epsilon = 1e-3f, .weight_decay = 0.01f, .decoupled = true}, 0.001f);
  net.write(arguments[3]);
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
