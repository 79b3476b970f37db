#include <fmt/format.h>

#include <algorithm>

#include "halftone/tensor/error.hpp"
#include "halftone/train/onnx.hpp"
#ifdef HALFTONE_HAS_ONNX
#include <fmt/ranges.h>

#include <cmath>
#include <limits>
#include <list>
#include <memory>
#include <set>

#include "halftone/ops/dense.hpp"
#include "halftone/ops/initializers.hpp"
#include "halftone/ops/norm.hpp"
#include "halftone/ops/pointwise.hpp"
#include "halftone/ops/pool2d.hpp"
#include "halftone/ops/softmax.hpp"
#include "halftone/ops/spatial.hpp"
#include "src/train/model_format.hpp"
#include "src/train/onnx_nodes.hpp"

namespace halftone {
namespace fs = std::filesystem;

namespace {

using onnx::AttributeProto, onnx::ModelProto, onnx::NodeProto, onnx::TensorProto;

/// What a value of the file is here: a tensor, whose [n, c, h, w] is [n, h, w, c] and whose [n, features] is
/// [n, 1, 1, features], or whole numbers that are known already.
struct Item {
  Value value = {};
  int rank = 0;
  Shape image = {};  ///< of more than a pixel, whose features the file has in the order c, h, w
  std::optional<Numbers> numbers = {};
};

/// Adds a file's nodes to a graph, one by one.
class Import : OnnxNodes {
 public:
  /// `classes`: what a head born anew tells apart; 0: the head is the file's.
  Import(const std::string& file, const onnx::GraphProto& graph, bool hollow, int classes = 0)
      : OnnxNodes(file, graph, hollow), classes_(classes) {
    for (const NodeProto& node : graph.node()) {
      for (const std::string& input : node.input()) ++readers_[input];
      const std::string& type = node.op_type();
      node_ = &node;
      if (type == "Constant" && node.output_size() > 0)
        if (const TensorProto* tensor = held()) constants_[node.output(0)] = tensor;
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
                                                         {"Softmax", &Import::softmax},
                                                         {"LogSoftmax", &Import::softmax},
                                                         {"Identity", &Import::identity},
                                                         {"Cast", &Import::cast},
                                                         {"Constant", &Import::constant},
                                                         {"Shape", &Import::shape},
                                                         {"Gather", &Import::gather}};
    return all;
  }

  // What has been made of the file.

  /// Whole numbers that are known before anything runs, such as a shape.
  std::optional<Numbers> numbers_at(int i) const {
    if (!has(i)) return {};
    if (const auto item = items_.find(node_->input(i)); item != items_.end()) return item->second.numbers;
    const TensorProto* tensor = constant_at(i);
    return tensor ? integers_of(*tensor) : std::nullopt;
  }

  const Item& item(int i) const {
    need(has(i), fmt::format("lacks input {}", i));
    const auto found = items_.find(node_->input(i));
    need(found != items_.end(), fmt::format("takes {}, which no node before it makes", node_->input(i)));
    need(static_cast<bool>(found->second.value), fmt::format("takes {}, which is no tensor here", node_->input(i)));
    return found->second;
  }

  Value image_at(int i) const {
    const Item& x = item(i);
    need(x.rank == 4, fmt::format("takes {}, which is no image", node_->input(i)));
    return x.value;
  }

  void put(Item item) { items_[node_->output(0)] = std::move(item); }
  void put(Value value, int rank) { put(Item{value, rank}); }

  /// "conv1" for a node whose weights are called conv1.weight; else after the node.
  std::string label() const {
    std::string name = has(1) ? node_->input(1) : "";
    if (const std::size_t end = name.rfind(".weight"); end != std::string::npos && end > 0) return name.substr(0, end);
    name = node_->name().empty() ? node_->output(0) : node_->name();
    if (const std::string ending = "/" + node_->op_type(); name.ends_with(ending))
      name.resize(name.size() - ending.size());
    std::ranges::replace(name, '/', '.');
    return name.starts_with('.') ? name.substr(1) : name;
  }

  /// What a parameter is called: as in the file, where that is no name that the exporter made up.
  std::string name_of_input(int i, const char* otherwise) const {
    const std::string& name = node_->input(i);
    return name.find("::") == std::string::npos ? name : label() + otherwise;
  }

  bool is_new() const { return classes_ > 0 && node_ == head_; }
  std::int64_t units(std::int64_t in_file) const { return is_new() ? classes_ : in_file; }

