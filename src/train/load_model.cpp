#include "halftone/train/load_model.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "halftone/io/safetensors.hpp"
#include "halftone/ops/initializers.hpp"
#include "src/train/model_format.hpp"
#include "src/train/state_fields.hpp"

namespace halftone {

std::vector<float> swapped(const std::vector<float>& in, std::int64_t planes, std::int64_t columns, std::int64_t rows) {
  std::vector<float> out(in.size());
  for (std::int64_t p = 0; p < planes && !in.empty(); ++p)
    for (std::int64_t q = 0; q < columns; ++q)
      for (std::int64_t r = 0; r < rows; ++r)
        out[at((p * rows + r) * columns + q)] = in[at((p * columns + q) * rows + r)];
  return out;
}

namespace {

class ModelFile {
 public:
  ModelFile(const std::filesystem::path& path, const LoadOptions& options)
      : file_(read_safetensors(path)), options_(options), own_(is_own(file_)) {
    const auto weights = file_.metadata.find("weights");
    averaged_ = weights != file_.metadata.end() && weights->second == "averaged";
    using namespace std::string_view_literals;
    layout_ = order("layout", options.layout, {{"krsc"sv, Layout::krsc}, {"kcrs"sv, Layout::kcrs}});
    flatten_ = order("flatten", options.flatten, {{"hwc"sv, FlattenOrder::hwc}, {"chw"sv, FlattenOrder::chw}});
  }

  bool takes(const std::string& name) const {
    const auto lies_in = [&](const std::string& scope) { return in_scope(name, scope); };
    return (options_.scopes.empty() || std::ranges::any_of(options_.scopes, lies_in)) &&
           std::ranges::none_of(options_.left_out, lies_in);
  }

  /// The numbers of a tensor of ours, in our order.
  std::vector<float> numbers(const std::string& ours, Shape s, int rank, Shape flattened) {
    const std::string theirs = options_.name ? options_.name(ours) : ours;
    auto values = numbers_of(theirs, ours, s, rank, flattened);
    if (!own_ || !file_.find(raw_name(theirs))) {
      if (own_ && averaged_ && options_.weights == ModelWeights::raw) refuse("it holds averaged weights, no raw ones");
      return values;
    }
    auto trained = numbers_of(raw_name(theirs), ours, s, rank, flattened);  // checked whichever is wanted
    return options_.weights == ModelWeights::raw ? trained : values;
  }

  /// The tensors that nothing was read from.
  std::vector<std::string> unread() const {
    std::vector<std::string> names;
    for (const StoredTensor& tensor : file_.tensors) {
      if (read_.contains(tensor.name)) continue;
      names.push_back(tensor.name);
      if (options_.scopes.empty() && options_.left_out.empty() && tensor.is_float())
        refuse(fmt::format("tensor {} has no place in the net; load_model's scopes take a part of it", tensor.name));
    }
    return names;
  }

  const Metadata& metadata() const { return file_.metadata; }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    throw FileError(fmt::format("{}: {}", file_.file.string(), why));
  }

  /// What the file says of an order and what was asked for, which must not differ; nothing where nobody knows.
  template <class Order>
  std::optional<Order> order(const char* key, std::optional<Order> asked,
                             std::initializer_list<std::pair<std::string_view, Order>> words) const {
    std::string said = text_at(file_.metadata, key);
    if (said.empty() && own_) said = words.begin()->first;
    if (said.empty()) return asked;
    const auto word = std::ranges::find(words, said, &std::pair<std::string_view, Order>::first);
    if (word == words.end()) refuse(fmt::format("its {} is '{}', which is unknown", key, said));
    if (asked && *asked != word->second)
      fail(fmt::format("{}: its {} is {}, another was asked for", file_.file.string(), key, said));
    return word->second;
  }

  std::vector<float> floats_of(const StoredTensor& tensor) const {
    if (!tensor.is_float()) refuse(fmt::format("tensor {} holds {}, not floats", tensor.name, name_of(tensor.dtype)));
    const auto count = static_cast<std::int64_t>(tensor.data.size() / size_of(tensor.dtype));
    std::vector<float> values;
    for (std::int64_t i = 0; i < count; ++i) {
      values.push_back(read_number(tensor.dtype, tensor.data.data(), count, i));
      if (!std::isfinite(values.back()))
        refuse(fmt::format("tensor {} holds a number that is not finite at place {}", tensor.name, i));
    }
    return values;
  }

  /// As `save_packed` stores them.
  static std::vector<float> signs_of(const StoredTensor& tensor, Shape s) {
    std::vector<float> values;
    for (std::int64_t i = 0, count = s.elements(); i < count; ++i)
      values.push_back(read_number(DType::sign, tensor.data.data(), count, i));
    return values;
  }

