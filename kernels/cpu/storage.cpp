#include "kernels/cpu/storage.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/storage.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/codes-inl.hpp"
#include "kernels/cpu/load-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {
namespace {

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
constexpr hn::CappedTag<std::uint64_t, 8> pairs;
constexpr std::int64_t pair_lanes = hn::MaxLanes(pairs);

/// words [4 * together * pair_lanes] = the random bits of blocks from `block` on. Each 64-bit lane holds a number of
/// one block in its lower half; what is in the upper one does not matter. `together` chains of products, each of which
/// waits for the one before, are in the making at a time.
template <int together>
void draw_blocks(const RandomKey& key, std::uint64_t block, std::uint32_t* words) {
  constexpr hn::Repartition<std::uint32_t, decltype(pairs)> u32;
  const auto set = [](std::uint64_t x) HWY_ATTR { return hn::Set(pairs, x); };
  const auto product = [=](auto a, std::uint32_t b)
                           HWY_ATTR { return hn::MulEven(hn::BitCast(u32, a), hn::Set(u32, b)); };
  const auto high = [=](auto a) HWY_ATTR { return hn::BitCast(pairs, hn::DupOdd(hn::BitCast(u32, a))); };
  const auto both = [=](auto even, auto odd) HWY_ATTR {
    return hn::BitCast(pairs, hn::OddEven(hn::BitCast(u32, hn::ShiftLeft<32>(odd)), hn::BitCast(u32, even)));
  };
  hn::Vec<decltype(pairs)> c0[together], c1[together], c2[together], c3[together];
  for (int j = 0; j < together; ++j) {
    c0[j] = hn::Iota(pairs, block + static_cast<std::uint64_t>(j * pair_lanes));
    c1[j] = set(key.stream);
    c2[j] = set(key.step);
    c3[j] = set(key.step >> 32);
  }
  auto k0 = static_cast<std::uint32_t>(key.seed), k1 = static_cast<std::uint32_t>(key.seed >> 32);
  for (int round = 0; round < Philox::rounds; ++round, k0 += Philox::key0, k1 += Philox::key1)
    for (int j = 0; j < together; ++j) {
      const auto a = product(c0[j], Philox::factor0), b = product(c2[j], Philox::factor1);
      c0[j] = hn::Xor3(high(b), c1[j], set(k0));
      c2[j] = hn::Xor3(high(a), c3[j], set(k1));
      c1[j] = b;
      c3[j] = a;
    }
  for (int j = 0; j < together; ++j, words += 4 * pair_lanes)
    hn::StoreInterleaved2(both(c0[j], c1[j]), both(c2[j], c3[j]), pairs, reinterpret_cast<std::uint64_t*>(words));
}
#endif

/// words [4 * blocks] = the random bits of blocks [block, block + blocks), and some more behind them.
void draw_blocks(const RandomKey& key, std::uint64_t block, std::int64_t blocks, std::uint32_t* words) {
  std::int64_t i = 0;
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  const auto at = [&] { return block + static_cast<std::uint64_t>(i); };
  for (; i + 2 * pair_lanes < blocks; i += 4 * pair_lanes) draw_blocks<4>(key, at(), words + 4 * i);
  if (i < blocks) draw_blocks<2>(key, at(), words + 4 * i);
#else
  for (; i < blocks; ++i)
    std::ranges::copy(block_bits(key.seed, key.step, key.stream, block + static_cast<std::uint64_t>(i)), words + 4 * i);
#endif
}

/// Room for the random bits of a chunk that begins within a block, and for those drawn together with its last ones.
using Words = std::uint32_t[chunk + 128];

/// The random bits of elements [first, first + count), in `words`.
const std::uint32_t* drawn(const RandomKey& key, std::int64_t first, std::int64_t count, Words& words) {
  draw_blocks(key, static_cast<std::uint64_t>(first / 4), (first + count + 3) / 4 - first / 4, words);
  return words + first % 4;
}

void draw(const RandomKey& key, std::int64_t first, std::int64_t count, std::uint32_t* bits) {
  alignas(64) Words words;
  std::copy_n(drawn(key, first, count, words), count, bits);
}

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
/// As a grid of fixed point that saturates.
template <Rounding rounding>
void round_fixed(const Grid& grid, const std::uint32_t* bits, std::int64_t count, const float* x, float* y) {
  const auto inverse = hn::Set(wide, 1.0f / grid.spacing), spacing = hn::Set(wide, grid.spacing);
  const auto lowest = hn::Set(wide, grid.lowest), largest = hn::Set(wide, grid.largest);
  const auto rounded = [=](Floats number, std::int64_t i) HWY_ATTR {
    const auto scaled = hn::Mul(number, inverse);
    Floats whole;
    if constexpr (rounding == Rounding::nearest) {
      whole = hn::Round(scaled);
    } else {
      const auto random = hn::BitCast(integers, hn::ShiftRight<8>(hn::LoadU(words, bits + i)));
      const auto down = hn::Trunc(scaled), magnitude = hn::Abs(down);
      const auto up =
          hn::Lt(hn::Mul(hn::ConvertTo(wide, random), hn::Set(wide, 0x1p-24f)), hn::Sub(hn::Abs(scaled), magnitude));
      whole = hn::CopySign(hn::Add(magnitude, hn::IfThenElseZero(up, hn::Set(wide, 1.0f))), scaled);
    }
    const auto inside = hn::Min(hn::Max(hn::Mul(whole, spacing), lowest), largest);
    return hn::IfThenElse(hn::Eq(number, number), inside, number);
  };
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(rounded(hn::LoadU(wide, x + i), i), wide, y + i);
  if (i == count) return;
  const auto rest = hn::FirstN(wide, static_cast<std::size_t>(count - i));
  hn::BlendedStore(rounded(hn::MaskedLoad(rest, wide, x + i), i), rest, wide, y + i);
}
#endif

template <Grid::Kind kind, Rounding rounding>
void round(const Grid& grid, const RandomKey& key, std::int64_t first, std::int64_t count, const float* x, float* y) {
  constexpr bool random = rounding == Rounding::stochastic;
  alignas(64) Words words;
  const std::uint32_t* const bits = random ? drawn(key, first, count, words) : nullptr;
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  if constexpr (kind == Grid::Kind::fixed && rounding != Rounding::toward_zero)
    if (grid.saturate) return round_fixed<rounding>(grid, bits, count, x, y);
#endif
  Grid known = grid;  // to the compiler too, so that the loop vectorises
  known.kind = kind;
  known.rounding = rounding;
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) y[i] = known(x[i], random ? to_uniform(bits[i]) : 0.0f);
}