  Value parameter(int i, const char* name, Shape shape, int rank, std::vector<float> values) {
    Value& known = parameters_[node_->input(i)];
    if (known) {
      need(known.shape() == shape, fmt::format("shares {} with a node that takes it otherwise", node_->input(i)));
      return known;
    }
    auto first = [numbers = std::make_shared<const std::vector<float>>(std::move(values))](
                     std::span<float> to, std::uint64_t, std::uint32_t) {
      if (!numbers->empty()) std::ranges::copy(*numbers, to.begin());
    };
    if (!is_new()) return known = g_.parameter(name_of_input(i, name), shape, std::move(first), rank);
    if (rank > 1) head_bound_ = 1 / std::sqrt(static_cast<float>(shape.elements() / shape.n));
    return known = g_.parameter(name_of_input(i, name), shape, uniform(head_bound_), rank);
  }

  Value vector_at(int i, const char* name, std::int64_t size) {
    const TensorProto& tensor = weight_at(i);
    if (is_new()) return parameter(i, name, Shape::vector(size), 1, {});
    need(elements_of(tensor) == size, fmt::format("takes {}, which is not [{}]", tensor.name(), size));
    return parameter(i, name, Shape::vector(size), 1, floats(tensor));
  }

  Value statistic_at(int i, const char* name, std::int64_t size, float initial) {
    const TensorProto& tensor = weight_at(i);
    need(elements_of(tensor) == size, fmt::format("takes {}, which is not [{}]", tensor.name(), size));
    const Value value = g_.statistic(name_of_input(i, name), Shape::vector(size), initial);
    g_->statistics.back().values = floats(tensor);
    return value;
  }

  Extent extent(const Numbers& numbers, const char* what) const {
    constexpr std::int64_t most = 1 << 16;
    need(numbers.size() == 2 && std::ranges::all_of(numbers, [](std::int64_t x) { return x >= 0 && x <= most; }),
         fmt::format("has {} [{}], not one for h and one for w", what, fmt::join(numbers, ", ")));
    return {static_cast<int>(numbers[0]), static_cast<int>(numbers[1])};
  }

  /// Padding on all sides and what comes at the bottom and right besides.
  std::pair<Extent, Extent> padding(const Shape& x, Extent window, Extent stride, Extent dilation) const {
    const AttributeProto* automatic = attribute("auto_pad");
    const std::string mode = automatic ? automatic->s() : "NOTSET";
    Numbers pads = wholes("pads", {0, 0, 0, 0});
    need(pads.size() == 4, "has not four pads");
    if (mode == "SAME_UPPER") {
      const auto both = [](std::int64_t size, int window, int stride, int dilation) {
        need_positive(stride);
        const std::int64_t out = (size + stride - 1) / stride;
        return std::max<std::int64_t>(0, (out - 1) * stride + std::int64_t{dilation} * (window - 1) + 1 - size);
      };
      const std::int64_t h = both(x.h, window.h, stride.h, dilation.h), w = both(x.w, window.w, stride.w, dilation.w);
      pads = {h / 2, w / 2, h - h / 2, w - w / 2};
    } else if (mode == "VALID") {
      pads = {0, 0, 0, 0};
    } else {
      need(mode == "NOTSET", fmt::format("has auto_pad {}, which Halftone lacks", mode));
    }
    need(pads[0] <= pads[2] && pads[1] <= pads[3], "has more padding at the top or left than at the other end");
    return {extent({pads[0], pads[1]}, "pads"), extent({pads[2] - pads[0], pads[3] - pads[1]}, "pads")};
  }
  static void need_positive(int stride) {
    if (stride < 1) fail("a stride is 0");
  }

  // The operations.

  void conv() {
    const Value x = image_at(0);
    const TensorProto& weight = weight_at(1);
    need(weight.dims_size() == 4, "is no convolution in two dimensions");
    need(elements_of(weight) > 0, "has no sound weight");
    const std::int64_t k = units(weight.dims(0)), c = weight.dims(1), r = weight.dims(2), s = weight.dims(3);
    ConvAttributes a{.stride = extent(wholes("strides", {1, 1}), "strides"),
                     .dilation = extent(wholes("dilations", {1, 1}), "dilations"),
                     .groups = static_cast<int>(std::clamp<std::int64_t>(whole("group", 1), 0, 1 << 20))};
    std::tie(a.padding, a.extra) = padding(x.shape(), extent({r, s}, "kernel"), a.stride, a.dilation);
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
    dense(whole("transB", 0) != 0, has(2) ? 2 : -1);
  }

