#include "cli/patience.hpp"

#include <fmt/format.h>

#include <algorithm>

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
  best_ = parse_number(text_at(state, best_key)).value_or(-1);
  since_ = static_cast<std::int64_t>(parse_number(text_at(state, since_key)).value_or(0));
}

}  // namespace halftone::cli
