#include <fmt/format.h>

#include <algorithm>

#include "halftone/tensor/error.hpp"
#include "halftone/train/onnx.hpp"
#ifdef HALFTONE_HAS_ONNX

#include <cmath>
#include <memory>
#include <set>

#include "halftone/ops/dense.hpp"
#include "halftone/ops/norm.hpp"
#include "halftone/ops/pointwise.hpp"
#include "halftone/ops/pool2d.hpp"
#include "halftone/ops/softmax.hpp"
#include "halftone/ops/spatial.hpp"
#include "src/train/model_format.hpp"
#include "src/train/onnx_arithmetic.hpp"

namespace halftone {
namespace fs = std::filesystem;

namespace {

using onnx::ModelProto;

/// Adds a file's nodes to a graph, one by one.
class Import : public OnnxArithmetic {
 public:
  Import(const std::string& file, const onnx::GraphProto& graph, bool hollow, int classes = 0)
      : OnnxArithmetic(file, graph, hollow, classes) {
    for (const NodeProto& node : graph.node()) {
      for (const std::string& input : node.input()) ++readers_[input];
      const std::string& type = node.op_type();
      node_ = &node;
      if (type == "Constant" && node.output_size() > 0)
        if (const TensorProto* tensor = held()) constants_[node.output(0)] = tensor;
      if (type == "Transpose" && node.output_size() > 0 && wholes("perm") == Numbers{1, 0} && has(0) &&
          !transposed_.contains(node.input(0)))
        if (const TensorProto* tensor = constant_at(0); tensor && !integers_of(*tensor))
          constants_[node.output(0)] = tensor, transposed_.insert(node.output(0));
      if ((type == "Conv" || type == "Gemm" || type == "MatMul") && constant_at(1)) head_ = &node;
    }
  }

  Value operator()(Value images) {
    g_ = graph_of(images);
    items_[find_normalization().images] = {images, 4};
    for (const NodeProto& node : graph_.node()) {
      node_ = &node;
      if (skipped_.contains(&node)) continue;
      const auto known = operations().find(node.op_type());
      if (known == operations().end() || !(node.domain().empty() || node.domain() == "ai.onnx"))
        refuse(fmt::format("is a {}, an operation that Halftone lacks",
                           node.domain().empty() ? node.op_type() : node.domain() + "." + node.op_type()));
      need(node.output_size() > 0, "has no output");
      try {
        (this->*known->second)();
      } catch (const Failure&) {
        throw;
      } catch (const Error& error) {
        fail(fmt::format("{}: {}", file_, error.what()));
      }
    }
    return logits();
  }

  /// The only input that no constant feeds.
  const onnx::ValueInfoProto& input() const {
    const onnx::ValueInfoProto* found = nullptr;
    for (const onnx::ValueInfoProto& one : graph_.input()) {
      if (constants_.contains(one.name())) continue;
      if (found) broken("has more inputs than one of images");
      found = &one;
    }
    if (!found) broken("has no input");
    return *found;
  }

  /// What the file itself does to images before all else: (x / 255 - mean) / deviation, or a part of it.
  struct Normalization {
    std::string images;  ///< what its result is called
    bool of_bytes = false;
    std::optional<std::vector<float>> mean = {}, stddev = {};
  };

  /// Finds it; its nodes will be passed over.
  Normalization find_normalization() {
    Normalization found{input().name()};
    for (const NodeProto& node : graph_.node()) {
      node_ = &node;
      if (node.input_size() == 0 || node.output_size() != 1 || readers_[found.images] != 1) continue;
      const bool second = node.input_size() == 2 && node.input(1) == found.images;
      if (node.input(0) != found.images && !second) continue;
      if (node.op_type() == "Cast" ? found.mean || found.stddev : !step_of(found, second)) break;
      skipped_.insert(&node);
      found.images = node.output(0);
    }
    return found;
  }