  /// With the bias that an Add behind it brings.
  void matmul() {
    const std::int64_t in_file = weight_at(1).dims_size() == 2 ? weight_at(1).dims(1) : 0;
    dense(false, -1);
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
    const auto [pad, extra] = padding(x.shape(), window, stride, 1);
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

  void reduce_mean() {
    Numbers axes = has(1) ? numbers_at(1).value_or(Numbers()) : wholes("axes");
    for (std::int64_t& axis : axes) axis += axis < 0 ? 4 : 0;
    std::ranges::sort(axes);
    need(axes == Numbers({2, 3}), "is no mean over h and w");
    put(global_avg_pool(image_at(0)), whole("keepdims", 1) != 0 ? 4 : 2);
  }

  /// A function of one number leaves all else as it was.
  void activate_as(const Activation& activation) {
    Item x = item(0);
    x.value = activate(x.value, activation);
    put(std::move(x));
  }

  template <class F>
  void activation() {
    activate_as(F{});
    if constexpr (std::is_same_v<F, Sigmoid>) sigmoid_of_[node_->output(0)] = node_->input(0);
  }

  void leaky_relu() {
    const float slope = real("alpha", 0.01f);
    need(slope >= 0, "has a negative slope");
    activate_as(LeakyRelu{slope});
  }

  void gelu() {
    const AttributeProto* way = attribute("approximate");
    if (way && way->s() == "tanh")
      activate_as(GeluTanh{});
    else
      activate_as(Gelu{});
  }

  void hard_sigmoid() {
    const float alpha = real("alpha", 0.2f), beta = real("beta", 0.5f);
    need(std::abs(alpha - 1.0f / 6) < 1e-6f && beta == 0.5f,
         fmt::format("has alpha {} and beta {}: Halftone has 1/6 and 0.5", alpha, beta));
    activate_as(HardSigmoid{});
  }

  void clip() {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    const float low = scalar(1, real("min", -infinity)), high = scalar(2, real("max", infinity));
    constexpr float most = std::numeric_limits<float>::max();
    if (low == 0 && high == 6)
      activate_as(Relu6{});
    else if (low == -1 && high == 1)
      activate_as(HardTanh{});
    else if (low == 0 && high >= most)
      activate_as(Relu{});
    else
      need(false, fmt::format("clips to [{}, {}]: Halftone has [0, 6], [-1, 1] and [0, infinity)", low, high));
  }

  void dropout() {
    Item x = item(0);
    const float rate = scalar(1, real("ratio", 0.5f));
    need(rate >= 0 && rate < 1, fmt::format("has the ratio {}", rate));
    if (rate > 0) x.value = halftone::dropout(x.value, rate);
    put(std::move(x));
  }

  void add() {
    for (const int i : {0, 1})
      if (const TensorProto* tensor = constant_at(i)) {
        const Item x = item(1 - i);
        const std::int64_t c = x.value.shape().c;
        const int rank = tensor->dims_size();
        need(x.rank == 4 && elements_of(*tensor) == c && rank >= 3 && tensor->dims(rank - 3) == c,
             fmt::format("adds {}, which is not one number a channel", tensor->name()));
        return put(add_channels(x.value, parameter(i, ".bias", Shape::vector(c), 1, floats(*tensor))), 4);
      }
    const Item a = item(0), b = item(1);
    need(a.rank == b.rank && a.image == b.image && a.value.shape() == b.value.shape(), "adds tensors of two shapes");
    put({a.value + b.value, a.rank, a.image});
  }

  void mul() {
    need(node_->input_size() == 2, "has not two inputs");
    for (const int i : {0, 1}) {
      const auto factor = scalar_at(i);
      if (factor) {
        Item x = item(1 - i);
        x.value = scale(x.value, *factor);
        return put(std::move(x));
      }
      const auto gate = sigmoid_of_.find(node_->input(i));
      if (gate != sigmoid_of_.end() && gate->second == node_->input(1 - i)) {
        Item x = item(1 - i);
        x.value = silu(x.value);
        return put(std::move(x));
      }
    }
    const Item a = item(0), b = item(1);
    for (const auto& [x, factors] : {std::pair(a, b), std::pair(b, a)})
      if (const Shape s = x.value.shape();
          x.rank == 4 && factors.rank == 4 && s.h * s.w > 1 && factors.value.shape() == Shape{s.n, 1, 1, s.c})
        return put(scale_channels(x.value, factors.value), 4);
    need(a.rank == b.rank && a.image == b.image && a.value.shape() == b.value.shape(),
         "multiplies tensors of two shapes");
    put({a.value * b.value, a.rank, a.image});
  }

  void sub() {
    const Item a = item(0), b = item(1);
    need(a.rank == b.rank && a.image == b.image && a.value.shape() == b.value.shape(), "takes tensors of two shapes");
    put({a.value + scale(b.value, -1), a.rank, a.image});
  }

  void div() {
    const auto divisor = scalar_at(1);
    need(divisor && *divisor != 0, "divides by something else than one number that is known and not 0");
    Item x = item(0);
    x.value = scale(x.value, 1 / *divisor);
    put(std::move(x));
  }

  /// Of an image's four axes, which have the order n, c, h, w.
  void pad() {
    const AttributeProto* mode = attribute("mode");
    need(!mode || mode->s() == "constant", "pads with something else than a constant");
    need(scalar(2, real("value", 0)) == 0, "pads with something else than zeros");
    need(!has(3), "names its axes");
    const auto pads = has(1) ? numbers_at(1) : std::optional(wholes("pads"));
    need(pads && pads->size() == 8, "has not two pads for each of four axes");
    const Numbers& p = *pads;
    need(p[0] == 0 && p[1] == 0 && p[4] == 0 && p[5] == 0, "pads the batch or the channels");
    const auto margin = [&](std::size_t i) {
      return static_cast<int>(std::clamp<std::int64_t>(p[i], -(1 << 24), 1 << 24));
    };
    const Margins margins{margin(2), margin(6), margin(3), margin(7)};
    put(pad2d(image_at(0), margins), 4);
  }

  /// Channels, rows or columns that follow each other, or numbers of a shape.
  void slice() {
    const auto of = [&](int i, const char* name, Numbers otherwise) {
      return has(i) ? numbers_at(i).value_or(Numbers()) : wholes(name, std::move(otherwise));
    };
    const Numbers starts = of(1, "starts", {}), ends = of(2, "ends", {});
    Numbers all(starts.size());
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i);
    const Numbers axes = of(3, "axes", all), steps = of(4, "steps", Numbers(starts.size(), 1));
    need(!starts.empty() && ends.size() == starts.size() && axes.size() == starts.size() &&
             steps == Numbers(starts.size(), 1),
         "takes a part that is not known before the net runs, or leaves places out");
    const auto part = [&](std::size_t i, std::int64_t extent) {
      const auto place = [&](std::int64_t x) { return std::clamp<std::int64_t>(x < 0 ? x + extent : x, 0, extent); };
      const std::pair result{place(starts[i]), place(ends[i])};
      need(result.first < result.second, "takes nothing");
      return result;
    };
    if (const auto numbers = numbers_at(0)) {
      need(axes == Numbers{0}, "takes a part of numbers along another axis");
      const auto [first, last] = part(0, std::ssize(*numbers));
      return put({.numbers = Numbers(numbers->begin() + first, numbers->begin() + last)});
    }
    Item x = item(0);
    need(x.image.h * x.image.w <= 1, "takes a part of a flattened image");
    for (std::size_t i = 0; i < axes.size(); ++i) {
      const std::int64_t axis = axes[i] < 0 ? axes[i] + x.rank : axes[i];
      need(axis > 0 && axis < x.rank, "takes a part of the batch");
      if (axis == 1) {
        const auto [first, last] = part(i, x.value.shape().c);
        x.value = halftone::slice(x.value, first, last - first);
        continue;
      }
      const std::int64_t extent = axis == 2 ? x.value.shape().h : x.value.shape().w;
      const auto [first, last] = part(i, extent);
      const int before = static_cast<int>(-first), after = static_cast<int>(last - extent);
      x.value = pad2d(x.value, axis == 2 ? Margins{before, after, 0, 0} : Margins{0, 0, before, after});
    }
    put(std::move(x));
  }