template <Grid::Kind kind>
Round rounder(Rounding rounding) {
  return rounding == Rounding::nearest      ? round<kind, Rounding::nearest>
         : rounding == Rounding::stochastic ? round<kind, Rounding::stochastic>
                                            : round<kind, Rounding::toward_zero>;
}

Round rounder(const Grid& grid) {
  using Kind = Grid::Kind;
  return grid.kind == Kind::floating ? rounder<Kind::floating>(grid.rounding)
         : grid.kind == Kind::fixed  ? rounder<Kind::fixed>(grid.rounding)
                                     : rounder<Kind::binary>(grid.rounding);
}

void multiply(const float* x, float factor, std::int64_t count, float* y) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) y[i] = x[i] * factor;
}

/// The largest magnitude; NaN where there is one: as integers NaN's bits lie behind those of all numbers.
float largest_of(const float* x, std::int64_t count) {
  constexpr hn::ScalableTag<float> f32;
  constexpr hn::RebindToSigned<decltype(f32)> i32;
  const auto step = static_cast<std::int64_t>(hn::Lanes(f32)), whole = count - count % step;
  const auto larger = [=](auto largest, auto some)
                          HWY_ATTR { return hn::Max(largest, hn::BitCast(i32, hn::Abs(some))); };
  auto largest = hn::Zero(i32);
  for (std::int64_t i = 0; i < whole; i += step) largest = larger(largest, hn::LoadU(f32, x + i));
  if (whole < count) largest = larger(largest, load_first(f32, x + whole, count - whole));
  return bit_cast<float>(hn::GetLane(hn::MaxOfLanes(i32, largest)));
}

/// How many magnitudes are from `first` to before `end`.
HWY_NOINLINE std::int64_t count_between(float first, float end, const float* x, std::int64_t count) {
  const auto least = bit_cast<std::uint32_t>(first), span = bit_cast<std::uint32_t>(end) - least;
  std::int32_t between = 0;
#pragma omp simd reduction(+ : between)
  for (std::int64_t i = 0; i < count; ++i) between += (bit_cast<std::uint32_t>(x[i]) & 0x7fffffffu) - least < span;
  return between;
}

