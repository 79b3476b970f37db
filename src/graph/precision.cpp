#include "halftone/graph/precision.hpp"

#include <fmt/format.h>

#include <algorithm>
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

/// "10/12".
std::optional<Precision> parse_dynamic_fixed(std::string_view text) {
  const auto bits = take_number(text);
  if (!bits || !text.starts_with('/')) return std::nullopt;
  text.remove_prefix(1);
  const auto update_bits = take_number(text);
  if (!update_bits || !text.empty()) return std::nullopt;
  return Precision::dynamic_fixed(*bits, *update_bits);
}

/// Which of `names` follows ':' in `text`; the first where nothing does.
template <class Kind>
std::optional<Kind> parse_kind(std::string_view text, std::initializer_list<std::pair<std::string_view, Kind>> names) {
  if (text.empty()) return names.begin()->second;
  for (const auto& [name, kind] : names)
    if (text.starts_with(':') && text.substr(1) == name) return kind;
  return std::nullopt;
}

/// The presets that a name alone tells.
constexpr std::pair<std::string_view, Precision (*)()> presets[] = {
    {"f32", Precision::f32},
    {"f16", Precision::f16},
    {"bf16", Precision::bf16},
    {"mxfp8", [] { return Precision::mx(DType::e4m3); }},
    {"mxfp6", [] { return Precision::mx(DType::e3m2); }},
    {"mxfp4", [] { return Precision::mx(DType::e2m1); }},
    {"nvfp4", Precision::nvfp4},
    {"binary", [] { return Precision::binary(); }},
    {"binary:shift", [] { return Precision::binary(true); }}};