  /// Where nothing changes places: axes of extent 1 do not count.
  void transpose() {
    const Item x = item(0);
    const Shape s = x.value.shape();
    const Numbers extents = x.rank == 4 ? Numbers{s.n, s.c, s.h, s.w} : Numbers{s.n, s.c};
    Numbers order = wholes("perm");
    std::erase_if(order, [&](std::int64_t axis) { return axis < 0 || axis >= x.rank || extents[at(axis)] == 1; });
    const bool same = wholes("perm").size() == extents.size() && std::ranges::is_sorted(order) &&
                      (order.empty() || (order[0] == 0) == (s.n > 1));
    need(same && x.rank == 4 && wholes("perm")[0] == 0 && (wholes("perm")[1] == 1 || s.h * s.w == 1),
         "changes the order of axes");
    put(x);
  }

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

  /// By a whole factor, as PyTorch's nn.Upsample.
  void resize() {
    const Value x = image_at(0);
    const auto text = [&](const char* name, const char* otherwise) {
      const AttributeProto* found = attribute(name);
      return found ? found->s() : std::string(otherwise);
    };
    const bool old = node_->op_type() == "Upsample";
    const std::string mode = text("mode", "nearest"),
                      places = text("coordinate_transformation_mode", old ? "asymmetric" : "half_pixel"),
                      rounds = text("nearest_mode", old ? "floor" : "round_prefer_floor");
    const int of_scales = old || node_->input_size() == 2 ? 1 : 2;  // Resize of opset 10 has no region of interest
    std::vector<float> factors;
    if (has(of_scales) && factors_.contains(node_->input(of_scales))) factors = factors_.at(node_->input(of_scales));
    if (const TensorProto* scales = constant_at(of_scales); scales && elements_of(*scales) == 4)
      factors = floats(*scales);
    if (const auto sizes = has(3) ? numbers_at(3) : std::optional<Numbers>(); sizes && sizes->size() == 4) {
      const Shape s = x.shape();
      for (const auto& [to, from] : {std::pair((*sizes)[0], s.n), std::pair((*sizes)[1], s.c),
                                     std::pair((*sizes)[2], s.h), std::pair((*sizes)[3], s.w)})
        factors.push_back(static_cast<float>(to) / static_cast<float>(from));
    }
    const auto fits = [](float f) { return f >= 1 && f < 1 << 16 && f == std::floor(f); };
    need(factors.size() == 4 && factors[0] == 1 && factors[1] == 1 && fits(factors[2]) && fits(factors[3]),
         "has no whole factors for h and w that are known before the net runs");
    const Extent factor{static_cast<int>(factors[2]), static_cast<int>(factors[3])};
    const bool halves = places == "half_pixel" || places == "pytorch_half_pixel";
    const bool nearest =
        mode == "nearest" && ((places == "asymmetric" && rounds == "floor") || (halves && rounds.starts_with("round")));
    const bool linear = mode == "linear" && halves;
    need(nearest || linear, fmt::format("has mode {} at places {}, which Halftone lacks", mode, places));
    put(upsample2d(x, factor, nearest ? Interpolation::nearest : Interpolation::bilinear), 4);
  }

