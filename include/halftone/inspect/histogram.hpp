#pragma once
#include <array>
#include <cstdint>
#include <span>

#include "halftone/numeric/storage.hpp"

namespace halftone {

/// How often each power of two occurs among numbers: 2^e counts those with magnitudes in [2^e, 2^(e+1)).
class ExponentHistogram {
 public:
  /// All exponents of f32; smaller magnitudes than 2^-126 count as 2^-127.
  static constexpr int lowest = -127, highest = 127;

  void add(std::span<const float> numbers);
  void add(const ExponentHistogram& other);

  std::int64_t count(int exponent) const { return counts_[static_cast<std::size_t>(exponent - lowest)]; }
  std::int64_t numbers() const { return numbers_; }
  std::int64_t zeros() const { return zeros_; }
  std::int64_t nonfinite() const { return nonfinite_; }
  std::int64_t nonzero() const { return numbers_ - zeros_ - nonfinite_; }
  float largest() const { return largest_; }  ///< finite magnitude
  double zero_share() const { return numbers_ > 0 ? static_cast<double>(zeros_) / static_cast<double>(numbers_) : 0; }

  /// Of the nonzero numbers, the share below 2^exponent.
  double share_below(int exponent) const;
  /// Sum of squares, each number taken as 1.5 x 2^e.
  double energy() const;

 private:
  std::array<std::int64_t, highest - lowest + 1> counts_ = {};
  std::int64_t numbers_ = 0, zeros_ = 0, nonfinite_ = 0;
  float largest_ = 0;
};

/// Powers of two between which a storage holds numbers: from the smallest positive one to the largest. Where it finds
/// its scale by itself, counted down from the largest number of `seen`.
struct StorageRange {
  int lowest, highest;
};
StorageRange range_of(const Storage& storage, const ExponentHistogram& seen);

}  // namespace halftone
