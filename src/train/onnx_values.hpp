#pragma once
#include <memory>
#include <set>

#include "halftone/ops/initializers.hpp"
#include "src/train/onnx_nodes.hpp"

namespace halftone {

using onnx::AttributeProto, onnx::NodeProto, onnx::TensorProto;

/// What a value of the file is here: a tensor, whose [n, c, h, w] is [n, h, w, c] and whose [n, features] is
/// [n, 1, 1, features], or whole numbers that are known already.
struct Item {
  Value value = {};
  int rank = 0;
  Shape image = {};  ///< of more than a pixel, whose features the file has in the order c, h, w
  std::optional<Numbers> numbers = {};
  std::int64_t columns = 1;  ///< of numbers that are a matrix
};

/// What has been made of an ONNX graph so far, and what its next node makes of constants.
class OnnxValues : protected OnnxNodes {
 protected:
  /// `classes`: what a head born anew tells apart; 0: the head is the file's.
  OnnxValues(const std::string& file, const onnx::GraphProto& graph, bool hollow, int classes)
      : OnnxNodes(file, graph, hollow), classes_(classes) {}

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
    need(found != items_.end(), fmt::format("takes {}, which {}", node_->input(i),
                                            constant_at(i) ? "is a constant" : "no node before it makes"));
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
    std::string name = has(1) ? stored_name(1) : "";
    if (const std::size_t end = name.rfind(".weight"); end != std::string::npos && end > 0) return name.substr(0, end);
    name = node_->name().empty() ? node_->output(0) : node_->name();
    if (const std::string ending = "/" + node_->op_type(); name.ends_with(ending))
      name.resize(name.size() - ending.size());
    std::ranges::replace(name, '/', '.');
    return name.starts_with('.') ? name.substr(1) : name;
  }

  /// What input i is called, a transposed one where it comes from.
  const std::string& stored_name(int i) const {
    const std::string& name = node_->input(i);
    return transposed_.contains(name) ? constant_at(i)->name() : name;
  }

  /// What a parameter is called: as in the file, where that is no name that the exporter made up.
  std::string name_of_input(int i, const char* otherwise) const {
    const std::string& name = stored_name(i);
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
    need(elements_of(tensor) == size, fmt::format("takes {}, which is not [{}]", name_of(tensor), size));
    return parameter(i, name, Shape::vector(size), 1, floats(tensor));
  }

  Value statistic_at(int i, const char* name, std::int64_t size, float initial) {
    const TensorProto& tensor = weight_at(i);
    need(elements_of(tensor) == size, fmt::format("takes {}, which is not [{}]", name_of(tensor), size));
    const Value value = g_.statistic(name_of_input(i, name), Shape::vector(size), initial);
    g_->statistics.back().values = floats(tensor);
    return value;
  }

  Graph g_;
  int classes_;
  const NodeProto* head_ = nullptr;  // the last layer with weights
  float head_bound_ = 0;             // of a new head's first weights
  std::map<std::string, Item> items_;
  std::set<std::string> transposed_;  // constant matrices
  std::map<std::string, Value> parameters_;
};

}  // namespace halftone
