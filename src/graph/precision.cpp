#include "halftone/graph/precision.hpp"

#include <fmt/format.h>

#include <charconv>

#include "halftone/tensor/text.hpp"

namespace halftone {
namespace {

/// What follows `prefix` in `name`; nothing where it begins otherwise.
std::optional<std::string_view> after(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  return name.substr(prefix.size());
}

/// An integer at the front of `text`, which is cut off.
std::optional<int> take_number(std::string_view& text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || text.front() == '-') return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

/// "6.10:stochastic".
std::optional<Precision> parse_fixed(std::string_view text) {
  const auto integer_bits = take_number(text);
  if (!integer_bits || !text.starts_with('.')) return std::nullopt;
  text.remove_prefix(1);
  const auto fraction_bits = take_number(text);
  if (!fraction_bits) return std::nullopt;
  if (text == ":nearest") return Precision::fixed(*integer_bits, *fraction_bits, Rounding::nearest);
  if (text == ":stochastic") return Precision::fixed(*integer_bits, *fraction_bits, Rounding::stochastic);
  return std::nullopt;
}

/// The presets that a name alone tells.
constexpr std::pair<std::string_view, Precision (*)()> presets[] = {
    {"f32", Precision::f32}, {"f16", Precision::f16}, {"bf16", Precision::bf16}};

std::optional<Precision> parse(const std::string& name) {
  for (const auto& [preset, make] : presets)
    if (name == preset) return make();
  if (const auto update = after(name, "bf16_pure")) {
    if (update->empty() || *update == ":nearest") return Precision::bf16_pure(Precision::Update::nearest);
    if (*update == ":stochastic") return Precision::bf16_pure(Precision::Update::stochastic);
    if (*update == ":kahan") return Precision::bf16_pure(Precision::Update::kahan);
  }
  if (const auto split = after(name, "fixed:")) return parse_fixed(*split);
  return std::nullopt;
}

/// The preset called `part` in the number system `name`.
Precision preset(const std::string& part, const std::string& name) {
  if (auto precision = parse(part)) return *precision;
  fail(fmt::format("precision {}: {}known number systems are {}", name,
                   part == name ? "" : fmt::format("'{}' is none; ", part), precision_names()));
}

/// "update=f32" or "conv1=bf16", in the number system `name`.
void keep(Precision& precision, std::string_view what, const std::string& name) {
  const std::size_t equals = what.find('=');
  if (equals == 0 || equals == std::string_view::npos)
    fail(fmt::format("precision {}: what is kept otherwise reads ROLE=PRECISION or SCOPE=PRECISION", name));
  const std::string_view where = what.substr(0, equals);
  const RoleStorage other = preset(std::string(what.substr(equals + 1)), name).storage;
  for (const auto& [role, storage] : role_names)
    if (where == role) return void(precision.storage.*storage = other.*storage);
  precision.exceptions.push_back({std::string(where), other});
}

}  // namespace

Storage RoleStorage::of(Role role, const Storage& otherwise) const {
  switch (role) {
    case Role::activation:
      return activations;
    case Role::activation_gradient:
      return activation_gradients;
    case Role::weight:
      return weights;
    case Role::weight_gradient:
      return weight_gradients;
    case Role::input:
    case Role::exact:
      break;
  }
  return otherwise;
}

Precision Precision::f32() { return {}; }
Precision Precision::f16() { return {"f16", RoleStorage::all(DType::f16), LossScale::dynamic()}; }
Precision Precision::bf16() { return {"bf16", RoleStorage::all(DType::bf16)}; }

Precision Precision::bf16_pure(Update update) {
  Precision precision{"bf16_pure:nearest", RoleStorage::pure(DType::bf16)};
  if (update == Update::stochastic) {
    precision.name = "bf16_pure:stochastic";
    precision.storage.weights.rounding = precision.storage.update.rounding = Rounding::stochastic;
  }
  if (update == Update::kahan) {
    precision.name = "bf16_pure:kahan";
    precision.storage.compensated = true;
  }
  return precision;
}

Precision Precision::fixed(int integer_bits, int fraction_bits, Rounding rounding) {
  const std::string name = fmt::format("fixed:{}.{}:{}", integer_bits, fraction_bits,
                                       rounding == Rounding::stochastic ? "stochastic" : "nearest");
  if (integer_bits < 1 || fraction_bits < 0 || integer_bits > 32 || fraction_bits > 32 - integer_bits)
    fail(fmt::format("precision {}: it has at least 1 integer bit, the sign, and at most 32 bits in all", name));
  return {name, RoleStorage::pure(Storage::fixed(integer_bits, fraction_bits, rounding))};
}

Precision Precision::except(std::string scope, RoleStorage other) const {
  Precision result = *this;
  result.exceptions.push_back({std::move(scope), other});
  return result;
}

const RoleStorage& Precision::at(const std::string& name) const {
  for (const auto& exception : exceptions)
    if (in_scope(name, exception.scope)) return exception.storage;
  return storage;
}

std::string precision_names() {
  std::string names;
  for (const auto& preset : presets) names += fmt::format("{}, ", preset.first);
  return names + "bf16_pure:nearest|stochastic|kahan and fixed:IL.FL:nearest|stochastic";
}

Precision precision_by_name(const std::string& name) {
  const std::vector<std::string_view> all = parts(name, '+');
  Precision precision = preset(std::string(all[0]), name);
  for (std::size_t i = 1; i < all.size(); ++i) {
    keep(precision, all[i], name);
    precision.name = name;
  }
  return precision;
}

void narrow(Graph& graph, const Precision& precision) {
  const auto apply = [&](int id, const RoleStorage& storage) {
    ValueSpec& spec = graph.info(id).spec;
    spec.storage = storage.of(spec.role, spec.storage);
    if (graph->evaluates) spec.storage.noticed = false;
  };
  for (const auto& parameter : graph->parameters) apply(parameter.value, precision.at(parameter.name));
  for (const Node& node : graph->nodes) {
    for (int id : node.outputs) apply(id, precision.at(node.name));
    if (node.op->is_view())  // a view shares its input's memory, so its storage too
      graph.info(node.outputs[0]).spec.storage = graph.info(node.inputs[0]).spec.storage;
  }
  for (const auto& parameter : graph->parameters)
    if (parameter.gradient >= 0) apply(parameter.gradient, precision.at(parameter.name));
}

}  // namespace halftone