 private:
  /// Takes one node with a constant into the normalization, if it is one in its order.
  bool step_of(Normalization& found, bool constant_is_first) const {
    const std::string& type = node_->op_type();
    if (found.stddev || (constant_is_first && (type == "Sub" || type == "Div"))) return false;
    const TensorProto* tensor = node_->input_size() == 2 ? constant_at(constant_is_first ? 0 : 1) : nullptr;
    const int rank = tensor ? tensor->dims_size() : 0;
    if (!tensor || elements_of(*tensor) < 1 ||
        (elements_of(*tensor) > 1 && (rank < 3 || tensor->dims(rank - 3) != elements_of(*tensor))))
      return false;
    std::vector<float> values = floats(*tensor);
    const auto each = [&](auto f) { std::ranges::transform(values, values.begin(), f); };
    const bool divides = type == "Div" || type == "Mul";
    if (type == "Mul") each([](float x) { return 1 / x; });
    if (type == "Add") each([](float x) { return -x; });
    if (divides && !found.mean && !found.of_bytes && values.size() == 1 && std::abs(values[0] - 255) < 1e-3f)
      return found.of_bytes = true;
    if (divides)
      found.stddev = std::move(values);
    else if ((type == "Sub" || type == "Add") && !found.mean)
      found.mean = std::move(values);
    else
      return false;
    return true;
  }

  using Operation = void (Import::*)();

  static const std::map<std::string, Operation>& operations() {
    static const std::map<std::string, Operation> all = {{"Conv", &Import::conv},
                                                         {"Gemm", &Import::gemm},
                                                         {"MatMul", &Import::matmul},
                                                         {"BatchNormalization", &Import::batch_normalization},
                                                         {"MaxPool", &Import::pool},
                                                         {"AveragePool", &Import::pool},
                                                         {"GlobalAveragePool", &Import::global_pool},
                                                         {"GlobalMaxPool", &Import::global_pool},
                                                         {"ReduceMean", &Import::reduce_mean},
                                                         {"Relu", &Import::activation<Relu>},
                                                         {"Sigmoid", &Import::activation<Sigmoid>},
                                                         {"Tanh", &Import::activation<Tanh>},
                                                         {"HardSwish", &Import::activation<HardSwish>},
                                                         {"HardSigmoid", &Import::hard_sigmoid},
                                                         {"LeakyRelu", &Import::leaky_relu},
                                                         {"Gelu", &Import::gelu},
                                                         {"Clip", &Import::clip},
                                                         {"Dropout", &Import::dropout},
                                                         {"Add", &Import::add},
                                                         {"Mul", &Import::mul},
                                                         {"Sub", &Import::sub},
                                                         {"Div", &Import::div},
                                                         {"Pad", &Import::pad},
                                                         {"Slice", &Import::slice},
                                                         {"Transpose", &Import::transpose},
                                                         {"ConvTranspose", &Import::conv_transpose},
                                                         {"Resize", &Import::resize},
                                                         {"Upsample", &Import::resize},
                                                         {"Concat", &Import::concat},
                                                         {"Flatten", &Import::flatten},
                                                         {"Reshape", &Import::reshape},
                                                         {"Squeeze", &Import::squeeze},
                                                         {"Unsqueeze", &Import::unsqueeze},
                                                         {"Split", &Import::split},
                                                         {"ConstantOfShape", &Import::constant_of_shape},
                                                         {"Neg", &Import::negate},
                                                         {"Erf", &Import::erf},
                                                         {"ReduceMax", &Import::reduce_max},
                                                         {"Softmax", &Import::softmax},
                                                         {"LogSoftmax", &Import::softmax},
                                                         {"Identity", &Import::identity},
                                                         {"Cast", &Import::cast},
                                                         {"Constant", &Import::constant},
                                                         {"Shape", &Import::shape},
                                                         {"Gather", &Import::gather}};
    return all;
  }

  void conv() {
    Value x = image_at(0);
    const TensorProto& weight = weight_at(1);
    need(weight.dims_size() == 4, "is no convolution in two dimensions");
    need(elements_of(weight) > 0, "has no sound weight");
    const std::int64_t k = units(weight.dims(0)), c = weight.dims(1), r = weight.dims(2), s = weight.dims(3);
    ConvAttributes a{.stride = extent(wholes("strides", {1, 1}), "strides"),
                     .dilation = extent(wholes("dilations", {1, 1}), "dilations"),
                     .groups = static_cast<int>(std::clamp<std::int64_t>(whole("group", 1), 0, 1 << 20))};
    Numbers pads = pads_of(x.shape(), extent({r, s}, "kernel"), a.stride, a.dilation);
    if (pads[0] > pads[2] || pads[1] > pads[3]) {  // that comes first
      const Extent before =
          extent({std::max<std::int64_t>(0, pads[0] - pads[2]), std::max<std::int64_t>(0, pads[1] - pads[3])}, "pads");
      x = pad2d(x, {before.h, 0, before.w, 0});
      pads[0] -= before.h, pads[1] -= before.w;
    }
    std::tie(a.padding, a.extra) = padding(pads);
    std::vector<float> values = swapped(floats(weight), weight.dims(0), c, r * s);
    std::vector<Value> inputs{x, parameter(1, ".weight", {k, r, s, c}, 4, std::move(values))};
    if (has(2)) inputs.push_back(vector_at(2, ".bias", k));
    put(g_.add_one(std::make_shared<Conv2d>(a), inputs, label()), 4);
  }

