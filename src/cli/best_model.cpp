#include "cli/best_model.hpp"

#include <fmt/format.h>

#include "halftone/io/atomic_file.hpp"
#include "halftone/io/safetensors.hpp"
#include "halftone/tensor/text.hpp"

namespace halftone::cli {
namespace {

constexpr const char* in_model = "test_accuracy";
constexpr const char* in_state = "best_test_accuracy";

}  // namespace

void BestModel::resume(const std::filesystem::path& from) {
  if (folder_.empty()) return;
  remove_leftovers(file());
  if (std::error_code ignored; !std::filesystem::exists(file(), ignored)) return;
  const std::string best = text_at(read_safetensors(from / "state.safetensors").metadata, in_state);
  if (text_at(read_model_metadata(folder_), in_model) == best) best_ = best;
}

void BestModel::offer(double accuracy, const Parameters& parameters, Metadata model) {
  if (folder_.empty() || accuracy <= parse_number(best_).value_or(-1)) return;
  best_ = model[in_model] = fmt::format("{}", accuracy);
  save_model(folder_, parameters, model);
}

void BestModel::note(Identity& identity) const {
  if (!best_.empty()) identity.changeable.emplace_back(in_state, best_);
}

}  // namespace halftone::cli
