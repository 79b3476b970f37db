#include "halftone/train/onnx.hpp"
#include "halftone/train/predictor.hpp"
#ifdef HALFTONE_HAS_ONNX
#include <fmt/format.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <set>

#include "halftone/graph/core_ops.hpp"
#include "halftone/io/atomic_file.hpp"
#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/dense.hpp"
#include "halftone/ops/norm.hpp"
#include "halftone/ops/pointwise.hpp"
#include "halftone/ops/pool2d.hpp"
#include "halftone/ops/softmax.hpp"
#include "halftone/ops/spatial.hpp"
#include "halftone/train/checkpoint.hpp"
#include "halftone/version.hpp"
#include "src/train/model_format.hpp"
#include "src/train/onnx_file.hpp"

namespace halftone {
namespace {

using onnx::NodeProto, onnx::TensorProto;
using Names = std::vector<std::string>;

/// What a value of ours is called in the file, where it has two axes if it has been through a dense layer, else four.
struct Item {
  std::string name = {};
  int rank = 4;
  Shape image = {};  ///< of more than a pixel that has been flattened here, but not in the file
};

class Export {
 public:
  /// `describes`: for Halftone to read.
  Export(const Graph& graph, const Parameters& parameters, bool describes = false)
      : g_(graph), parameters_(parameters), describes_(describes) {
    model_.set_ir_version(8);
    model_.set_producer_name("halftone");
    model_.set_producer_version(version);
    onnx::OperatorSetIdProto* set = model_.add_opset_import();
    set->set_domain("");
    set->set_version(17);
    model_.mutable_graph()->set_name("halftone");
  }

  const onnx::ModelProto& operator()(int output) {
    for (const int id : g_->inputs) input(id);
    for (const Node& node : g_->nodes) {
      node_ = &node;
      add(*node.op);
    }
    Item& last = items_.at(output);
    if (last.image.h * last.image.w > 1) fail(fmt::format("{}: it is a flattened image", last.name));
    if (const Shape& s = g_.info(output).spec.shape; last.rank == 4 && s.h * s.w == 1) {
      const std::string flat = unique(last.name + ".Flatten");
      set(put("Flatten", {last.name}, flat), "axis", std::int64_t{1});
      last = {flat, 2};
    }
    describe(*model_.mutable_graph()->add_output(), last.name, TensorProto::FLOAT, g_.info(output).spec.shape,
             last.rank);
    return model_;
  }

 private:
  static void describe(onnx::ValueInfoProto& value, const std::string& name, TensorProto::DataType type, const Shape& s,
                       int rank) {
    value.set_name(name);
    auto& tensor = *value.mutable_type()->mutable_tensor_type();
    tensor.set_elem_type(type);
    tensor.mutable_shape()->add_dim()->set_dim_param("n");
    for (const std::int64_t extent : {s.c, s.h, s.w})
      if (tensor.shape().dim_size() < rank) tensor.mutable_shape()->add_dim()->set_dim_value(extent);
  }

  void input(int id) {
    const ValueInfo& info = g_.info(id);
    const DType code = info.spec.storage.code;
    if (code != DType::u8 && code != DType::f32) fail(fmt::format("{}: an input of {}", info.name, name_of(code)));
    describe(*model_.mutable_graph()->add_input(), info.name,
             code == DType::u8 ? TensorProto::UINT8 : TensorProto::FLOAT, info.spec.shape, 4);
    items_[id] = {info.name};
    names_.insert(info.name);
  }

  [[noreturn]] void refuse(const std::string& why) const { fail(fmt::format("onnx: {} {}", node_->name, why)); }

  const Shape& shape(std::size_t i) const { return g_.info(node_->inputs[i]).spec.shape; }
  const Item& item(std::size_t i) const { return items_.at(node_->inputs[i]); }
  /// Features as those of a pixel.
  Item image(std::size_t i) {
    Item x = item(i);
    if (x.image.h * x.image.w > 1) refuse("takes no image");
    if (x.rank == 2) x = {step("Unsqueeze", {x.name, integers("axes", {2, 3})})};
    return x;
  }

  /// The inputs, pixels as features where not all have an image's axes.
  std::vector<Item> alike() {
    std::vector<Item> items;
    for (std::size_t i = 0; i < node_->inputs.size(); ++i) items.push_back(item(i));
    const bool mixed = std::ranges::any_of(items, [&](const Item& x) { return x.rank != items[0].rank; });
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (mixed && items[i].rank == 4 && shape(i).h * shape(i).w == 1 && items[i].image.h * items[i].image.w <= 1)
        items[i] = {step("Flatten", {items[i].name}), 2};
      if (items[i].rank != items[0].rank || items[i].image != items[0].image) refuse("takes tensors of two kinds");
    }
    return items;
  }

