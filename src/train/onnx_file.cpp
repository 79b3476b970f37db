#ifdef HALFTONE_HAS_ONNX
#include "src/train/onnx_file.hpp"

#include <fmt/format.h>
#include <google/protobuf/util/json_util.h>
#include <zlib.h>

#include <cstring>
#include <limits>
#include <set>
#include <span>

#include "halftone/io/regular_file.hpp"
#include "halftone/numeric/storage.hpp"
#include "halftone/tensor/error.hpp"
#include "halftone/tensor/text.hpp"

namespace halftone {
namespace fs = std::filesystem;

namespace {

using onnx::ModelProto, onnx::NodeProto, onnx::TensorProto;

/// Bytes [offset, offset + size) of a file, by default all; nothing where these lie outside.
std::string content_of(const fs::path& path, std::uint64_t offset = 0, std::optional<std::uint64_t> size = {}) {
  RegularFile file(path);
  if (offset > file.size() || size.value_or(0) > file.size() - offset) return {};
  std::string bytes(size.value_or(file.size() - offset), '\0');
  bytes.resize(file.read_at(offset, std::as_writable_bytes(std::span(bytes))));
  return bytes;
}

/// Brings in the numbers that lie beside the file.
void fetch_external(ModelProto& model, const fs::path& file) {
  for (TensorProto& tensor : *model.mutable_graph()->mutable_initializer()) {
    if (tensor.data_location() != TensorProto::EXTERNAL) continue;
    const auto broken = [&](const std::string& why) {
      throw FileError(fmt::format("{}: the data of {} {}", file.string(), tensor.name(), why));
    };
    std::string place;
    std::int64_t offset = 0, length = -1;
    for (const auto& entry : tensor.external_data()) {
      if (entry.key() == "location") place = entry.value();
      const auto number = parse_number(entry.value()).value_or(-1);
      if (entry.key() == "offset") offset = number >= 0 && number < 1e15 ? static_cast<std::int64_t>(number) : -1;
      if (entry.key() == "length") length = number >= 0 && number < 1e15 ? static_cast<std::int64_t>(number) : -1;
    }
    std::error_code ignored;
    const fs::path beside = file.parent_path() / place;
    if (place.empty() || fs::path(place).filename() != place || place == "." || place == ".." ||
        fs::is_symlink(beside, ignored))
      broken(fmt::format("lie in '{}', which is no file beside it", place));
    if (offset < 0 || length < 0) broken("have no sound place");
    tensor.set_raw_data(content_of(beside, static_cast<std::uint64_t>(offset), static_cast<std::uint64_t>(length)));
    if (std::ssize(tensor.raw_data()) != length) broken(fmt::format("lie outside {}", place));
    tensor.clear_external_data(), tensor.clear_data_location();
  }
}

/// count numbers as their bytes lie there; fewer where there are others than their bytes.
template <class T>
std::vector<T> numbers_in(const std::string& bytes, std::int64_t count) {
  std::vector<T> values;
  if (bytes.size() != static_cast<std::size_t>(count) * sizeof(T)) return values;
  values.resize(static_cast<std::size_t>(count));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

}  // namespace

ModelProto read_model(const fs::path& file) {
  const std::string bytes = content_of(file);
  ModelProto model;
  if (bytes.size() > std::numeric_limits<int>::max() ||
      !model.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) || !model.has_graph())
    throw FileError(file.string() + " is no sound ONNX file");
  fetch_external(model, file);
  return model;
}

std::string checksum_of(const ModelProto& model) {
  uLong sum = 0;
  const auto add = [&](const std::string& bytes) {
    sum = crc32_z(sum, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
  };
  add(hollow(model));
  for (const TensorProto& tensor : model.graph().initializer()) {
    add(tensor.raw_data());
    if (tensor.raw_data().empty()) add(tensor.SerializeAsString());
  }
  return fmt::format("{:08x}", sum);
}

std::string hollow(const ModelProto& whole_model) {
  ModelProto model;
  model.set_ir_version(whole_model.ir_version());
  *model.mutable_opset_import() = whole_model.opset_import();
  onnx::GraphProto& graph = *model.mutable_graph();
  const onnx::GraphProto& whole = whole_model.graph();
  *graph.mutable_node() = whole.node();
  *graph.mutable_input() = whole.input();
  *graph.mutable_output() = whole.output();
  std::set<std::string> factors;  // of what has no weights
  for (NodeProto& node : *graph.mutable_node()) {
    node.clear_doc_string();
    if (node.op_type() == "Resize" || node.op_type() == "Upsample")
      factors.insert(node.input().begin(), node.input().end());
  }
  for (const TensorProto& tensor : whole.initializer()) {
    if (integers_of(tensor) || elements_of(tensor) == 1 || factors.contains(tensor.name())) {
      *graph.add_initializer() = tensor;
      continue;
    }
    TensorProto& empty = *graph.add_initializer();
    empty.set_name(tensor.name());
    empty.set_data_type(tensor.data_type());
    *empty.mutable_dims() = tensor.dims();
  }
  model.DiscardUnknownFields();
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(model, &text);
  if (!status.ok()) fail(fmt::format("onnx: a graph that is no text: {}", status.ToString()));
  return text;
}

std::optional<ModelProto> model_of_hollow(std::string_view text) {
  ModelProto model;
  const bool sound = google::protobuf::util::JsonStringToMessage(std::string(text), &model).ok() && model.has_graph();
  return sound ? std::optional(std::move(model)) : std::nullopt;
}

std::int64_t elements_of(const TensorProto& tensor) {
  constexpr std::int64_t most = std::int64_t{1} << 31;
  std::int64_t count = 1;
  for (const std::int64_t extent : tensor.dims()) {
    if (extent < 0 || (extent > 0 && count > most / extent)) return -1;
    count *= extent;
  }
  return count;
}

std::optional<std::vector<std::int64_t>> integers_of(const TensorProto& tensor) {
  constexpr std::int64_t most = 64;
  const std::int64_t count = elements_of(tensor);
  if (count < 0 || count > most) return {};
  const auto as_wide = [&](const auto& from) { return std::vector<std::int64_t>(from.begin(), from.end()); };
  std::vector<std::int64_t> numbers;
  if (tensor.data_type() == TensorProto::INT64) {
    numbers = as_wide(tensor.int64_data());
    if (numbers.empty()) numbers = numbers_in<std::int64_t>(tensor.raw_data(), count);
  } else if (tensor.data_type() == TensorProto::INT32) {
    numbers = as_wide(tensor.int32_data());
    if (numbers.empty()) numbers = as_wide(numbers_in<std::int32_t>(tensor.raw_data(), count));
  } else {
    return {};
  }
  return std::ssize(numbers) == count ? std::optional(std::move(numbers)) : std::nullopt;
}

std::optional<std::vector<float>> floats_of(const TensorProto& tensor) {
  const std::int64_t count = elements_of(tensor);
  const std::string& raw = tensor.raw_data();
  std::vector<float> values;
  switch (tensor.data_type()) {
    case TensorProto::FLOAT:
      values = raw.empty() ? std::vector<float>(tensor.float_data().begin(), tensor.float_data().end())
                           : numbers_in<float>(raw, count);
      return values;
    case TensorProto::DOUBLE:
      for (const double x : numbers_in<double>(raw, count)) values.push_back(static_cast<float>(x));
      return values;
    case TensorProto::FLOAT16:
      for (const std::uint16_t x : numbers_in<std::uint16_t>(raw, count)) values.push_back(F16::decode(x));
      return values;
    case TensorProto::BFLOAT16:
      for (const std::uint16_t x : numbers_in<std::uint16_t>(raw, count)) values.push_back(BF16::decode(x));
      return values;
    default:
      return {};
  }
}

}  // namespace halftone
#endif
