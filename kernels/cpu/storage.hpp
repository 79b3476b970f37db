#pragma once
#include <cstddef>
#include <cstdint>

#include "halftone/graph/kernel.hpp"
#include "kernels/cpu/isa.hpp"

// How kernels read and write: runs of f32 numbers, however they are stored. Plain storages have a loop for each code;
// everything else (packed codes, scales, other rounding, counting) goes through one way that asks the storage at run
// time.
namespace halftone::cpu {

using Decode = void (*)(const void* from, float* to, std::int64_t count);
using Encode = void (*)(const float* from, void* to, std::int64_t count);

/// The loops that read and store codes of whole bytes, without a scale and rounded to nearest; every result has the bits
/// of the format's scalar functions.
Decode decoder(Isa isa, DType code);
Encode encoder(Isa isa, DType code);

/// bits [count] = the random bits of elements [first, first + count) of a tensor.
using Draw = void (*)(const RandomKey& key, std::int64_t first, std::int64_t count, std::uint32_t* bits);
Draw drawer(Isa isa);

/// y [count] = grid(x), where `first` is the place of the first number in its tensor; y may be x.
using Round = void (*)(const Grid& grid, const RandomKey& key, std::int64_t first, std::int64_t count, const float* x,
                       float* y);
Round rounder(Isa isa, const Grid& grid);

struct StorageLoops;

/// How one tensor is read and written, settled when a kernel is made.
struct Access {
  Access() = default;
  Access(Isa isa, const TensorSpec& tensor);
  Access(Isa isa, const ValueSpec& value) : Access(isa, value.tensor()) {}

  Storage storage;
  bool f32 = true;          ///< plain f32: nothing to convert
  std::int64_t count = 0;   ///< numbers of the tensor
  std::int64_t size = 4;    ///< bytes of a plain code
  Decode decode = nullptr;  ///< of a plain storage
  Encode encode = nullptr;
  const StorageLoops* loops = nullptr;  ///< of all others
  Grid grid = {};
};

/// A tensor in memory as a kernel reads it.
class Input {
 public:
  Input(const Access& access, const Memory& memory)
      : access_(&access),
        data_(static_cast<const std::byte*>(memory.data)),
        range_(memory.range ? memory.range->scale : 1.0f) {}

  /// Numbers [first, first + count): where they are if they are f32, else read into `buffer`.
  const float* operator()(std::int64_t first, std::int64_t count, float* buffer) const {
    if (access_->f32) return reinterpret_cast<const float*>(data_) + first;
    copy(first, count, buffer);
    return buffer;
  }
  /// The same, into `to` whatever they are.
  void copy(std::int64_t first, std::int64_t count, float* to) const;

 private:
  const Access* access_;
  const std::byte* data_;
  float range_;
};

/// A tensor in memory as a kernel writes it, each number once.
class Output {
 public:
  Output(const Access& access, const Arguments& arguments, std::size_t i);

  /// Where to compute the numbers from `first` on: in the tensor itself if it is f32, else in `buffer`.
  float* place(std::int64_t first, float* buffer) const {
    return access_->f32 ? reinterpret_cast<float*>(data_) + first : buffer;
  }
  /// Stores numbers [first, first + count); nothing is left to do where `from` is their place.
  void operator()(std::int64_t first, std::int64_t count, const float* from) const;
  /// What has been stored, as it will be read.
  void read_back(std::int64_t first, std::int64_t count, float* to) const;

 private:
  const Access* access_;
  std::byte* data_;
  RangeState* range_;
  RandomKey key_;
};

}  // namespace halftone::cpu