  NodeProto& put(const char* type, const Names& inputs, const std::string& output) {
    NodeProto& node = *model_.mutable_graph()->add_node();
    node.set_op_type(type);
    node.set_name(output);
    for (const std::string& input : inputs) node.add_input(input);
    node.add_output(output);
    return node;
  }
  /// The node that computes this one's output; what it is of may be told by `like`.
  NodeProto& put(const char* type, const Names& inputs, Item like = {}) {
    like.name = unique(node_->name);
    items_[node_->outputs[0]] = like;
    return put(type, inputs, like.name);
  }
  /// One on the way there.
  std::string step(const char* type, const Names& inputs) {
    const std::string name = unique(node_->name + "." + type);
    put(type, inputs, name);
    return name;
  }
  std::string unique(const std::string& name) {
    std::string result = name;
    for (int i = 1; !names_.insert(result).second; ++i) result = fmt::format("{}_{}", name, i);
    return result;
  }

  static void set(NodeProto& node, const char* name, std::int64_t value) {
    auto& attribute = *node.add_attribute();
    attribute.set_name(name), attribute.set_type(onnx::AttributeProto::INT), attribute.set_i(value);
  }
  static void set(NodeProto& node, const char* name, float value) {
    auto& attribute = *node.add_attribute();
    attribute.set_name(name), attribute.set_type(onnx::AttributeProto::FLOAT), attribute.set_f(value);
  }
  static void set(NodeProto& node, const char* name, const char* value) {
    auto& attribute = *node.add_attribute();
    attribute.set_name(name), attribute.set_type(onnx::AttributeProto::STRING), attribute.set_s(value);
  }
  static void set(NodeProto& node, const char* name, std::initializer_list<std::int64_t> values) {
    auto& attribute = *node.add_attribute();
    attribute.set_name(name), attribute.set_type(onnx::AttributeProto::INTS);
    for (const std::int64_t value : values) attribute.add_ints(value);
  }

  std::string tensor(const std::string& name, std::initializer_list<std::int64_t> dims,
                     const std::vector<float>& values) {
    if (!tensors_.insert(name).second) return name;
    TensorProto& tensor = *model_.mutable_graph()->add_initializer();
    tensor.set_name(name);
    tensor.set_data_type(TensorProto::FLOAT);
    for (const std::int64_t dim : dims) tensor.add_dims(dim);
    tensor.set_raw_data(values.data(), values.size() * sizeof(float));
    return name;
  }
  std::string integers(const char* what, const std::vector<std::int64_t>& values) {
    const std::string name = node_->name + "." + what;
    if (!tensors_.insert(name).second) return name;
    TensorProto& tensor = *model_.mutable_graph()->add_initializer();
    tensor.set_name(name);
    tensor.set_data_type(TensorProto::INT64);
    tensor.add_dims(std::ssize(values));
    tensor.set_raw_data(values.data(), values.size() * sizeof(std::int64_t));
    return name;
  }
  std::string scalar(float value) { return tensor(fmt::format("number {}", value), {}, {value}); }
  std::string per_channel(const char* what, const std::vector<float>& values) {
    return tensor(node_->name + "." + what, {1, std::ssize(values), 1, 1}, values);
  }

  /// The numbers of the parameter or statistic that is this node's input i.
  std::vector<float> numbers(std::size_t i) const {
    const ValueInfo& info = g_.info(node_->inputs[i]);
    if (info.store == Store::weights) {
      const ParameterSlot& slot = parameters_.find(info.name);
      return parameters_.bytes(Store::average) > 0 ? parameters_.view(Store::average, slot).read()
                                                   : parameters_.truth(slot).read();
    }
    if (info.store != Store::statistics) refuse("takes a weight that it computes");
    for (std::size_t s = 0; s < parameters_.statistics.size(); ++s)
      if (parameters_.statistics[s].name == info.name)
        return parameters_
            .statistic(
                s, parameters_.bytes(Store::averaged_statistics) > 0 ? Store::averaged_statistics : Store::statistics)
            .read();
    refuse("takes a statistic that is not known");
  }
  const std::string& name(std::size_t i) const { return g_.info(node_->inputs[i]).name; }
  std::string vector(std::size_t i) { return tensor(name(i), {shape(i).c}, numbers(i)); }

