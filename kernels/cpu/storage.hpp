#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

#include "halftone/graph/kernel.hpp"
#include "kernels/cpu/codes.hpp"

// How kernels read and write: runs of f32 numbers, however they are stored. Plain storages have a loop for each code;
// everything else (packed codes, scales, other rounding, counting) goes through one way that asks the storage at run
// time.
namespace halftone::cpu {

/// Numbers converted at a time: a few f32 buffers of them stay in the first-level cache. A multiple of 64.
inline constexpr std::int64_t chunk = 1024;

/// bits [count] = the random bits of elements [first, first + count) of a tensor, at most `chunk`.
using Draw = void (*)(const RandomKey& key, std::int64_t first, std::int64_t count, std::uint32_t* bits);
Draw drawer(Isa isa);

/// y [count] = grid(x), at most `chunk`, where `first` is the place of the first number in its tensor; y may be x.
using Round = void (*)(const Grid& grid, const RandomKey& key, std::int64_t first, std::int64_t count, const float* x,
                       float* y);
Round rounder(Isa isa, const Grid& grid);

/// The largest magnitude; NaN where there is one.
using Largest = float (*)(const float* x, std::int64_t count);
Largest largest_finder(Isa isa);

/// Adds to what other threads add to.
inline void add_atomically(std::int64_t& sum, std::int64_t x) {
  if (x != 0) __atomic_fetch_add(&sum, x, __ATOMIC_RELAXED);
}
inline void raise_atomically(float& largest, float x) {
  float seen;
  __atomic_load(&largest, &seen, __ATOMIC_RELAXED);
  while (seen < x && !__atomic_compare_exchange(&largest, &seen, &x, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}
void add_atomically(Noticed& to, const Noticed& more);

/// What this thread has counted in one tensor and not added to its others' counts yet: an atomic addition waits for all
/// that has been stored before. A thread settles when a task ends that it has taken from another, or an `Output` of its
/// own; else its counts are lost.
class ThreadsCounts {
 public:
  /// Where to add.
  static Noticed& of(Noticed& tensor) {
    if (tensor_ != &tensor) settle();
    tensor_ = &tensor;
    return counts_;
  }
  static void settle() {
    if (tensor_) add_atomically(*std::exchange(tensor_, nullptr), std::exchange(counts_, {}));
  }
  static bool has_zeros(Noticed& tensor) {
    return of(tensor).zeros > 0 || __atomic_load_n(&tensor.zeros, __ATOMIC_RELAXED) > 0;
  }
  static bool has_flushed(Noticed& tensor) {
    return of(tensor).flushed > 0 || __atomic_load_n(&tensor.flushed, __ATOMIC_RELAXED) > 0;
  }

 private:
  static inline constinit thread_local Noticed* tensor_ = nullptr;
  static inline constinit thread_local Noticed counts_ = {};
};

struct Access;

/// What the writing of one tensor takes besides its memory.
struct Writing {
  float scale = 1;             ///< of a `Scaling::range`
  Noticed* noticed = nullptr;  ///< where to count, if anywhere
  RandomKey key = {};
};

/// How one tensor is read and written, settled when a kernel is made.
struct Access {
  Access() = default;
  Access(Isa isa, const TensorSpec& tensor);
  Access(Isa isa, const ValueSpec& value);

  bool f32 = true;                    ///< plain f32: nothing to convert
  bool plain = true;                  ///< `decode` and `encode` are all there is to it but counting
  std::int64_t size = sizeof(float);  ///< bytes of a code by itself
  Decode decode = nullptr;
  Encode encode = nullptr;

  // For storages that are not plain.
  void (*read)(const Access& access, const std::byte* data, float scale, std::int64_t first, std::int64_t count,
               float* to) = nullptr;
  void (*write)(const Access& access, std::byte* data, const Writing& writing, std::int64_t first, std::int64_t count,
                const float* from) = nullptr;
  Round round = nullptr;  ///< none where `encode` rounds as the storage does
  Storage storage = {};
  std::int64_t count = 0;  ///< numbers of the tensor

  // For storages that are noticed, plain ones too.
  Grid grid = {};
  float end = 0;      ///< the largest magnitude
  float flushes = 0;  ///< the largest magnitude that becomes zero; negative where it is not that which decides
  /// Counts numbers of a plain storage, and encodes them where `codes` is given; says whether all are up to
  /// `finite_limit`.
  bool (*notice)(const Access& access, const float* x, std::int64_t count, Noticed& to, std::byte* codes) = nullptr;

  // Activations alone: whether numbers that are stored will be read as finite ones.
  float finite_limit = std::numeric_limits<float>::infinity();  ///< the largest magnitude that stays so
  bool hides = false;                                           ///< they will be, whatever they were
  Largest largest_of = nullptr;
  EncodeFinding encode_finding = nullptr;  ///< `encode` and `largest_of` in one pass, where that is a loop of its own
};

/// A tensor in memory as a kernel reads it.
class Input {
 public:
  Input(const Access& access, const Memory& memory)
      : access_(&access),
        data_(static_cast<const std::byte*>(memory.data)),
        scale_(memory.read_scale(access.storage)) {}

  /// Numbers [first, first + count): where they are if they are f32, else read into `buffer`.
  const float* operator()(std::int64_t first, std::int64_t count, float* buffer) const {
    if (access_->f32) return reinterpret_cast<const float*>(data_) + first;
    copy(first, count, buffer);
    return buffer;
  }
  /// The same, into `to` whatever they are.
  void copy(std::int64_t first, std::int64_t count, float* to) const {
    if (access_->plain) return access_->decode(data_ + first * access_->size, to, count);
    access_->read(*access_, data_, scale_, first, count, to);
  }
  /// Asks for numbers [first, first + count), which will be read soon; they need not all be in the tensor.
  void prefetch(std::int64_t first, std::int64_t count) const {
    if (!access_->plain) return;
    for (std::int64_t i = 0; i < count * access_->size; i += 64) __builtin_prefetch(data_ + first * access_->size + i);
  }
  /// The codes, where each has 16 bits.
  const std::uint16_t* codes() const { return reinterpret_cast<const std::uint16_t*>(data_); }

 private:
  const Access* access_;
  const std::byte* data_;
  float scale_;
};

/// A tensor in memory as a kernel writes it, each number once.
class Output {
 public:
  Output(const Access& access, const Arguments& arguments, std::size_t i);
  Output(const Output&) = default;
  ~Output() { ThreadsCounts::settle(); }

  /// Where to compute the numbers from `first` on: in the tensor itself if it is f32, else in `buffer`.
  float* place(std::int64_t first, float* buffer) const {
    return access_->f32 ? reinterpret_cast<float*>(data_) + first : buffer;
  }
  /// Stores numbers [first, first + count); nothing is left to do where `from` is their place.
  void operator()(std::int64_t first, std::int64_t count, const float* from) const {
    std::byte* const place = data_ + first * access_->size;
    std::byte* const codes = access_->plain && from != static_cast<const void*>(place) ? place : nullptr;
    const bool encoded = look(first, count, from, codes);
    if (!access_->plain) return access_->write(*access_, data_, writing_, first, count, from);
    if (codes && !encoded) access_->encode(from, codes, count);
  }
  /// Stores `runs` of `length` numbers that lie together, each run `step` numbers behind the one before.
  void operator()(std::int64_t first, std::int64_t step, std::int64_t runs, std::int64_t length,
                  const float* from) const {
    if (step == length) return (*this)(first, runs * length, from);
    if (access_->plain) look(first, runs * length, from, nullptr);
    for (std::int64_t i = 0; i < runs; ++i, first += step, from += length) {
      if (!access_->plain)
        (*this)(first, length, from);
      else
        access_->encode(from, data_ + first * access_->size, length);
    }
  }
  /// The scale of a `Scaling::tensor`, before its numbers are stored: `largest` is the largest magnitude among them,
  /// NaN where there is one.
  void settle_scale(float largest) const;
  /// What has been stored, as it will be read.
  void read_back(std::int64_t first, std::int64_t count, float* to) const {
    if (access_->plain) return access_->decode(data_ + first * access_->size, to, count);
    access_->read(*access_, data_, writing_.scale, first, count, to);
  }

 private:
  /// Notices numbers from `first` on; says whether it has encoded them too, to `codes` unless that is null.
  bool look(std::int64_t first, std::int64_t count, const float* from, std::byte* codes) const {
    if (writing_.noticed && first == 0 && count > 0) add_atomically(writing_.noticed->count, access_->count);
    if (access_->plain && writing_.noticed) {
      if (!access_->notice(*access_, from, count, *writing_.noticed, codes) && access_->largest_of) note_bad();
      return codes != nullptr;
    }
    if (!access_->largest_of) return false;
    const bool encodes = codes && access_->encode_finding;
    const float largest = encodes ? access_->encode_finding(from, codes, count) : access_->largest_of(from, count);
    if (!(largest <= access_->finite_limit)) note_bad();
    return encodes;
  }
  void note_bad() const;

  const Access* access_;
  std::byte* data_;
  StepState* state_;
  std::int32_t node_;
  Writing writing_;
};

}  // namespace halftone::cpu