/// What `notice` does with magnitudes as large as hardly any.
HWY_NOINLINE void notice_large(float end, const float* x, std::int64_t count, Noticed& to) {
  const auto last = bit_cast<std::int32_t>(end), half = bit_cast<std::int32_t>(end / 2);
  std::int32_t saturated = 0, upper_half = 0, largest = 0;
#pragma omp simd reduction(+ : saturated, upper_half) reduction(max : largest)
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int32_t bits = bit_cast<std::int32_t>(x[i]) & 0x7fffffff, number = bits > 0x7f800000 ? 0 : bits;
    saturated += number >= last;
    upper_half += number >= half;
    largest = std::max(largest, number);
  }
  to.saturated += saturated;
  to.upper_half += upper_half;
  to.largest = std::max(to.largest, bit_cast<float>(largest));
}

// What `notice` does with numbers in passing, a vector at a time: `pass(i, x)` returns those to look at, which are at
// `seen` afterwards. Magnitudes over 0 and up to `inexact` have not been done right.
struct Nothing {
  static constexpr float inexact = 0;
  const float* seen;
  template <class V>
  HWY_INLINE V pass(std::size_t, V x) const {
    return x;
  }
};

struct Scaled {
  static constexpr float inexact = 0;
  float* seen;
  float factor;
  template <class V>
  HWY_INLINE V pass(std::size_t i, V x) const {
    constexpr hn::DFromV<V> d;
    const V y = hn::Mul(x, hn::Set(d, factor));
    hn::StoreU(y, d, seen + i);
    return y;
  }
};

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
template <class To>
struct Encoded {
  static constexpr float inexact = To::inexact;
  const float* seen;
  std::uint16_t* codes;
  HWY_INLINE Floats pass(std::size_t i, Floats x) const {
    hn::StoreU(To::codes(x), halves, codes + i);
    return x;
  }
  void again(const Access& access, std::int64_t count) const { access.encode(seen, codes, count); }
};
#endif

constexpr hn::ScalableTag<float> a_vector;
constexpr std::int64_t least_in_passing = hn::MaxLanes(a_vector);

/// What `notice` looks for: whether there are zeros, or numbers that become zero; how many zeros; both.
enum class Look { least, zeros, flushed };

