#pragma once
#include <cstddef>
#include <cstdint>

#include "halftone/graph/kernel.hpp"
#include "kernels/cpu/isa.hpp"

// How kernels read and write: runs of f32 numbers, whatever is stored. f32, f16, bf16 and all other plain codes have
// loops of their own; everything else goes through one way that asks the storage at run time.
namespace halftone::cpu {

using Decode = void (*)(const void* from, float* to, std::int64_t count);
using Encode = void (*)(const float* from, void* to, std::int64_t count);

/// The loops that read and store `count` numbers as codes without a scale, rounded to nearest; every result has the bits
/// of the format's scalar functions. For codes of whole bytes.
Decode decoder(Isa isa, DType code);
Encode encoder(Isa isa, DType code);

/// bits [count] = the random bits of elements [first, first + count).
using Draw = void (*)(const RandomKey& key, std::int64_t first, std::int64_t count, std::uint32_t* bits);
Draw drawer(Isa isa);

/// y = grid(x), drawing where rounding is stochastic; `first` is the first number's place in its tensor. y may be x.
using RoundRun = void (*)(const Grid& grid, const RandomKey& key, std::int64_t first, std::int64_t count,
                          const float* x, float* y);
RoundRun rounder(Isa isa, const Grid& grid);

/// A stored tensor in memory, to be read.
class Input {
 public:
  /// Numbers [first, first + count): where they are if they are f32, else read into `buffer`.
  const float* operator()(std::int64_t first, std::int64_t count, float* buffer) const;
  /// The same, always into `to`.
  void copy(std::int64_t first, std::int64_t count, float* to) const;
};

}  // namespace halftone::cpu
