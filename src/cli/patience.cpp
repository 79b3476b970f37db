#include "cli/patience.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "halftone/tensor/text.hpp"

namespace halftone::cli {
namespace {

constexpr const char *best_key = "patience_best", *since_key = "patience_epochs";

}  // namespace

void Patience::take(double accuracy, std::int64_t epochs) {
  since_ = accuracy > best_ ? 0 : since_ + epochs;
  best_ = std::max(best_, accuracy);
}

void Patience::note(Identity& identity) const {
  if (epochs_ == 0) return;
  identity.changeable.emplace_back(best_key, fmt::format("{}", best_));
  identity.changeable.emplace_back(since_key, std::to_string(since_));
}

void Patience::resume(const Metadata& state) {
  const auto number = [&](const char* key, double otherwise, double least, double most) {
    const std::string text = text_at(state, key);
    if (text.empty()) return otherwise;
    const auto value = parse_number(text);
    if (!value || !(*value >= least && *value <= most) || (key == since_key && std::floor(*value) != *value))
      throw FileError(fmt::format("{}: '{}': no training leaves it so", key, text));
    return *value;
  };
  best_ = number(best_key, -1, -1, 1);
  since_ = static_cast<std::int64_t>(number(since_key, 0, 0, 1e9));
}

}  // namespace halftone::cli
