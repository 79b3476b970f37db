#pragma once
#include <array>
#include <cstdint>

#include "halftone/numeric/host_device.hpp"

namespace halftone {

/// The constants of Philox 4x32-10.
struct Philox {
  static constexpr int rounds = 10;
  static constexpr std::uint32_t factor0 = 0xD2511F53, factor1 = 0xCD9E8D57, key0 = 0x9E3779B9, key1 = 0xBB67AE85;
};

/// Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): 128 random bits for each
/// counter.
HALFTONE_HD constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                                          std::array<std::uint32_t, 2> key) {
  std::uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
  for (int round = 0; round < Philox::rounds; ++round) {
    const std::uint64_t a = std::uint64_t{Philox::factor0} * c0, b = std::uint64_t{Philox::factor1} * c2;
    c0 = static_cast<std::uint32_t>(b >> 32) ^ c1 ^ k0;
    c2 = static_cast<std::uint32_t>(a >> 32) ^ c3 ^ k1;
    c1 = static_cast<std::uint32_t>(b);
    c3 = static_cast<std::uint32_t>(a);
    k0 += Philox::key0;
    k1 += Philox::key1;
  }
  return {c0, c1, c2, c3};
}

/// The bits of elements 4 * block ... 4 * block + 3, `block` below 2^32.
HALFTONE_HD constexpr std::array<std::uint32_t, 4> block_bits(std::uint64_t seed, std::uint64_t step,
                                                              std::uint32_t node, std::uint64_t block) {
  return philox({static_cast<std::uint32_t>(block), node, static_cast<std::uint32_t>(step),
                 static_cast<std::uint32_t>(step >> 32)},
                {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
}

/// 32 random bits, independent for each (seed, step, node, element).
HALFTONE_HD constexpr std::uint32_t bits(std::uint64_t seed, std::uint64_t step, std::uint32_t node,
                                         std::uint64_t element) {
  return block_bits(seed, step, node, element / 4)[element % 4];
}

/// A number in [0, 1) made of the upper 24 of 32 random bits.
HALFTONE_HD constexpr float to_uniform(std::uint32_t random) { return static_cast<float>(random >> 8) * 0x1p-24f; }

/// A uniform number in [0, 1), independent for each (seed, step, node, element).
HALFTONE_HD constexpr float uniform(std::uint64_t seed, std::uint64_t step, std::uint32_t node, std::uint64_t element) {
  return to_uniform(bits(seed, step, node, element));
}

/// Which random numbers to draw: those of one tensor in one step.
struct RandomKey {
  std::uint64_t seed = 0, step = 0;
  std::uint32_t stream = 0;
  HALFTONE_HD constexpr float uniform(std::uint64_t element) const {
    return halftone::uniform(seed, step, stream, element);
  }
};

}  // namespace halftone
