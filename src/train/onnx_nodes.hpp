#pragma once
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "halftone/tensor/error.hpp"
#include "src/train/onnx_file.hpp"

namespace halftone {

using Numbers = std::vector<std::int64_t>;

/// What one node of an ONNX graph says; what is not as it should be is a FileError that names file and node.
class OnnxNodes {
 protected:
  /// `hollow`: floats have no numbers.
  OnnxNodes(std::string file, const onnx::GraphProto& graph, bool hollow)
      : file_(std::move(file)), graph_(graph), hollow_(hollow) {
    for (const onnx::TensorProto& tensor : graph.initializer()) constants_[tensor.name()] = &tensor;
  }

  [[noreturn]] void broken(const std::string& what) const { throw FileError(file_ + " " + what); }

  [[noreturn]] void refuse(const std::string& what) const {
    const std::string name = node_->name().empty() && node_->output_size() > 0 ? node_->output(0) : node_->name();
    throw FileError(fmt::format("{}: node {} {}", file_, name, what));
  }

  void need(bool good, const std::string& what) const {
    if (!good) refuse(fmt::format("({}) {}", node_->op_type(), what));
  }

  const onnx::AttributeProto* attribute(const char* name) const {
    for (const onnx::AttributeProto& one : node_->attribute())
      if (one.name() == name) return &one;
    return nullptr;
  }
  std::int64_t whole(const char* name, std::int64_t otherwise) const {
    const onnx::AttributeProto* found = attribute(name);
    return found ? found->i() : otherwise;
  }
  float real(const char* name, float otherwise) const {
    const onnx::AttributeProto* found = attribute(name);
    return found ? found->f() : otherwise;
  }
  Numbers wholes(const char* name, Numbers otherwise = {}) const {
    const onnx::AttributeProto* found = attribute(name);
    return found ? Numbers(found->ints().begin(), found->ints().end()) : otherwise;
  }

  bool has(int i) const { return node_->input_size() > i && !node_->input(i).empty(); }

  const onnx::TensorProto* constant_at(int i) const {
    const auto found = has(i) ? constants_.find(node_->input(i)) : constants_.end();
    return found == constants_.end() ? nullptr : found->second;
  }

  const onnx::TensorProto& weight_at(int i) const {
    const onnx::TensorProto* tensor = constant_at(i);
    need(tensor != nullptr, fmt::format("needs constant weights as input {}", i));
    return *tensor;
  }

  /// As the file calls a constant.
  std::string name_of(const onnx::TensorProto& tensor) const {
    for (const std::string& input : node_->input())
      if (const auto found = constants_.find(input); found != constants_.end() && found->second == &tensor)
        return input;
    return tensor.name();
  }

  /// The numbers of a tensor of floats; none where the file is hollow.
  std::vector<float> floats(const onnx::TensorProto& tensor) const {
    const std::int64_t count = elements_of(tensor);
    const auto what = [&](const char* why) { return fmt::format("takes {}, which {}", name_of(tensor), why); };
    need(count >= 0, what("has no sound shape"));
    auto values = floats_of(tensor);
    need(values.has_value(), what("holds no floats"));
    if (hollow_ && values->empty()) return {};
    need(std::ssize(*values) == count, what("has not the bytes of its shape"));
    need(std::ranges::all_of(*values, [](float x) { return std::isfinite(x); }) || count == 1,
         what("holds numbers that are not finite"));
    return *std::move(values);
  }

  /// The number that is input i, which must be known before anything runs, or `otherwise` where there is none.
  float scalar(int i, float otherwise) const {
    if (!has(i)) return otherwise;
    const auto known = scalar_at(i);
    need(known.has_value(), fmt::format("takes {}, which is not known before the net runs", node_->input(i)));
    return *known;
  }
  std::optional<float> scalar_at(int i) const {
    const onnx::TensorProto* tensor = constant_at(i);
    if (!tensor || elements_of(*tensor) != 1) return {};
    if (const auto whole = integers_of(*tensor); whole && whole->size() == 1) return static_cast<float>(whole->front());
    const std::vector<float> values = floats(*tensor);
    return values.empty() ? std::optional<float>() : values[0];
  }

  std::string file_;
  const onnx::GraphProto& graph_;
  bool hollow_;
  const onnx::NodeProto* node_ = nullptr;
  std::map<std::string, const onnx::TensorProto*> constants_;
};

}  // namespace halftone