  void add(const Op& op) {
    if (op.is_fused()) refuse("is joined to an activation");
    if (const auto* conv2d = dynamic_cast<const Conv2d*>(&op)) return conv(conv2d->conv);
    if (dynamic_cast<const Dense*>(&op)) return dense();
    if (const auto* norm = dynamic_cast<const BatchNormInference*>(&op)) return batch_norm(*norm);
    if (const auto* max = dynamic_cast<const MaxPool2d*>(&op)) return pool("MaxPool", max->pool);
    if (const auto* average = dynamic_cast<const AvgPool2d*>(&op)) return pool("AveragePool", average->pool);
    if (const Activation* activation = op.as_activation()) return activate(*activation);
    if (const auto* normalize = dynamic_cast<const Normalize*>(&op)) return normal(*normalize);
    if (const auto* scale = dynamic_cast<const Scale*>(&op))
      return void(put("Mul", {item(0).name, scalar(scale->factor)}, item(0)));
    if (dynamic_cast<const Add*>(&op)) return both("Add");
    if (dynamic_cast<const Multiply*>(&op)) return both("Mul");
    if (dynamic_cast<const Concat*>(&op)) return concat();
    if (const auto* slice = dynamic_cast<const Slice*>(&op)) return part(*slice);
    if (const auto* reshape = dynamic_cast<const Reshape*>(&op)) return flatten(*reshape);
    if (const auto* pad = dynamic_cast<const Pad2d*>(&op)) {
      const auto [top, bottom, left, right] = pad->margins;
      return void(put("Pad", {image(0).name, integers("pads", {0, 0, top, left, 0, 0, bottom, right})}));
    }
    if (const auto* upsample = dynamic_cast<const Upsample2d*>(&op)) return resize(*upsample);
    if (dynamic_cast<const ScaleChannels*>(&op)) return void(put("Mul", {image(0).name, image(1).name}));
    if (dynamic_cast<const AddChannels*>(&op))
      return void(put("Add", {image(0).name, tensor(name(1), {1, shape(1).c, 1, 1}, numbers(1))}));
    if (const auto* transposed = dynamic_cast<const ConvTranspose2d*>(&op)) return conv_transpose(*transposed);
    if (dynamic_cast<const Softmax*>(&op)) {
      Item x = item(0);
      if (x.image.h * x.image.w > 1 && x.rank == 4) x.name = step("Flatten", {x.name}), x.rank = 2;
      return set(put("Softmax", {x.name}, x), "axis", std::int64_t{1});
    }
    refuse(fmt::format("is a {}, which has no counterpart in opset 17", op.name()));
  }

  void conv(const ConvAttributes& a) {
    const Shape& w = shape(1);
    Names inputs{image(0).name, tensor(name(1), {w.n, w.c, w.h, w.w}, swapped(numbers(1), w.n, w.h * w.w, w.c))};
    if (node_->inputs.size() > 2) inputs.push_back(vector(2));
    NodeProto& node = put("Conv", inputs);
    set(node, "kernel_shape", {w.h, w.w});
    set(node, "strides", {a.stride.h, a.stride.w});
    set(node, "dilations", {a.dilation.h, a.dilation.w});
    set(node, "pads", {a.padding.h, a.padding.w, a.padding.h + a.extra.h, a.padding.w + a.extra.w});
    set(node, "group", std::int64_t{a.groups});
  }

  /// A shift-based one has its factors where the scale is, since ONNX knows none; in a description, which only Halftone
  /// reads, it says what it is.
  void batch_norm(const BatchNormInference& norm) {
    const bool has_factors = norm.shift_based && !describes_;
    std::string scale, variance;
    if (has_factors) {
      std::vector<float> factors = numbers(1);
      std::ranges::transform(factors, numbers(4), factors.begin(), norm.factor());
      scale = tensor(node_->name + ".factors", {shape(1).c}, factors);
      variance = tensor(node_->name + ".ones", {shape(1).c}, std::vector<float>(factors.size(), 1));
    } else {
      scale = vector(1), variance = vector(4);
    }
    const Item x = item(0);
    if (x.image.h * x.image.w > 1) refuse("takes a flattened image");
    NodeProto& node = put("BatchNormalization", {x.name, scale, vector(2), vector(3), variance}, x);
    set(node, "epsilon", has_factors ? 0.0f : norm.epsilon);
    if (norm.shift_based && describes_) set(node, "shift_based", std::int64_t{1});
  }