  void concat() {
    if (const auto first = numbers_at(0)) {
      Numbers all;
      for (int i = 0; i < node_->input_size(); ++i) {
        const auto part = numbers_at(i);
        need(part.has_value(), "joins what is not known before the net runs");
        all.insert(all.end(), part->begin(), part->end());
      }
      return put({.numbers = all});
    }
    if (constant_at(0)) {
      std::vector<float>& all = factors_[node_->output(0)];
      for (int i = 0; i < node_->input_size(); ++i)
        for (const float x : floats(weight_at(i))) all.push_back(x);
      return;
    }
    std::vector<Value> values;
    const int rank = item(0).rank;
    for (int i = 0; i < node_->input_size(); ++i) {
      need(item(i).rank == rank && item(i).image.h * item(i).image.w <= 1, "joins images and flattened ones");
      values.push_back(item(i).value);
    }
    need(whole("axis", 1) == 1 || whole("axis", 1) == 1 - rank, "joins along another axis than the channels");
    put(halftone::concat(values), rank);
  }

  void flat() {
    Item x = item(0);
    if (x.rank == 4) {
      const Shape s = x.value.shape();
      x = {halftone::flatten(x.value), 2, s.h * s.w > 1 ? Shape{1, s.h, s.w, s.c} : Shape{}};
    }
    put(std::move(x));
  }

  void flatten() {
    need(whole("axis", 1) == 1, "flattens along another axis than the first");
    flat();
  }