/// As the scalar `notice` but for the count of numbers, of which there are `least_in_passing` or more unless `Nothing`
/// else is done with them. Says whether all are up to `finite_limit`. Magnitudes are compared as integers, among which
/// NaN is the largest. Zeros, and numbers that become zero, are counted where the tensor has had some, or where a first
/// look at the least magnitude asks for it.
template <class InPassing>
bool notice(const Access& access, const float* x, std::int64_t count, Noticed& to, InPassing in_passing) {
  constexpr auto f32 = a_vector;
  constexpr hn::RebindToSigned<decltype(f32)> i32;
  constexpr std::integral_constant<Look, Look::least> least_of;
  constexpr std::integral_constant<Look, Look::zeros> zeros_of;
  constexpr std::integral_constant<Look, Look::flushed> flushed_of;
  const auto n = static_cast<std::size_t>(count), step = hn::Lanes(f32), rest = n % step;
  const auto zero = hn::Zero(i32), most = hn::Set(i32, std::numeric_limits<std::int32_t>::max());
  const float flushes = std::max(access.flushes, 0.0f);
  const auto exceed = [=](auto magnitudes, float bound)
                          HWY_ATTR { return hn::Gt(magnitudes, hn::Set(i32, bit_cast<std::int32_t>(bound))); };
  Noticed& counts = ThreadsCounts::of(to);
  auto largest = zero, least = most, nonzeros = zero, kept = zero;
  const auto one_more = [=](auto counted, auto where)
                            HWY_ATTR { return hn::IfThenElse(where, hn::Add(counted, hn::Set(i32, 1)), counted); };
  const auto look = [&](auto some, auto at) HWY_ATTR {
    const auto bits = hn::BitCast(i32, hn::Abs(some));
    const auto nonzero = hn::Ne(bits, zero);
    largest = hn::Max(largest, bits);
    if constexpr (at != Look::least) nonzeros = one_more(nonzeros, nonzero);
    if constexpr (at == Look::flushed) kept = one_more(kept, exceed(bits, flushes));
    if constexpr (at == Look::zeros) least = hn::IfThenElse(nonzero, hn::Min(least, bits), least);
    if constexpr (at == Look::least) least = hn::Min(least, bits);
  };
  const auto look_at_whole = [&](auto at) HWY_ATTR {
#pragma GCC unroll 4
    for (std::size_t i = 0; i < n - rest; i += step) look(in_passing.pass(i, hn::LoadU(f32, x + i)), at);
    if (rest > 0 && n > step) in_passing.pass(n - step, hn::LoadU(f32, x + n - step));
  };
  const auto sum_of = [=](auto counted) HWY_ATTR { return std::int64_t{hn::GetLane(hn::SumOfLanes(i32, counted))}; };
  const auto look_at_rest = [&](auto at) HWY_ATTR {
    if (rest > 0) look(load_first(f32, in_passing.seen + n - rest, static_cast<std::int64_t>(rest)), at);
    counts.zeros += count - sum_of(nonzeros);
    if constexpr (at == Look::flushed) counts.flushed += sum_of(nonzeros) - sum_of(kept);
  };
  if (InPassing::inexact == 0 && flushes > 0 && ThreadsCounts::has_flushed(to)) {
    look_at_whole(flushed_of);
    look_at_rest(flushed_of);
  } else {
    bool counting = n < step || ThreadsCounts::has_zeros(to);
    if (counting) {
      look_at_whole(zeros_of);
    } else {
      look_at_whole(least_of);
      if (rest > 0) look(hn::LoadU(f32, in_passing.seen + n - step), least_of);
      counting = !hn::AllTrue(i32, exceed(least, std::max(flushes, InPassing::inexact)));
      least = most;
      if (counting) look_at_whole(zeros_of);
    }
    if (counting) {
      look_at_rest(zeros_of);
      if constexpr (InPassing::inexact > 0)
        if (!hn::AllTrue(i32, exceed(least, InPassing::inexact))) in_passing.again(access, count);
      if (flushes > 0 && !hn::AllTrue(i32, exceed(least, flushes)))
        counts.flushed += count_between(0x1p-149f, std::nextafter(flushes, 1.0f), in_passing.seen, count);
    }
  }
  float of_all;
  __atomic_load(&to.largest, &of_all, __ATOMIC_RELAXED);
  const float end = access.end, below_half = bit_cast<float>(bit_cast<std::int32_t>(end / 2) - 1),
              limit = access.finite_limit;
  if (hn::AllFalse(i32, exceed(largest, std::min({below_half, std::max(of_all, counts.largest), limit})))) return true;
  const auto of_these = bit_cast<float>(hn::GetLane(hn::MaxOfLanes(i32, largest)));
  if (of_these < end) {
    counts.largest = std::max(counts.largest, of_these);
    if (of_these > below_half) counts.upper_half += count_between(end / 2, end, in_passing.seen, count);
  } else {
    notice_large(end, in_passing.seen, count, counts);
  }
  return of_these <= limit;
}

std::int64_t count_flushed(const float* x, const float* rounded, std::int64_t count) {
  std::int32_t flushed = 0;
#pragma omp simd reduction(+ : flushed)
  for (std::int64_t i = 0; i < count; ++i) flushed += (rounded[i] == 0) & (x[i] != 0);
  return flushed;
}

/// How many of `count` numbers from `first` on have one scale.
std::int64_t of_one_scale(const Storage& storage, std::int64_t first, std::int64_t count) {
  return storage.block == 0 ? count : std::min(count, storage.block - first % storage.block);
}

/// Codes of less than a byte, at most `chunk`: eight of them are `bits` bytes, low bits first.
void read_packed(const Access& access, const std::byte* data, std::int64_t first, std::int64_t count, float* to) {
  const auto bits = static_cast<std::size_t>(bits_of(access.storage.code));
  const std::size_t end = access.storage.code_bytes(access.count);
  std::uint8_t codes[chunk + 16];
  std::size_t at = static_cast<std::size_t>(first / 8) * bits;
  for (std::int64_t i = 0; i < first % 8 + count; i += 8, at += bits) {
    std::uint64_t eight = 0;
    std::memcpy(&eight, data + at, std::min(bits, end - at));
    for (std::size_t j = 0; j < 8; ++j)
      codes[i + j] = static_cast<std::uint8_t>(eight >> (j * bits)) & ((1 << bits) - 1);
  }
  access.decode(codes + first % 8, to, count);
}

