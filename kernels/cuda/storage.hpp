#pragma once
#include <algorithm>
#include <span>

#include "halftone/numeric/storage.hpp"
#include "kernels/cuda/known.hpp"
#include "kernels/cuda/launch.hpp"

// How kernels read and write stored numbers. f32, f16 and bf16 in their plain form are template arguments; `Any` asks
// at run time which of these, or of plain u8 and i32 where it is read, it is. Values in other storages are f32 to a
// kernel, by casts around it (`Kernel::takes`), which one kernel does that knows all (cast.cu).
namespace halftone::cuda {

struct Any {};

/// Calls f(F16{}) and so on; one branch, the same for all threads.
template <class F>
HALFTONE_DEVICE void visit_compiled(DType code, const F& f) {
  if (code == DType::f32) {
    f(F32{});
  } else if (code == DType::f16) {
    f(F16{});
  } else {
    f(BF16{});
  }
}
template <class F>
HALFTONE_DEVICE void visit_known(DType code, const F& f) {
  if (code == DType::u8) {
    f(U8{});
  } else if (code == DType::i32) {
    f(I32{});
  } else {
    visit_compiled(code, f);
  }
}

/// Numbers that a thread reads or writes at a time where that pays.
inline constexpr int pack = 8;

/// Numbers of n that move at once, as up to 16 bytes.
template <class Format, int n>
inline constexpr int at_once = std::min<int>(n, 16 / sizeof(typename Format::Code));

template <class Format>
struct Source {
  const typename Format::Code* data;

  Source(const ValueSpec&, const Memory& memory) : data(static_cast<const typename Format::Code*>(memory.data)) {}
  HALFTONE_DEVICE explicit Source(const std::byte* the_data)
      : data(reinterpret_cast<const typename Format::Code*>(the_data)) {}

  HALFTONE_DEVICE float operator[](std::int64_t i) const { return decode<Format>(data[i]); }
  /// Numbers [first, first + n), first a multiple of n, a power of two.
  template <int n>
  HALFTONE_DEVICE void read(std::int64_t first, float (&x)[n]) const {
    constexpr int some = at_once<Format, n>;
    using Codes = Pack<typename Format::Code, some>;
    HALFTONE_UNROLL
    for (int i = 0; i < n; i += some) {
      const Codes codes = *reinterpret_cast<const Codes*>(data + first + i);
      HALFTONE_UNROLL
      for (int j = 0; j < some; ++j) x[i + j] = decode<Format>(codes.at[j]);
    }
  }
};

template <>
struct Source<Any> {
  const std::byte* data = nullptr;
  DType code = DType::f32;

  Source() = default;
  Source(const ValueSpec& value, const Memory& memory)
      : data(static_cast<const std::byte*>(memory.data)), code(value.storage.code) {}

  template <class Format>
  HALFTONE_DEVICE Source<Format> as() const {
    return Source<Format>(data);
  }
  HALFTONE_DEVICE float operator[](std::int64_t i) const {
    float x = 0;
    visit_known(code, [&](auto format) { x = as<decltype(format)>()[i]; });
    return x;
  }
  template <int n>
  HALFTONE_DEVICE void read(std::int64_t first, float (&x)[n]) const {
    visit_known(code, [&](auto format) { as<decltype(format)>().read(first, x); });
  }
};

/// What writing an activation must watch: whether it stays finite.
struct Watch {
  StepState* state = nullptr;
  float limit = std::numeric_limits<float>::infinity();  ///< the largest magnitude that stays finite
  std::int32_t node = StepState::none;
  bool hides = false;  ///< numbers that are not finite are read as finite ones

  Watch() = default;
  Watch(const ValueSpec& value, const Memory& memory, StepState* the_state) {
    if (value.role != Role::activation) return;
    state = the_state;
    limit = value.storage.finite_limit();
    node = memory.node;
    hides = !value.storage.keeps_nonfinite();
  }

  HALFTONE_DEVICE bool bad(float x) const { return !(math::abs(x) <= limit); }
  HALFTONE_DEVICE void note() const {
    if (!state) return;
    if (hides) store_same(&state->hidden, 1);
    atomic_min(&state->bad_node, node);
  }
};

template <class Format>
struct Sink {
  typename Format::Code* data;
  Watch watch;

  Sink(const ValueSpec& value, const Memory& memory, StepState* state)
      : data(static_cast<typename Format::Code*>(memory.data)), watch(value, memory, state) {}
  HALFTONE_DEVICE Sink(std::byte* the_data, const Watch& the_watch)
      : data(reinterpret_cast<typename Format::Code*>(the_data)), watch(the_watch) {}

  HALFTONE_DEVICE void write(std::int64_t i, float x) const {
    if (watch.bad(x)) watch.note();
    data[i] = encode<Format>(x);
  }
  template <int n>
  HALFTONE_DEVICE void write(std::int64_t first, const float (&x)[n]) const {
    constexpr int some = at_once<Format, n>;
    using Codes = Pack<typename Format::Code, some>;
    bool bad = false;
    HALFTONE_UNROLL
    for (int i = 0; i < n; ++i) bad |= watch.bad(x[i]);
    if (bad) watch.note();
    HALFTONE_UNROLL
    for (int i = 0; i < n; i += some) {
      Codes codes;
      HALFTONE_UNROLL
      for (int j = 0; j < some; ++j) codes.at[j] = encode<Format>(x[i + j]);
      store(reinterpret_cast<Codes*>(data + first + i), codes);
    }
  }
};

template <>
struct Sink<Any> {
  std::byte* data = nullptr;
  DType code = DType::f32;
  Watch watch;

  Sink() = default;
  Sink(const ValueSpec& value, const Memory& memory, StepState* state)
      : data(static_cast<std::byte*>(memory.data)), code(value.storage.code), watch(value, memory, state) {}

  template <class Format>
  HALFTONE_DEVICE Sink<Format> as() const {
    return Sink<Format>(data, watch);
  }
  HALFTONE_DEVICE void write(std::int64_t i, float x) const {
    visit_compiled(code, [&](auto format) { as<decltype(format)>().write(i, x); });
  }
  template <int n>
  HALFTONE_DEVICE void write(std::int64_t first, const float (&x)[n]) const {
    visit_compiled(code, [&](auto format) { as<decltype(format)>().write(first, x); });
  }
};

/// Calls f(F16{}) and so on where all of `values` are stored plainly in one of the compiled formats, else f(Any{}).
template <class F>
auto with_format(std::initializer_list<const ValueSpec*> values, F&& f) {
  const Storage& first = (*values.begin())->storage;
  const bool same = first.plain() && std::all_of(values.begin(), values.end(),
                                                 [&](const ValueSpec* value) { return value->storage == first; });
  if (same && first.code == DType::f32) return f(F32{});
  if (same && first.code == DType::f16) return f(F16{});
  if (same && first.code == DType::bf16) return f(BF16{});
  return f(Any{});
}

}  // namespace halftone::cuda