  void reshape() {
    const Item& x = item(0);
    auto shape = numbers_at(1);
    need(shape.has_value(), "takes a shape that is not known before the net runs");
    const Shape s = x.value.shape();
    const Numbers now = x.rank == 4 ? Numbers{s.n, s.c, s.h, s.w} : Numbers{s.n, s.features()};
    for (std::size_t i = 0; i < shape->size() && i < now.size(); ++i)
      if ((*shape)[i] == 0) (*shape)[i] = now[i];
    const bool matrix = shape->size() == 2 && ((*shape)[1] == s.features() || (*shape)[1] == -1);
    if (matrix) return flat();
    need(*shape == now, fmt::format("reshapes to [{}], and Halftone flattens only", fmt::join(*shape, ", ")));
    put(x);
  }

  void squeeze() {
    if (const auto numbers = numbers_at(0)) return put({.numbers = numbers});
    const Shape s = item(0).value.shape();
    need(item(0).rank == 4 && s.h == 1 && s.w == 1, "takes away another axis than an image's h and w of 1");
    flat();
  }

  void unsqueeze() {
    const auto numbers = numbers_at(0);
    need(numbers.has_value(), "adds an axis to a tensor");
    put({.numbers = numbers});
  }

  void softmax() {
    for (const onnx::ValueInfoProto& output : graph_.output())
      need(output.name() != node_->output(0),
           "is the net's end, and cross entropy takes logits: export the net without it");
    need(node_->op_type() == "Softmax" && item(0).rank == 2, "is no softmax over the features of an image");
    put(halftone::softmax(item(0).value), 2);
  }

  void identity() {
    if (const TensorProto* tensor = constant_at(0)) {
      constants_[node_->output(0)] = tensor;
    } else if (const auto numbers = numbers_at(0)) {
      put({.numbers = numbers});
    } else {
      put(item(0));
    }
  }

  void cast() {
    const std::int64_t to = whole("to", 0);
    const bool floats = to == TensorProto::FLOAT || to == TensorProto::FLOAT16 || to == TensorProto::BFLOAT16 ||
                        to == TensorProto::DOUBLE;
    need(floats || numbers_at(0), "makes something else than floats of a tensor");
    identity();
  }

  void constant() { need(constants_.contains(node_->output(0)), "holds no tensor"); }

  /// The tensor of a Constant, which may be numbers in its attributes; null where it has none.
  const TensorProto* held() {
    if (const AttributeProto* value = attribute("value")) return value->has_t() ? &value->t() : nullptr;
    for (const AttributeProto& value : node_->attribute()) {
      TensorProto tensor;
      const bool is_list = value.name() == "value_ints" || value.name() == "value_floats";
      if (value.name() == "value_int") tensor.add_int64_data(value.i());
      if (value.name() == "value_float") tensor.add_float_data(value.f());
      if (value.name() == "value_ints") *tensor.mutable_int64_data() = value.ints();
      if (value.name() == "value_floats") *tensor.mutable_float_data() = value.floats();
      if (!is_list && tensor.int64_data().empty() && tensor.float_data().empty()) continue;
      tensor.set_data_type(value.name().starts_with("value_int") ? TensorProto::INT64 : TensorProto::FLOAT);
      if (is_list) tensor.add_dims(tensor.int64_data_size() + tensor.float_data_size());
      return &made_.emplace_back(std::move(tensor));
    }
    return nullptr;
  }

  void shape() {
    const Item& x = item(0);
    const Shape s = x.value.shape();
    put({.numbers = x.rank == 4 ? Numbers{s.n, s.c, s.h, s.w} : Numbers{s.n, s.features()}});
  }

  void gather() {
    const auto from = numbers_at(0), which = numbers_at(1);
    need(from && which, "picks from a tensor");
    Numbers picked;
    for (std::int64_t i : *which) {
      i += i < 0 ? std::ssize(*from) : 0;
      need(i >= 0 && i < std::ssize(*from), "picks what is not there");
      picked.push_back((*from)[at(i)]);
    }
    put({.numbers = picked});
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

  Graph g_;
  int classes_;
  const NodeProto* head_ = nullptr;     // the last layer with weights
  float head_bound_ = 0;                // of a new head's first weights
  std::map<std::string, int> readers_;  // how many nodes take a value
  std::map<std::string, Item> items_;
  std::map<std::string, Value> parameters_;
  std::map<std::string, std::string> sigmoid_of_;
  std::map<std::string, std::vector<float>> factors_;  // numbers that are known before anything runs
  std::set<const NodeProto*> skipped_;
  std::list<TensorProto> made_;  // of constants that are attributes
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