  void conv_transpose(const ConvTranspose2d& op) {
    const Shape& w = shape(1);
    const ConvAttributes& a = op.conv;
    NodeProto& node =
        put("ConvTranspose",
            {image(0).name, tensor(name(1), {w.n, w.c, w.h, w.w}, swapped(numbers(1), w.n, w.h * w.w, w.c))});
    set(node, "kernel_shape", {w.h, w.w});
    set(node, "strides", {a.stride.h, a.stride.w});
    set(node, "dilations", {a.dilation.h, a.dilation.w});
    set(node, "pads", {a.padding.h, a.padding.w, a.padding.h, a.padding.w});
    set(node, "output_padding", {op.output_padding.h, op.output_padding.w});
    set(node, "group", std::int64_t{a.groups});
  }

  void resize(const Upsample2d& op) {
    const std::vector<float> factors = {1, 1, static_cast<float>(op.factor.h), static_cast<float>(op.factor.w)};
    NodeProto& node = put("Resize", {image(0).name, "", tensor(node_->name + ".scales", {4}, factors)});
    const bool nearest = op.interpolation == Interpolation::nearest;
    set(node, "mode", nearest ? "nearest" : "linear");
    set(node, "coordinate_transformation_mode", nearest ? "asymmetric" : "half_pixel");
    set(node, "nearest_mode", "floor");
  }

  void dense() {
    const Shape x = item(0).image.h * item(0).image.w > 1 ? item(0).image : shape(0), &w = shape(1);
    const std::string features = item(0).rank == 2 ? item(0).name : step("Flatten", {item(0).name});
    Names inputs{features, tensor(name(1), {w.n, w.c}, swapped(numbers(1), w.n, x.h * x.w, x.c))};
    if (node_->inputs.size() > 2) inputs.push_back(vector(2));
    set(put("Gemm", inputs, {.rank = 2}), "transB", std::int64_t{1});
  }

  void pool(const char* type, const PoolAttributes& p) {
    const bool average = type[0] == 'A';
    if (p.global) return void(put(average ? "GlobalAveragePool" : "GlobalMaxPool", {image(0).name}));
    NodeProto& node = put(type, {image(0).name});
    set(node, "kernel_shape", {p.window.h, p.window.w});
    set(node, "strides", {p.stride.h, p.stride.w});
    set(node, "pads", {p.padding.h, p.padding.w, p.padding.h, p.padding.w});
    set(node, "ceil_mode", std::int64_t{p.ceil_mode});
    if (average) set(node, "count_include_pad", std::int64_t{p.count_include_pad});
  }

  void activate(const Activation& activation) {
    const Item& x = item(0);
    const auto times = [&](const std::string& a, const std::string& b) { return step("Mul", {a, b}); };
    std::visit(
        [&](const auto& f) {
          using F = std::decay_t<decltype(f)>;
          if constexpr (std::is_same_v<F, Relu>) {
            put("Relu", {x.name}, x);
          } else if constexpr (std::is_same_v<F, Sigmoid>) {
            put("Sigmoid", {x.name}, x);
          } else if constexpr (std::is_same_v<F, Tanh>) {
            put("Tanh", {x.name}, x);
          } else if constexpr (std::is_same_v<F, LeakyRelu>) {
            set(put("LeakyRelu", {x.name}, x), "alpha", f.negative_slope);
          } else if constexpr (std::is_same_v<F, HardTanh>) {
            put("Clip", {x.name, scalar(-1), scalar(1)}, x);
          } else if constexpr (std::is_same_v<F, Relu6>) {
            put("Clip", {x.name, scalar(0), scalar(6)}, x);
          } else if constexpr (std::is_same_v<F, HardSwish>) {
            put("HardSwish", {x.name}, x);
          } else if constexpr (std::is_same_v<F, HardSigmoid>) {
            set(put("HardSigmoid", {x.name}, x), "alpha", 1.0f / 6);
          } else if constexpr (std::is_same_v<F, Silu>) {
            put("Mul", {x.name, step("Sigmoid", {x.name})}, x);
          } else if constexpr (std::is_same_v<F, Gelu>) {
            const std::string erf = step("Erf", {times(x.name, scalar(0.707106781f))});
            put("Mul", {times(x.name, scalar(0.5f)), step("Add", {erf, scalar(1)})}, x);
          } else if constexpr (std::is_same_v<F, GeluTanh>) {
            const std::string cubic = times(times(times(x.name, x.name), x.name), scalar(0.044715f));
            const std::string inner = times(step("Add", {x.name, cubic}), scalar(0.797884561f));
            put("Mul", {times(x.name, scalar(0.5f)), step("Add", {step("Tanh", {inner}), scalar(1)})}, x);
          } else {
            refuse(fmt::format("is a {}, which has no counterpart in opset 17", f.name));
          }
        },
        activation);
  }

