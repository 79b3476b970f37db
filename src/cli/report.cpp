#include "cli/report.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "halftone/io/atomic_file.hpp"

namespace halftone::cli {

Json to_json(const MemoryReport& m) {
  return {{"weights", m.weights},
          {"masters", m.masters},
          {"gradients", m.gradients},
          {"optimizer", m.optimizer},
          {"activations", m.activations},
          {"workspace", m.workspace},
          {"peak", m.peak}};
}

namespace {

/// The counts of all tensors of a role together.
Json roles_of(const std::vector<TensorNumerics>& tensors) {
  Json roles = Json::object();
  for (const auto& [role, storage] : role_names) {
    double numbers = 0, zeros = 0, flushed = 0, saturated = 0, updated = 0, unchanged = 0;
    for (const TensorNumerics& t : tensors) {
      if (t.role != std::string_view(role)) continue;
      const auto count = static_cast<double>(t.numbers);
      numbers += count, zeros += count * t.zeros, flushed += count * t.flushed, saturated += count * t.saturated;
      if (t.unchanged) updated += count, unchanged += count * *t.unchanged;
    }
    if (numbers > 0)
      roles[role] = {{"zeros", zeros / numbers}, {"flushed", flushed / numbers}, {"saturated", saturated / numbers}};
    if (updated > 0) roles[role]["unchanged"] = unchanged / updated;
  }
  return roles;
}

}  // namespace

Json to_json(const NumericsReport& n) {
  Json tensors = Json::array();
  for (const TensorNumerics& t : n.tensors) {
    tensors.push_back({{"tensor", t.tensor},
                       {"role", t.role},
                       {"zeros", t.zeros},
                       {"flushed", t.flushed},
                       {"saturated", t.saturated},
                       {"largest", t.largest},
                       {"range", t.range}});
    if (t.unchanged) tensors.back()["unchanged"] = *t.unchanged;
  }
  return {{"zero_weight_gradients", n.zero_weight_gradients},
          {"unchanged_weights", n.unchanged_weights},
          {"skipped_steps", n.skipped_steps},
          {"nonfinite", n.nonfinite},
          {"roles", roles_of(n.tensors)},
          {"tensors", std::move(tensors)}};
}

Json to_json(const EpochResult& epoch) {
  const EpochReport& e = epoch.training;
  Json json = {{"epoch", e.epoch}, {"train_loss", e.loss}, {"test_accuracy", nullptr}};
  if (epoch.test) json["test_accuracy"] = epoch.test->accuracy();
  json["seconds"] = e.seconds;
  json["images_per_second"] = e.images_per_second;
  json["skipped_steps"] = e.skipped_steps;
  json["loss_scale"] = e.loss_scale;
  return json;
}

Json to_json(const ExponentHistogram& seen) {
  Json exponents = Json::object();
  for (int e = ExponentHistogram::lowest; e <= ExponentHistogram::highest; ++e)
    if (const std::int64_t count = seen.count(e); count > 0) exponents[std::to_string(e)] = count;
  return {{"exponents", std::move(exponents)},
          {"zeros", seen.zero_share()},
          {"numbers", seen.numbers()},
          {"largest", seen.largest()}};
}

Json final_results(const std::vector<EpochResult>& epochs) {
  Json json = {{"train_loss", nullptr}, {"test_error", nullptr}, {"best_test_error", nullptr}};
  double best = 1;
  for (const EpochResult& epoch : epochs) {
    json["train_loss"] = epoch.training.loss;
    if (!epoch.test) continue;
    best = std::min(best, epoch.test->error());
    json["test_error"] = epoch.test->error();
    json["best_test_error"] = best;
  }
  return json;
}

std::string name_for_people(const Dataset& data) { return data.name + (data.synthetic ? " (synthetic)" : ""); }

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string result = "\"";
  for (const char c : text) result += c == '"' ? std::string("\"\"") : std::string(1, c);
  return result + "\"";
}

void print_left_out(const Dataset& data) {
  constexpr std::size_t most = 5;
  if (data.left_out.empty()) return;
  fmt::print("left out: {} broken images of {}\n", data.left_out.size(), data.name);
  for (std::size_t i = 0; i < std::min(most, data.left_out.size()); ++i) fmt::print("  {}\n", data.left_out[i]);
  if (data.left_out.size() > most) fmt::print("  and {} more\n", data.left_out.size() - most);
}

void write_json(const std::string& file, const Json& json) {
  if (!file.empty()) write_file(file, json.dump(2) + "\n");
}

}  // namespace halftone::cli