void write_packed(const Access& access, std::byte* data, std::int64_t first, std::int64_t count, const float* from) {
  const auto bits = static_cast<std::size_t>(bits_of(access.storage.code));
  std::uint8_t codes[chunk + 8];
  access.encode(from, codes, count);
  std::fill_n(codes + count, 8, 0);
  std::byte* to = data + static_cast<std::size_t>(first / 8) * bits;
  for (std::int64_t i = 0; i < count; i += 8, to += bits) {
    std::uint64_t eight = 0;
    for (std::size_t j = 0; j < 8; ++j) eight |= std::uint64_t{codes[i + j]} << (j * bits);
    std::memcpy(to, &eight, access.storage.code_bytes(std::min<std::int64_t>(8, count - i)));
  }
}

void read(const Access& access, const std::byte* data, float scale, std::int64_t first, std::int64_t count, float* to) {
  const Storage& storage = access.storage;
  if (bits_of(storage.code) % 8 == 0) {
    access.decode(data + first * access.size, to, count);
  } else {
    for (std::int64_t done = 0; done < count; done += chunk)
      read_packed(access, data, first + done, std::min(chunk, count - done), to + done);
  }
  if (storage.scaling == Scaling::none) return;
  for (std::int64_t done = 0, run = 0; done < count; done += run) {
    run = of_one_scale(storage, first + done, count - done);
    multiply(to + done, scale_at(storage, data, access.count, first + done, scale), run, to + done);
  }
}

/// As `write_numbers`.
void write(const Access& access, std::byte* data, const Writing& writing, std::int64_t first, std::int64_t count,
           const float* from) {
  const Storage& storage = access.storage;
  alignas(64) float units[chunk], scaled[chunk], rounded[chunk];
  for (std::int64_t done = 0, part = 0; done < count; done += part) {
    part = std::min(chunk, count - done);
    const float inverse = 1 / tensor_scale(storage, data, access.count, writing.scale);
    Noticed* const noticed = writing.noticed;
    const bool noticed_in_passing = noticed && storage.block == 0 && part >= least_in_passing;
    if (noticed_in_passing)
      notice(access, from + done, part, *noticed, Scaled{scaled, inverse});
    else
      multiply(from + done, inverse, part, storage.block > 0 ? units : scaled);
    for (std::int64_t i = 0, run = 0; storage.block > 0 && i < part; i += run) {
      const std::int64_t place = first + done + i;
      run = of_one_scale(storage, place, part - i);
      if (place % storage.block == 0) {
        const float largest = largest_of(from + done + i, of_one_scale(storage, place, count - done - i)) * inverse;
        data[storage.code_bytes(access.count) + static_cast<std::size_t>(place / storage.block)] =
            std::byte{block_scale_code(storage, largest)};
      }
      multiply(units + i, 1 / block_scale(storage, data, access.count, place), run, scaled + i);
    }
    const float* codes = scaled;
    if (access.round) {
      access.round(access.grid, writing.key, first + done, part, scaled, rounded);
      codes = rounded;
    }
    if (noticed) {
      const float* seen = storage.nested() ? units : scaled;
      if (!noticed_in_passing) notice(access, seen, part, *noticed, Nothing{seen});
      if (access.flushes < 0) ThreadsCounts::of(*noticed).flushed += count_flushed(seen, rounded, part);
    }
    if (bits_of(storage.code) % 8 == 0) {
      access.encode(codes, data + (first + done) * access.size, part);
    } else {
      write_packed(access, data, first + done, part, codes);
    }
  }
}

bool notice_plain(const Access& access, const float* x, std::int64_t count, Noticed& to, std::byte* codes) {
  if (codes) access.encode(x, codes, count);
  return notice(access, x, count, to, Nothing{x});
}

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
template <class To>
bool notice_encoding(const Access& access, const float* x, std::int64_t count, Noticed& to, std::byte* codes) {
  if (!codes || count < least_in_passing) return notice_plain(access, x, count, to, codes);
  return notice(access, x, count, to, Encoded<To>{x, reinterpret_cast<std::uint16_t*>(codes)});
}
#endif