  void dense(bool transposed, int bias) {
    const Item& x = item(0);
    const TensorProto& weight = weight_at(1);
    need(x.rank == 2 && weight.dims_size() == 2 && elements_of(weight) > 0, "is no product with a matrix of weights");
    const std::int64_t in_file = weight.dims(transposed ? 0 : 1), features = weight.dims(transposed ? 1 : 0),
                       units = this->units(in_file);
    need(features == x.value.shape().features(),
         fmt::format("takes {} features, {} come", features, x.value.shape().features()));
    std::vector<float> values = floats(weight);
    if (!transposed) values = swapped(values, 1, features, in_file);
    const Shape& image = x.image;
    if (image.h * image.w > 1) values = swapped(values, in_file, image.c, image.h * image.w);
    std::vector<Value> inputs{x.value, parameter(1, ".weight", Shape::matrix(units, features), 2, std::move(values))};
    if (image.h * image.w > 1)
      for (ParameterInfo& one : g_->parameters)
        if (one.value == inputs[1].id()) one.flattened = image;
    if (bias >= 0) inputs.push_back(vector_at(bias, ".bias", units));
    put(g_.add_one(std::make_shared<Dense>(), inputs, label()), 2);
  }

  void gemm() {
    need(real("alpha", 1) == 1 && (real("beta", 1) == 1 || !has(2)) && whole("transA", 0) == 0,
         "has factors or a transposed input");
    need(has(1) && !transposed_.contains(node_->input(1)), "transposes its weights before");
    dense(whole("transB", 0) != 0, has(2) ? 2 : -1);
  }

  /// With the bias that an Add behind it brings.
  void matmul() {
    need(has(0) && has(1), "has not two inputs");
    const bool transposed = transposed_.contains(node_->input(1));
    const std::int64_t in_file = weight_at(1).dims_size() == 2 ? weight_at(1).dims(transposed ? 0 : 1) : 0;
    dense(transposed, -1);
    const std::string& output = node_->output(0);
    if (readers_[output] != 1) return;
    for (const NodeProto& next : graph_.node()) {
      if (next.op_type() != "Add" || next.input_size() != 2 || next.output_size() != 1) continue;
      const int other = next.input(0) == output ? 1 : next.input(1) == output ? 0 : -1;
      if (other < 0 || !constants_.contains(next.input(other))) continue;
      const Node before = g_->nodes.back();
      const std::int64_t units = g_.info(before.outputs[0]).spec.shape.c;
      if (elements_of(*constants_.at(next.input(other))) != in_file) return;
      if (node_ == head_) head_ = &next;
      node_ = &next;
      const Value bias = vector_at(other, ".bias", units);
      g_->nodes.pop_back();
      put(g_.add_one(before.op, {g_.value(before.inputs[0]), g_.value(before.inputs[1]), bias}, before.name), 2);
      skipped_.insert(&next);
      return;
    }
  }

  void batch_normalization() {
    const Item x = item(0);
    need(x.image.h * x.image.w <= 1, "takes a flattened image");
    const std::int64_t c = x.value.shape().c;
    const auto op = std::make_shared<BatchNorm>(real("epsilon", 1e-5f), 1 - real("momentum", 0.9f),
                                                whole("shift_based", 0) != 0);  // as `describe` writes it
    const Value gamma = vector_at(1, ".weight", c), beta = vector_at(2, ".bias", c),
                mean = statistic_at(3, ".running_mean", c, 0), variance = statistic_at(4, ".running_var", c, 1);
    put(g_.add(op, {x.value, gamma, beta, mean, variance}, label())[0], x.rank);
  }

