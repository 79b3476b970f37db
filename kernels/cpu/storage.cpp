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

#include "kernels/cpu/load-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {
namespace {

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
constexpr hn::CappedTag<float, 16> wide;
constexpr hn::RebindToUnsigned<decltype(wide)> words;
constexpr hn::RebindToSigned<decltype(wide)> integers;
constexpr std::int64_t lanes = hn::MaxLanes(wide);
using Floats = hn::Vec<decltype(wide)>;

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

/// How many magnitudes are not 0 and yet up to `flushes`.
HWY_NOINLINE std::int64_t count_small(float flushes, const float* x, std::int64_t count) {
  const auto last = bit_cast<std::uint32_t>(flushes);
  std::int32_t small = 0;
#pragma omp simd reduction(+ : small)
  for (std::int64_t i = 0; i < count; ++i) small += (bit_cast<std::uint32_t>(x[i]) & 0x7fffffffu) - 1 < last;
  return small;
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
  add_atomically(to.saturated, saturated);
  add_atomically(to.upper_half, upper_half);
  raise_atomically(to.largest, bit_cast<float>(largest));
}

/// As the scalar `notice` but for the count of numbers, where the magnitudes that become zero are those up to
/// `flushes`. Says whether all are up to `limit`; the largest that is stored is `end`. Magnitudes are compared as
/// integers, among which NaN is the largest. Zeros are counted where the tensor has had some, or where a first look at
/// the least magnitude asks for it.
bool notice(float end, float flushes, float limit, const float* x, std::int64_t count, Noticed& to) {
  constexpr hn::ScalableTag<float> f32;
  constexpr hn::RebindToSigned<decltype(f32)> i32;
  const auto n = static_cast<std::size_t>(count), step = hn::Lanes(f32), rest = n % step;
  const auto zero = hn::Zero(i32), most = hn::Set(i32, std::numeric_limits<std::int32_t>::max());
  auto largest = zero, least = most, nonzeros = zero;
  const auto look = [&](auto some, auto counting) HWY_ATTR {
    const auto bits = hn::BitCast(i32, hn::Abs(some));
    largest = hn::Max(largest, bits);
    if constexpr (counting) {
      const auto more = hn::Ne(bits, zero);
      nonzeros = hn::IfThenElse(more, hn::Add(nonzeros, hn::Set(i32, 1)), nonzeros);
      least = hn::IfThenElse(more, hn::Min(least, bits), least);
    } else {
      least = hn::Min(least, bits);
    }
  };
  const auto look_at_whole = [&](auto counting) HWY_ATTR {
#pragma GCC unroll 4
    for (std::size_t i = 0; i < n - rest; i += step) look(hn::LoadU(f32, x + i), counting);
  };
  const auto exceed = [=](auto magnitudes, float bound)
                          HWY_ATTR { return hn::Gt(magnitudes, hn::Set(i32, bit_cast<std::int32_t>(bound))); };
  bool counting = n < step || __atomic_load_n(&to.zeros, __ATOMIC_RELAXED) > 0;
  if (!counting) {
    look_at_whole(std::false_type());
    if (rest > 0) look(hn::LoadU(f32, x + n - step), std::false_type());
    counting = !hn::AllTrue(i32, exceed(least, flushes));
    least = most;
  }
  if (counting) {
    look_at_whole(std::true_type());
    if (rest > 0) look(load_first(f32, x + n - rest, static_cast<std::int64_t>(rest)), std::true_type());
    add_atomically(to.zeros, count - hn::GetLane(hn::SumOfLanes(i32, nonzeros)));
    if (flushes > 0 && !hn::AllTrue(i32, exceed(least, flushes)))
      add_atomically(to.flushed, count_small(flushes, x, count));
  }
  float so_far;
  __atomic_load(&to.largest, &so_far, __ATOMIC_RELAXED);
  const float usual = std::min({bit_cast<float>(bit_cast<std::int32_t>(end / 2) - 1), so_far, limit});
  if (hn::AllFalse(i32, exceed(largest, usual))) return true;
  notice_large(end, x, count, to);
  return hn::AllFalse(i32, exceed(largest, limit));
}

std::int64_t count_flushed(const float* x, const float* rounded, std::int64_t count) {
  std::int32_t flushed = 0;
#pragma omp simd reduction(+ : flushed)
  for (std::int64_t i = 0; i < count; ++i) flushed += (math::abs(x[i]) > 0) & (rounded[i] == 0);
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
    float* const of_tensor = storage.block > 0 ? units : scaled;
    multiply(from + done, inverse, part, of_tensor);
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
    if (writing.noticed) {
      const float* seen = storage.nested() ? units : scaled;
      notice(access.end, std::max(access.flushes, 0.0f), access.finite_limit, seen, part, *writing.noticed);
      if (access.flushes < 0) add_atomically(writing.noticed->flushed, count_flushed(seen, rounded, part));
    }
    if (bits_of(storage.code) % 8 == 0) {
      access.encode(codes, data + (first + done) * access.size, part);
    } else {
      write_packed(access, data, first + done, part, codes);
    }
  }
}

/// Of a plain storage.
bool notice_plain(const Access& access, const float* x, std::int64_t count, Noticed& to) {
  return notice(access.end, access.flushes, access.finite_limit, x, count, to);
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
  notice = HALFTONE_PER_ISA(isa, notice_plain);
  if (plain) return;
  read = HALFTONE_PER_ISA(isa, read);
  write = HALFTONE_PER_ISA(isa, write);
  if (!rounds_by_encoding(storage)) round = rounder(isa, grid);
}

Access::Access(Isa isa, const ValueSpec& value) : Access(isa, value.tensor()) {
  if (value.role != Role::activation) return;
  largest_of = largest_finder(isa);
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