  void normal(const Normalize& op) {
    std::string x = image(0).name;
    if (g_.info(node_->inputs[0]).spec.storage.code == DType::u8) {
      const std::string floats = unique(node_->name + ".Cast");
      set(put("Cast", {x}, floats), "to", std::int64_t{TensorProto::FLOAT});
      x = step("Div", {floats, scalar(255)});
    }
    put("Div", {step("Sub", {x, per_channel("mean", op.mean)}), per_channel("stddev", op.stddev)});
  }

  void both(const char* type) {
    const std::vector<Item> x = alike();
    put(type, {x[0].name, x[1].name}, x[0]);
  }

  void concat() {
    Names inputs;
    const std::vector<Item> parts = alike();
    if (parts[0].image.h * parts[0].image.w > 1) refuse("joins flattened images");
    for (const Item& part : parts) inputs.push_back(part.name);
    set(put("Concat", inputs, parts[0]), "axis", std::int64_t{1});
  }

  void part(const Slice& slice) {
    if (item(0).image.h * item(0).image.w > 1) refuse("takes a part of a flattened image");
    put("Slice",
        {item(0).name, integers("starts", {slice.first}), integers("ends", {slice.first + slice.count}),
         integers("axes", {1})},
        item(0));
  }

  /// [n, h, w, c] to [n, 1, 1, h w c] is left to the dense layer behind it.
  void flatten(const Reshape& op) {
    const Shape &from = shape(0), &to = op.shape;
    if (to.h != 1 || to.w != 1 || to.c != from.features()) refuse("is a reshape, and only flatten has a counterpart");
    items_[node_->outputs[0]] = item(0);
    if (from.h * from.w > 1) items_[node_->outputs[0]].image = {1, from.h, from.w, from.c};
  }

  const Graph& g_;
  const Parameters& parameters_;
  bool describes_;
  onnx::ModelProto model_;
  const Node* node_ = nullptr;
  std::map<int, Item> items_;  // by value
  std::set<std::string> names_, tensors_;
};

}  // namespace

namespace {

/// What computes a value, with the inputs that it takes.
Graph evaluation_of(const Value& output) {
  const int wanted[] = {output.id()};
  Graph graph = for_inference(graph_of(output), wanted);
  const auto read_by = readers(graph);
  std::erase_if(graph->inputs, [&](int id) { return read_by[at(id)].empty(); });
  return graph;
}

}  // namespace

void write_onnx(const std::filesystem::path& file, Value output, const Parameters& parameters) {
  write_file(file, Export(evaluation_of(output), parameters)(output.id()).SerializeAsString());
}

Metadata describe(const std::string& name, Value logits) {
  const Graph graph = evaluation_of(logits);
  const Parameters parameters(graph, cpu_device({.threads = 1}), {.gradients = false});
  return {{"net", name}, {"graph", hollow(Export(graph, parameters, true)(logits.id()))}};
}

}  // namespace halftone
#else
namespace halftone {

Metadata describe(const std::string& name, Value) {
  fail(name + " cannot be described: this build of Halftone has no libonnx");
}

void write_onnx(const std::filesystem::path& file, Value, const Parameters&) {
  fail(file.string() + " cannot be written: this build of Halftone has no libonnx");
}

}  // namespace halftone
#endif

namespace halftone {

void export_onnx(const std::filesystem::path& checkpoint, const std::filesystem::path& file, ModelWeights weights) {
  const ModelDescription model = read_model_description(checkpoint);
  if (precision_by_name(model.precision).binarizes)
    fail("onnx: a net trained in binary is another one than its graph says");
  const Value logits = logits_of(model, Graph(), model.image);
  const int wanted[] = {logits.id()};
  Parameters parameters(for_inference(graph_of(logits), wanted), cpu_device(), {.gradients = false});
  load_model(model_file(checkpoint), parameters, {.weights = weights});
  write_onnx(file, logits, parameters);
}

}  // namespace halftone