  void pool() {
    const Value x = image_at(0);
    const Extent window = extent(wholes("kernel_shape"), "kernel_shape"),
                 stride = extent(wholes("strides", {1, 1}), "strides");
    const auto [pad, extra] = padding(pads_of(x.shape(), window, stride, 1));
    need(extra == Extent(0), "has more padding at one end than at the other");
    need(std::ranges::all_of(wholes("dilations"), [](std::int64_t d) { return d == 1; }), "has a dilation");
    const PoolOptions options{.stride = stride,
                              .padding = pad,
                              .ceil_mode = whole("ceil_mode", 0) != 0,
                              .count_include_pad = whole("count_include_pad", 0) != 0};
    put(node_->op_type() == "MaxPool" ? max_pool2d(x, window, options) : avg_pool2d(x, window, options), 4);
  }

  void global_pool() {
    put(node_->op_type() == "GlobalMaxPool" ? global_max_pool(image_at(0)) : global_avg_pool(image_at(0)), 4);
  }

  void reduce(Value (*over_pixels)(Value), const char* what) {
    Numbers axes = has(1) ? numbers_at(1).value_or(Numbers()) : wholes("axes");
    for (std::int64_t& axis : axes) axis += axis < 0 ? 4 : 0;
    std::ranges::sort(axes);
    need(axes == Numbers({2, 3}), fmt::format("is no {} over h and w", what));
    put(over_pixels(image_at(0)), whole("keepdims", 1) != 0 ? 4 : 2);
  }
  void reduce_mean() { reduce(global_avg_pool, "mean"); }
  void reduce_max() { reduce(global_max_pool, "largest number"); }

  void conv_transpose() {
    const Value x = image_at(0);
    const TensorProto& weight = weight_at(1);
    need(weight.dims_size() == 4 && elements_of(weight) > 0, "is no transposed convolution in two dimensions");
    need(!attribute("output_shape") && (!attribute("auto_pad") || attribute("auto_pad")->s() == "NOTSET"),
         "tells its output's shape");
    const std::int64_t k = weight.dims(0), c = weight.dims(1), r = weight.dims(2), s = weight.dims(3);
    const Numbers pads = wholes("pads", {0, 0, 0, 0}), more = wholes("output_padding", {0, 0});
    need(pads.size() == 4 && pads[0] == pads[2] && pads[1] == pads[3],
         "has other padding at one end than at the other");
    const ConvAttributes a{.stride = extent(wholes("strides", {1, 1}), "strides"),
                           .padding = extent({pads[0], pads[1]}, "pads"),
                           .dilation = extent(wholes("dilations", {1, 1}), "dilations"),
                           .groups = static_cast<int>(std::clamp<std::int64_t>(whole("group", 1), 1, 1 << 20))};
    const Value w = parameter(1, ".weight", {k, r, s, c}, 4, swapped(floats(weight), k, c, r * s));
    Value y = g_.add_one(std::make_shared<ConvTranspose2d>(a, extent(more, "output_padding")), {x, w}, label());
    if (has(2)) y = add_channels(y, vector_at(2, ".bias", c * a.groups));
    put(y, 4);
  }

  void softmax() {
    for (const onnx::ValueInfoProto& output : graph_.output())
      need(output.name() != node_->output(0),
           "is the net's end, and cross entropy takes logits: export the net without it");
    Item x = item(0);
    const std::int64_t axis = whole("axis", 1);
    need(node_->op_type() == "Softmax" && x.rank == 2 && (axis == 1 || axis == -1),
         "is no softmax over the features of an image");
    x.value = halftone::softmax(x.value);
    put(std::move(x));
  }

  Value logits() {
    if (graph_.output_size() != 1) broken("has not one output");
    const auto found = items_.find(graph_.output(0).name());
    if (found == items_.end() || !found->second.value) broken("has an output that no node makes");
    const Item& y = found->second;
    const Shape s = y.value.shape();
    if (s.h * s.w != 1 || y.image.h * y.image.w > 1) broken("has an output that is not [n, classes]");
    return y.value;
  }

