#pragma once
#include "kernels/cuda/operands.hpp"

namespace halftone::cuda {

/// A tensor in whatever storage, as numeric/storage.hpp defines it.
struct Stored {
  std::byte* data = nullptr;
  std::int64_t count = 0;
  RangeState* range = nullptr;
  StepState* state = nullptr;
  std::uint32_t stream = 0;
  Storage storage;
  Watch watch;

  Stored() = default;
  Stored(const ValueSpec& value, const Memory& memory, StepState* the_state)
      : data(static_cast<std::byte*>(memory.data)),
        count(value.shape.elements()),
        range(memory.range),
        state(the_state),
        stream(memory.stream),
        storage(value.storage),
        watch(value, memory, the_state) {}

  /// Number i, read by the scale that holds for readers.
  HALFTONE_DEVICE float operator[](std::int64_t i) const {
    return read_number(storage, data, count, i, range ? range->scale : storage.first_scale());
  }
  /// The scale that writers use.
  HALFTONE_DEVICE float write_scale() const { return range ? range->next : storage.first_scale(); }
  /// Number i as it has been stored in this launch, by this thread.
  HALFTONE_DEVICE float read_back(std::int64_t i) const { return read_number(storage, data, count, i, write_scale()); }

  /// Numbers [first, first + n) as `Storage::granule` allows; one thread writes them all.
  HALFTONE_DEVICE_CALL void write(std::int64_t first, std::int64_t n, const float* x) const {
    bool bad = false;
    for (std::int64_t i = 0; i < n; ++i) bad |= watch.bad(x[i]);
    if (bad) watch.note();
    const bool random = storage.rounding == Rounding::stochastic;
    const RandomKey key = random ? state->key(stream) : RandomKey{};
    Noticed noticed;
    write_numbers(storage, data, count, first, n, x, key, write_scale(), &noticed);
    if (!range || !storage.noticed) return;
    atomic_add(&range->noticed.count, noticed.count);
    atomic_add(&range->noticed.zeros, noticed.zeros);
    atomic_add(&range->noticed.flushed, noticed.flushed);
    atomic_add(&range->noticed.saturated, noticed.saturated);
    atomic_add(&range->noticed.upper_half, noticed.upper_half);
    atomic_max(&range->noticed.largest, noticed.largest);
  }
};

/// How many numbers of such a tensor one thread must write at a time.
inline int run_of(const Storage& storage) { return std::max(static_cast<int>(storage.granule()), pack); }

}  // namespace halftone::cuda