  std::vector<float> numbers_of(const std::string& theirs, const std::string& ours, Shape s, int rank,
                                Shape flattened) {
    if (!read_.insert(theirs).second)
      fail(fmt::format("{}: two tensors of the net, one of them {}, are called {}", file_.file.string(), ours, theirs));
    const auto known = [&](const auto& order, const char* option, const char* choice) {
      if (!order)
        fail(fmt::format("{}: the order of tensor {} is not known: load_model takes {}, {}", file_.file.string(),
                         theirs, option, choice));
      return *order;
    };
    const StoredTensor& tensor = file_.at(theirs);
    const bool kcrs = rank == 4 && known(layout_, "layout", "krsc or kcrs (PyTorch's)") == Layout::kcrs;
    std::vector<std::int64_t> shape = kcrs ? std::vector<std::int64_t>{s.n, s.c, s.h, s.w} : file_shape(s, rank);
    const bool packed = own_ && tensor.dtype == DType::u8 && rank > 1;
    if (packed) shape = {static_cast<std::int64_t>(Storage(DType::sign).bytes(s.elements()))};
    if (tensor.shape != shape)
      refuse(fmt::format("tensor {} is [{}], not [{}] ({})", theirs, fmt::join(tensor.shape, ", "),
                         fmt::join(shape, ", "), ours));
    const std::vector<float> values = packed ? signs_of(tensor, s) : floats_of(tensor);
    if (kcrs) return swapped(values, s.n, s.c, s.h * s.w);
    const std::int64_t pixels = flattened.h * flattened.w;
    if (pixels > 1 && flattened.c > 1 && known(flatten_, "flatten", "hwc or chw (nn.Flatten's)") == FlattenOrder::chw)
      return swapped(values, s.n, flattened.c, pixels);
    return values;
  }

  SafeTensors file_;
  const LoadOptions& options_;
  bool own_;  // written by Halftone
  bool averaged_ = false;
  std::optional<Layout> layout_;
  std::optional<FlattenOrder> flatten_;
  std::set<std::string> read_;
};

}  // namespace

LoadReport load_model(const std::filesystem::path& path, Parameters& parameters, const LoadOptions& options) {
  ModelFile file(path, options);
  LoadReport report;
  std::vector<std::pair<const ParameterSlot*, std::vector<float>>> weights;
  std::vector<std::pair<std::size_t, std::vector<float>>> statistics;
  std::vector<std::string> names;
  const auto wanted = [&](const std::string& name) {
    names.push_back(name);
    if (!file.takes(name)) report.kept.push_back(name);
    return file.takes(name);
  };
  for (const ParameterSlot& slot : parameters.entries)
    if (wanted(slot.name)) weights.emplace_back(&slot, file.numbers(slot.name, slot.shape, slot.rank, slot.flattened));
  for (std::size_t i = 0; i < parameters.statistics.size(); ++i)
    if (const auto& slot = parameters.statistics[i]; wanted(slot.name))
      statistics.emplace_back(i, file.numbers(slot.name, slot.shape, 1, {}));
  for (const auto* scopes : {&options.scopes, &options.left_out})
    for (const std::string& scope : *scopes)
      if (std::ranges::none_of(names, [&](const std::string& name) { return in_scope(name, scope); }))
        fail(fmt::format("load_model: nothing of the net lies in the scope \"{}\"", scope));
  report.unread = file.unread();
  std::vector<RangeState> ranges = parameters.read_ranges();
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const auto& range = parameters.ranges[i];
    const float otherwise = report.kept.empty() ? range.storage.first_scale() : ranges[i].scale;
    const float scale = range_state_of(file.metadata(), range.value, otherwise).scale;
    ranges[i] = {.scale = scale, .next = scale};
  }
  parameters.write_ranges(ranges);
  for (const auto& [slot, values] : weights) {
    for (const Store store : {Store::weights, Store::masters})
      if (!has_scale(file.metadata(), name_in(store, slot->name))) parameters.make_room(store, *slot, values);
    parameters.assign(*slot, values);
  }
  for (const auto& [i, values] : statistics) parameters.assign_statistic(i, values);
  return report;
}

LoadReport start_from(const std::filesystem::path& file, Graph graph, const LoadOptions& options) {
  Parameters parameters(graph, cpu_device({.threads = 1}), {.gradients = false});
  const LoadReport report = load_model(file, parameters, options);
  const auto stays = [&](const std::string& name) { return std::ranges::find(report.kept, name) != report.kept.end(); };
  for (ParameterInfo& info : graph->parameters) {
    if (stays(info.name)) continue;
    info.initializer = halftone::numbers(parameters.weight(parameters.find(info.name)).read());
  }
  for (std::size_t i = 0; i < parameters.statistics.size(); ++i)
    if (!stays(parameters.statistics[i].name)) graph->statistics[i].values = parameters.statistic(i).read();
  return report;
}

std::vector<std::string> head_of(const Value& logits) {
  const Graph graph = graph_of(logits);
  int value = logits.id();
  std::vector<std::string> names;
  for (auto node = graph->nodes.rbegin(); node != graph->nodes.rend() && names.empty(); ++node) {
    if (std::ranges::find(node->outputs, value) == node->outputs.end()) continue;
    for (const int id : node->inputs)
      if (graph.info(id).store == Store::weights) names.push_back(graph.info(id).name);
    if (!node->inputs.empty()) value = node->inputs[0];
  }
  if (names.empty()) fail("head_of: no layer with weights lies before the logits");
  return names;
}

}  // namespace halftone