/// Of a plain storage.
auto noticer([[maybe_unused]] Isa isa, [[maybe_unused]] DType code) {
#if HWY_TARGET == HWY_AVX3
  if (code == DType::bf16 && isa >= Isa::avx512_bf16) return notice_encoding<ToBF16InOne>;
#endif
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  if (code == DType::bf16) return notice_encoding<ToBF16>;
  if (code == DType::f16) return notice_encoding<ToF16>;
#endif
  return notice_plain;
}

}  // namespace
}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {

void add_atomically(Noticed& to, const Noticed& more) {
  add_atomically(to.count, more.count);
  add_atomically(to.zeros, more.zeros);
  add_atomically(to.flushed, more.flushed);
  add_atomically(to.saturated, more.saturated);
  add_atomically(to.upper_half, more.upper_half);
  raise_atomically(to.largest, more.largest);
}

Draw drawer(Isa isa) { return HALFTONE_PER_ISA(isa, draw); }
Round rounder(Isa isa, const Grid& grid) { return HALFTONE_PER_ISA(isa, rounder(grid)); }

Largest largest_finder(Isa isa) { return HALFTONE_PER_ISA(isa, largest_of); }

namespace {

bool is_plain(Storage storage) {
  const bool noticed = std::exchange(storage.noticed, false);
  return storage.plain() && (!noticed || epsilon_of(storage.code) < 1);
}

/// The largest magnitude that becomes zero, in units of the scale; negative where it is not the magnitude that decides.
float flushes_up_to(const Storage& storage) {
  if (storage.rounding != Rounding::nearest || storage.code == DType::u8 || storage.nested()) return -1;
  if (storage.code == DType::sign) return 0;
  return visit_format(storage.code, [](auto format) -> float { return decltype(format)::smallest / 2; });
}

/// Whether `encode` rounds as the storage does, and `flushes_up_to` says all.
bool rounds_by_encoding(const Storage& storage) {
  return flushes_up_to(storage) >= 0 && storage.overflow == overflow_of(storage.code) && storage.code != DType::i32 &&
         (storage.width == 0 || storage.width == bits_of(storage.code));
}

}  // namespace

Access::Access(Isa isa, const TensorSpec& tensor)
    : f32(is_plain(tensor.storage) && tensor.storage.code == DType::f32),
      plain(is_plain(tensor.storage)),
      size(static_cast<std::int64_t>(size_of(tensor.storage.code))),
      decode(decoder(isa, tensor.storage.code)),
      encode(encoder(isa, tensor.storage.code, tensor.storage.overflow)),
      storage(tensor.storage),
      count(tensor.shape.elements()) {
  if (storage.plain()) return;
  grid = storage.grid();
  end = storage.largest();
  flushes = flushes_up_to(storage);
  notice = HALFTONE_PER_ISA(isa, noticer(isa, storage.code));
  if (plain) return;
  read = HALFTONE_PER_ISA(isa, read);
  write = HALFTONE_PER_ISA(isa, write);
  if (!rounds_by_encoding(storage)) round = rounder(isa, grid);
}

Access::Access(Isa isa, const ValueSpec& value) : Access(isa, value.tensor()) {
  if (value.role != Role::activation) return;
  largest_of = largest_finder(isa);
  if (plain && storage.overflow == overflow_of(storage.code)) encode_finding = finding_encoder(isa, storage.code);
  finite_limit = storage.finite_limit();
  hides = !storage.keeps_nonfinite();
}

void Output::note_bad() const {
  if (access_->hides) __atomic_store_n(&state_->hidden, 1, __ATOMIC_RELAXED);
  std::int32_t* const bad_node = &state_->bad_node;
  std::int32_t seen = __atomic_load_n(bad_node, __ATOMIC_RELAXED);
  while (node_ < seen &&
         !__atomic_compare_exchange_n(bad_node, &seen, node_, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

void Output::settle_scale(float largest) const { put_tensor_scale(access_->storage, data_, access_->count, largest); }

Output::Output(const Access& access, const Arguments& arguments, std::size_t i)
    : access_(&access),
      data_(static_cast<std::byte*>(arguments.outputs[i].data)),
      state_(arguments.state),
      node_(arguments.outputs[i].node) {
  if (access.storage.plain()) return;
  const Memory& memory = arguments.outputs[i];
  writing_.scale = memory.write_scale(access.storage);
  if (memory.range && access.storage.noticed) writing_.noticed = &memory.range->noticed;
  if (access.storage.rounding == Rounding::stochastic) writing_.key = arguments.key(memory);
}

}  // namespace halftone::cpu
#endif
