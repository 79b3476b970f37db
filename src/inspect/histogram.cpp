#include "halftone/inspect/histogram.hpp"

#include <algorithm>
#include <cmath>

namespace halftone {

void ExponentHistogram::add(std::span<const float> numbers) {
  std::uint32_t fields[4][256] = {};  // four, so that equal neighbours do not wait for each other
  std::uint32_t largest = 0;
  std::int64_t zeros = 0;
  const auto look = [&](float x, std::uint32_t(&table)[256]) {
    const std::uint32_t magnitude = bit_cast<std::uint32_t>(x) & 0x7fffffffu;
    ++table[magnitude >> 23];
    zeros += magnitude == 0;
    largest = std::max(largest, magnitude < 0x7f800000u ? magnitude : 0);
  };
  constexpr std::size_t stretch = std::size_t{1} << 30;  // a table counts to 2^32
  for (std::size_t first = 0; first < numbers.size(); first += stretch) {
    const auto part = numbers.subspan(first, std::min(stretch, numbers.size() - first));
    std::size_t i = 0;
    for (; i + 4 <= part.size(); i += 4)
      for (std::size_t k = 0; k < 4; ++k) look(part[i + k], fields[k]);
    for (; i < part.size(); ++i) look(part[i], fields[0]);
    for (std::size_t field = 0; field < 256; ++field) {
      std::int64_t count = 0;
      for (auto& table : fields) count += std::exchange(table[field], 0);
      (field == 255 ? nonfinite_ : counts_[field]) += count;
    }
  }
  counts_[0] -= zeros;
  zeros_ += zeros;
  numbers_ += static_cast<std::int64_t>(numbers.size());
  largest_ = std::max(largest_, bit_cast<float>(largest));
}

void ExponentHistogram::add(const ExponentHistogram& other) {
  for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  numbers_ += other.numbers_;
  zeros_ += other.zeros_;
  nonfinite_ += other.nonfinite_;
  largest_ = std::max(largest_, other.largest_);
}

double ExponentHistogram::share_below(int exponent) const {
  std::int64_t below = 0;
  for (int e = lowest; e < std::min(exponent, highest + 1); ++e) below += count(e);
  return nonzero() > 0 ? static_cast<double>(below) / static_cast<double>(nonzero()) : 0;
}

double ExponentHistogram::energy() const {
  double sum = 0;
  for (int e = lowest; e <= highest; ++e) sum += 2.25 * std::ldexp(static_cast<double>(count(e)), 2 * e);
  return sum;
}

StorageRange range_of(const Storage& storage, const ExponentHistogram& seen) {
  if (storage.code == DType::f32) return {-149, 127};
  const Grid grid = storage.grid();
  const int top = std::ilogb(grid.largest);
  const int bottom = visit_format(storage.code, [](auto format) { return std::ilogb(decltype(format)::smallest); });
  int shift = storage.scaling == Scaling::constant ? storage.exponent : 0;
  const bool finds_scale = storage.scaling != Scaling::none && storage.scaling != Scaling::constant;
  if (finds_scale && seen.largest() > 0) shift = std::ilogb(seen.largest()) - top;
  return {bottom + shift, top + shift};
}

}  // namespace halftone