std::optional<Precision> parse(const std::string& name) {
  for (const auto& [preset, make] : presets)
    if (name == preset) return make();
  using Update = Precision::Update;
  using Fp8 = Precision::Fp8Scaling;
  for (const auto make : {Precision::bf16_pure, Precision::f16_pure}) {
    const std::string nearest = make(Update::nearest).name;
    if (const auto update = after(name, nearest.substr(0, nearest.find(':'))))
      if (const auto kind = parse_kind<Update>(
              *update, {{"nearest", Update::nearest}, {"stochastic", Update::stochastic}, {"kahan", Update::kahan}}))
        return make(*kind);
  }
  if (const auto scaling = after(name, "fp8"))
    if (const auto kind =
            parse_kind<Fp8>(*scaling, {{"current", Fp8::current}, {"delayed", Fp8::delayed}, {"none", Fp8::none}}))
      return Precision::fp8(*kind);
  if (auto width = after(name, "int"))
    if (const auto bits = take_number(*width); bits && width->empty()) return Precision::integer(*bits);
  if (const auto split = after(name, "fixed:")) return parse_fixed(*split);
  if (const auto widths = after(name, "dynamic_fixed:")) return parse_dynamic_fixed(*widths);
  if (auto width = after(name, "static_fixed:"))
    if (const auto bits = take_number(*width); bits && width->empty()) return Precision::static_fixed(*bits);
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
  const Precision system = preset(std::string(what.substr(equals + 1)), name);
  if (system.binarizes) fail(fmt::format("precision {}: a part of a net cannot be made binary", name));
  precision.fuses = precision.fuses && system.fuses;
  precision.range_steps = std::max(precision.range_steps, system.range_steps);
  const RoleStorage& other = system.storage;
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

namespace {

Precision pure(DType code, Precision::Update update, const LossScale& loss_scale) {
  using Update = Precision::Update;
  RoleStorage storage = RoleStorage::pure(code);
  if (update == Update::stochastic) storage.weights.rounding = storage.update.rounding = Rounding::stochastic;
  storage.compensated = update == Update::kahan;
  const char* name = update == Update::nearest ? "nearest" : update == Update::stochastic ? "stochastic" : "kahan";
  return {fmt::format("{}_pure:{}", name_of(code), name), storage, loss_scale};
}

/// A word of `width` bits in the narrowest code; its range, at first 2^5, follows the rate of overflow.
Storage dynamic_word(int width) {
  Storage storage = Storage::fixed(6, width - 6);
  storage.scaling = Scaling::range;
  storage.noticed = true;
  storage.controller = OverflowRate{};
  return storage;
}

/// A scale that follows the largest numbers of steps before; at first 2^exponent.
Storage delayed(Storage storage, int exponent, int interval) {
  storage.scaling = Scaling::range;
  storage.exponent = static_cast<std::int8_t>(exponent);
  storage.noticed = true;
  storage.controller = Delayed{storage.largest(), interval};
  return storage;
}

}  // namespace

Precision Precision::bf16_pure(Update update) { return pure(DType::bf16, update, LossScale::none()); }
Precision Precision::f16_pure(Update update) { return pure(DType::f16, update, LossScale::dynamic()); }

Precision Precision::dynamic_fixed(int bits, int update_bits) {
  Precision precision{fmt::format("dynamic_fixed:{}/{}", bits, update_bits), {}};
  for (const int width : {bits, update_bits})
    if (width < 2 || width > 24) fail(fmt::format("precision {}: a word has 2 to 24 bits", precision.name));
  precision.storage = RoleStorage::pure(dynamic_word(bits));
  precision.storage.update = dynamic_word(update_bits);
  precision.range_steps = 200;
  precision.fuses = false;
  return precision;
}

Precision Precision::static_fixed(int bits) {
  Precision precision{fmt::format("static_fixed:{}", bits), {}};
  if (bits < 6 || bits > 32) fail(fmt::format("precision {}: a word has 6 to 32 bits", precision.name));
  precision.storage = RoleStorage::pure(Storage::fixed(6, bits - 6));
  precision.fuses = false;
  return precision;
}

Precision Precision::fp8(Fp8Scaling scaling) {
  Precision precision{"fp8:current", RoleStorage::all(Storage::scaled(DType::e5m2))};
  RoleStorage& storage = precision.storage;
  storage.activations = Storage::scaled(DType::e4m3);
  storage.weights = delayed(DType::e4m3, -8, 1);
  if (scaling == Fp8Scaling::delayed) {
    precision.name = "fp8:delayed";
    storage.activations = delayed(DType::e4m3, 0, 1024);
    storage.activation_gradients = storage.weight_gradients = delayed(DType::e5m2, 0, 1024);
  }
  if (scaling == Fp8Scaling::none) {
    precision.name = "fp8:none";
    storage.activations = storage.weights = DType::e4m3;
    storage.activation_gradients = storage.weight_gradients = DType::e5m2;
  }
  return precision;
}

Precision Precision::integer(int bits) {
  Precision precision{fmt::format("int{}", bits), {}};
  if (bits < 2 || bits > 8) fail(fmt::format("precision {}: an integer has 2 to 8 bits", precision.name));
  Storage scaled = Storage::scaled(DType::i8);
  scaled.width = static_cast<std::uint8_t>(bits);
  precision.storage.activations = precision.storage.activation_gradients = scaled;
  precision.storage.weights = delayed(scaled, 1 - bits, 1);
  return precision;
}

Precision Precision::mx(DType code) {
  Precision precision{fmt::format("mxfp{}", bits_of(code)), {}};
  if (code != DType::e4m3 && code != DType::e3m2 && code != DType::e2m1)
    fail(fmt::format("precision mx: e4m3, e3m2 or e2m1, not {}", name_of(code)));
  precision.storage.activations = precision.storage.activation_gradients = precision.storage.weights =
      Storage::blocks(code, 32);
  return precision;
}

Precision Precision::nvfp4() {
  Precision precision{"nvfp4", {}};
  precision.storage.activations = Storage::nested_blocks(DType::e2m1, 16);
  precision.storage.activation_gradients = Storage::nested_blocks(DType::e2m1, 16, Rounding::stochastic);
  precision.storage.weights = delayed(precision.storage.activations, -12, 1);
  return precision;
}

Precision Precision::noticing() const {
  Precision result = *this;
  const auto notice = [](RoleStorage& roles) {
    for (const auto& [role, member] : role_names) (roles.*member).noticed = true;
  };
  notice(result.storage);
  for (auto& exception : result.exceptions) notice(exception.storage);
  return result;
}

Precision Precision::binary(bool shift_norms) {
  Precision precision{shift_norms ? "binary:shift" : "binary", {}};
  precision.binarizes = true;
  precision.shift_norms = shift_norms;
  return precision;
}

Precision Precision::wide() const {
  Precision result = *this;
  result.range_steps = 0;
  const auto widen = [](RoleStorage& roles) {
    for (const auto& [role, member] : role_names) {
      Storage& storage = roles.*member;
      if (storage.scaling != Scaling::range || storage.width == 0) continue;
      storage.exponent = static_cast<std::int8_t>(storage.exponent + storage.width - 24);
      storage.width = 24;
      storage.code = DType::i32;
      if (auto* rate = std::get_if<OverflowRate>(&storage.controller)) rate->interval = (rate->interval + 9) / 10;
      if (auto* delayed = std::get_if<Delayed>(&storage.controller)) delayed->largest = storage.grid().largest;
    }
  };
  widen(result.storage);
  for (auto& exception : result.exceptions) widen(exception.storage);
  return result;
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
  return names +
         "fp8:current|delayed|none, f16_pure and bf16_pure:nearest|stochastic|kahan, fixed:IL.FL:nearest|stochastic, "
         "dynamic_fixed:BITS/UPDATE, static_fixed:BITS and intBITS";
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
    if (!node.op->is_view() && !node.op->selects()) continue;
    const Storage& input = graph.info(node.inputs[0]).spec.storage;
    auto& [shape, output, role] = graph.info(node.outputs[0]).spec;
    const bool of_signs = input.code == DType::sign && input.scaling == Scaling::none;
    if (node.op->is_view()) {
      output = input;  // the same memory
    } else if (of_signs && role != Role::exact && &precision.at(node.name) == &precision.storage) {
      const bool noticed = output.noticed;
      output = DType::sign;
      output.noticed = noticed;
    }
  }
  for (const auto& parameter : graph->parameters)
    if (parameter.gradient >= 0) apply(parameter.gradient, precision.at(parameter.name));
}

}  // namespace halftone