  std::map<std::string, int> readers_;  // how many nodes take a value
  std::set<const NodeProto*> skipped_;
};

/// `file` is what messages call it.
Net net_from(const std::string& name, const std::string& file, ModelProto&& parsed, bool is_hollow, bool new_head) {
  const auto model = std::make_shared<const ModelProto>(std::move(parsed));
  constexpr int oldest = 7;
  for (const auto& set : model->opset_import())
    if ((set.domain().empty() || set.domain() == "ai.onnx") && set.version() < oldest)
      throw FileError(fmt::format("{} is of opset {}, the oldest that is read is {}", file, set.version(), oldest));
  Net net{.name = name, .image = {1, 0, 0, 0}, .classes = 0, .build = {}};
  Import first(file, model->graph(), is_hollow);
  const onnx::ValueInfoProto& input = first.input();
  if (const auto own = first.find_normalization(); own.of_bytes || own.mean || own.stddev) {
    net.mean = own.mean.value_or(std::vector<float>{0}), net.stddev = own.stddev.value_or(std::vector<float>{1});
    net.of_bytes = own.of_bytes;
  }
  const auto& dims = input.type().tensor_type().shape();
  if (dims.dim_size() != 4) throw FileError(file + " takes no images [n, c, h, w]");
  const auto known = [&](int i) {
    const std::int64_t extent = dims.dim(i).dim_value();
    return extent > 0 && extent <= 65536 ? extent : 0;
  };
  net.image = {1, known(2), known(3), known(1)};
  const auto build = [model, file, is_hollow](Value images, int head = 0) {
    return Import(file, model->graph(), is_hollow, head)(images);
  };
  if (net.image.elements() > 0) {
    Shape two = net.image;
    two.n = 2;
    net.classes = build(Graph().input("images", two)).channels();
  }
  net.build = [build, name, new_head, c = net.image.c](Value images, int classes) {
    if (c != 0 && images.shape().c != c)
      fail(fmt::format("net {}: it takes images of {} channels, these have {}", name, c, images.shape().c));
    const Value logits = build(images, new_head ? classes : 0);
    if (logits.channels() != classes)
      fail(fmt::format("net {}: it tells {} classes apart, the data have {}", name, logits.channels(), classes));
    return logits;
  };
  if (!is_hollow) net.graph = hollow(*model), net.checksum = checksum_of(*model);
  const auto& nodes = model->graph().node();
  const auto has = [&](const char* type) {
    return std::ranges::any_of(nodes, [&](const NodeProto& node) { return node.op_type() == type; });
  };
  if (has("Conv") && !has("BatchNormalization"))
    net.note =
        name +
        " has no batch norm: if its export folded it into the convolutions, torch.onnx.export(..., dynamo=False, "
        "training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False) keeps it";
  return net;
}

}  // namespace

bool has_onnx() { return true; }

Net read_onnx(const fs::path& file, bool new_head) {
  return net_from(file.filename().string(), file.string(), read_model(file), false, new_head);
}

Net onnx_net(const std::string& name, std::string_view graph) {
  auto model = model_of_hollow(graph);
  if (!model) throw FileError(name + " is no sound ONNX graph");
  Net net = net_from(name, name, *std::move(model), true, true);
  net.graph = graph;
  return net;
}

}  // namespace halftone
#else
namespace halftone {

bool has_onnx() { return false; }

Net read_onnx(const std::filesystem::path& file, bool) {
  fail(file.string() + " cannot be read: this build of Halftone has no libonnx");
}

Net onnx_net(const std::string& name, std::string_view) {
  fail(name + " cannot be read: this build of Halftone has no libonnx");
}

}  // namespace halftone
#endif

namespace halftone {

void normalize_as(const Net& net, Dataset& data) {
  if (net.mean.empty()) return;
  const auto channels = static_cast<std::size_t>(data.image.c);
  const bool bytes = data.dtype == DType::u8, above_one = std::ranges::any_of(net.mean, [](float x) { return x > 1; });
  float unit = 1;
  if (net.of_bytes && !bytes) unit = 255;
  if (!net.of_bytes && bytes && above_one) unit = 1.0f / 255;  // no mean of images in [0, 1] is
  const auto each = [&](const std::vector<float>& numbers) {
    if (numbers.size() != 1 && numbers.size() != channels)
      fail(fmt::format("net {}: it normalises {} channels, {} has {}", net.name, numbers.size(), data.name, channels));
    std::vector<float> all(channels);
    for (std::size_t i = 0; i < channels; ++i) all[i] = unit * numbers[numbers.size() == 1 ? 0 : i];
    return all;
  };
  data.mean = each(net.mean), data.stddev = each(net.stddev);
}

Net find_net(const std::string& name, bool new_head) {
  return name.ends_with(".onnx") ? read_onnx(name, new_head) : net_by_name(name);
}

}  // namespace halftone
