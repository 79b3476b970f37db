#include "kernels/cpu/storage.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/storage.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// Numbers are converted in blocks of constant length, which become a few vector instructions. The last block overlaps
// the one before; a shorter run goes through a buffer.
constexpr std::int64_t block = 16;

/// Numbers from which on a call of memcpy pays, which takes no harm from how addresses lie to one another.
constexpr std::int64_t long_copy = 512;

template <class From, class To, class ConvertBlock>
void convert(const From* HWY_RESTRICT from, To* HWY_RESTRICT to, std::int64_t count, ConvertBlock convert_block) {
  if (count < block) {
    From in[block] = {};
    To out[block];
    std::copy_n(from, count, in);
    convert_block(in, out);
    std::copy_n(out, count, to);
    return;
  }
  for (std::int64_t i = 0; i + block < count; i += block) convert_block(from + i, to + i);
  convert_block(from + count - block, to + count - block);
}

template <class Format>
void decode_block(const typename Format::Code* HWY_RESTRICT from, float* HWY_RESTRICT to) {
  for (std::int64_t i = 0; i < block; ++i) to[i] = Format::decode(from[i]);
}

template <class Format>
void encode_block(const float* HWY_RESTRICT from, typename Format::Code* HWY_RESTRICT to) {
  for (std::int64_t i = 0; i < block; ++i) to[i] = Format::encode(from[i]);
}

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
constexpr hn::CappedTag<float, block> wide;
constexpr hn::Rebind<hwy::float16_t, decltype(wide)> narrow;
constexpr std::int64_t lanes = hn::MaxLanes(wide);

template <>
void encode_block<F16>(const float* HWY_RESTRICT from, std::uint16_t* HWY_RESTRICT to) {
  for (std::int64_t i = 0; i < block; i += lanes) {
    hn::StoreU(hn::DemoteTo(narrow, hn::LoadU(wide, from + i)), narrow, reinterpret_cast<hwy::float16_t*>(to + i));
  }
}

constexpr hn::RebindToUnsigned<decltype(wide)> words;
constexpr hn::RebindToSigned<decltype(wide)> integers;
constexpr hn::Rebind<std::uint16_t, decltype(wide)> halves;

template <>
void decode_block<BF16>(const std::uint16_t* HWY_RESTRICT from, float* HWY_RESTRICT to) {
  for (std::int64_t i = 0; i < block; i += lanes)
    hn::StoreU(hn::BitCast(wide, hn::ShiftLeft<16>(hn::PromoteTo(words, hn::LoadU(halves, from + i)))), wide, to + i);
}

template <>
void encode_block<BF16>(const float* HWY_RESTRICT from, std::uint16_t* HWY_RESTRICT to) {
  for (std::int64_t i = 0; i < block; i += lanes) {
    const auto x = hn::LoadU(wide, from + i);
    const auto bits = hn::BitCast(words, x), kept = hn::ShiftRight<16>(bits);
    const auto nearest =
        hn::ShiftRight<16>(hn::Add(bits, hn::Add(hn::Set(words, 0x7fff), hn::And(kept, hn::Set(words, 1)))));
    const auto code = hn::IfThenElse(hn::RebindMask(words, hn::IsNaN(x)), hn::Or(kept, hn::Set(words, 0x40)), nearest);
    hn::StoreU(hn::DemoteTo(halves, hn::BitCast(integers, code)), halves, to + i);
  }
}
#endif

template <class Format>
void decode(const void* from, float* to, std::int64_t count) {
  if (std::is_same_v<Format, F32> && count >= long_copy) return void(std::memcpy(to, from, count * sizeof(float)));
  convert(static_cast<const typename Format::Code*>(from), to, count,
          [](auto* in, auto* out) { decode_block<Format>(in, out); });
}

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
template <>
void decode<F16>(const void* from, float* to, std::int64_t count) {
  const auto* codes = static_cast<const std::uint16_t*>(from);
  const auto infinity = hn::Set(halves, 0x7c00);
  auto largest = infinity;
  convert(codes, to, count, [&](const std::uint16_t* in, float* out) HWY_ATTR {
    for (std::int64_t i = 0; i < block; i += lanes) {
      const auto some = hn::LoadU(halves, in + i);
      largest = hn::Max(largest, hn::And(some, hn::Set(halves, 0x7fff)));
      hn::StoreU(hn::PromoteTo(wide, hn::BitCast(narrow, some)), wide, out + i);
    }
  });
  if (hn::AllTrue(halves, hn::Eq(largest, infinity))) return;
  for (std::int64_t i = 0; i < count; ++i) to[i] = F16::decode(codes[i]);  // keeps signalling NaNs
}
#endif

template <class Format>
void encode(const float* from, void* to, std::int64_t count) {
  if (std::is_same_v<Format, F32> && count >= long_copy) return void(std::memcpy(to, from, count * sizeof(float)));
  convert(from, static_cast<typename Format::Code*>(to), count,
          [](auto* in, auto* out) { encode_block<Format>(in, out); });
}

/// With infinity where the code alone would saturate.
template <class Format>
void encode_to_infinity(const float* from, void* to, std::int64_t count) {
  auto* codes = static_cast<typename Format::Code*>(to);
  for (std::int64_t i = 0; i < count; ++i) codes[i] = halftone::encode<Format>(from[i], Overflow::infinity);
}

Decode decoder(DType code) {
  return visit_format(code, [](auto format) -> Decode { return decode<decltype(format)>; });
}
Encode encoder(DType code, Overflow overflow) {
  return visit_format(code, [&](auto format) -> Encode {
    return overflow == Overflow::infinity && format.overflow == Overflow::saturate
               ? encode_to_infinity<decltype(format)>
               : encode<decltype(format)>;  // numbers on the grid are beyond no finite code
  });
}

void draw(const RandomKey& key, std::int64_t first, std::int64_t count, std::uint32_t* bits) {
  constexpr std::int64_t most = chunk / 4 + 1;
  alignas(64) std::uint32_t words[4][most], ordered[4 * most];
  const auto block = static_cast<std::uint32_t>(first / 4);
  const auto blocks = static_cast<std::uint32_t>((first + count + 3) / 4 - first / 4);
#pragma omp simd
  for (std::uint32_t i = 0; i < blocks; ++i) {
    const auto four = block_bits(key.seed, key.step, key.stream, block + i);
    for (std::size_t j = 0; j < 4; ++j) words[j][i] = four[j];
  }
  for (std::int64_t i = 0; i < blocks; ++i)
    for (std::int64_t j = 0; j < 4; ++j) ordered[4 * i + j] = words[j][i];
  std::copy_n(ordered + first % 4, count, bits);
}

template <Grid::Kind kind, Rounding rounding>
void round(const Grid& grid, const RandomKey& key, std::int64_t first, std::int64_t count, const float* x, float* y) {
  constexpr bool random = rounding == Rounding::stochastic;
  alignas(64) std::uint32_t bits[chunk];
  if (random) draw(key, first, count, bits);
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

std::int32_t magnitude_bits(float x) { return bit_cast<std::int32_t>(x) & 0x7fffffff; }

/// The largest magnitude; NaN where there is one: as integers NaN's bits lie behind those of all numbers.
float largest_of(const float* x, std::int64_t count) {
  constexpr hn::ScalableTag<float> f32;
  constexpr hn::RebindToSigned<decltype(f32)> i32;
  const auto step = static_cast<std::int64_t>(hn::Lanes(f32)), whole = count - count % step;
  const auto larger = [=](auto largest, auto some)
                          HWY_ATTR { return hn::Max(largest, hn::BitCast(i32, hn::Abs(some))); };
  auto largest = hn::Zero(i32);
  for (std::int64_t i = 0; i < whole; i += step) largest = larger(largest, hn::LoadU(f32, x + i));
  if (whole < count)
    largest = larger(largest, hn::MaskedLoad(hn::FirstN(f32, static_cast<std::size_t>(count - whole)), f32, x + whole));
  return bit_cast<float>(hn::GetLane(hn::MaxOfLanes(i32, largest)));
}

/// As the scalar `notice`.
Noticed notice(const Grid& grid, const float* x, const float* rounded, std::int64_t count) {
  const float last = grid.largest, half = grid.largest / 2;
  std::int32_t zeros = 0, flushed = 0, saturated = 0, upper_half = 0, largest = 0;
#pragma omp simd reduction(+ : zeros, flushed, saturated, upper_half) reduction(max : largest)
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int32_t bits = magnitude_bits(x[i]);
    const float magnitude = bit_cast<float>(bits);
    zeros += bits == 0;
    flushed += (magnitude > 0) & (rounded[i] == 0);
    saturated += magnitude >= last;
    upper_half += magnitude >= half;
    largest = std::max(largest, bits > 0x7f800000 ? 0 : bits);
  }
  return {count, zeros, flushed, saturated, upper_half, bit_cast<float>(largest)};
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
  alignas(64) float scaled[chunk], rounded[chunk];
  Noticed noticed;
  Storage unnoticed = storage;
  unnoticed.noticed = false;
  if (unnoticed.plain() && epsilon_of(storage.code) < 1) {
    for (std::int64_t done = 0, part = 0; done < count; done += part) {
      part = std::min(chunk, count - done);
      std::byte* const to = data + (first + done) * access.size;
      access.encode(from + done, to, part);
      if (!writing.noticed) continue;
      if (storage.code != DType::f32) access.decode(to, rounded, part);
      noticed.add(notice(access.grid, from + done, storage.code == DType::f32 ? from + done : rounded, part));
    }
    if (writing.noticed) add_atomically(*writing.noticed, noticed);
    return;
  }
  for (std::int64_t done = 0, part = 0; done < count; done += part) {
    part = std::min(chunk, count - done);
    for (std::int64_t i = 0, run = 0; i < part; i += run) {
      const std::int64_t place = first + done + i;
      run = of_one_scale(storage, place, part - i);
      if (storage.block > 0 && place % storage.block == 0) {
        const float largest = largest_of(from + done + i, of_one_scale(storage, place, count - done - i));
        data[storage.code_bytes(access.count) + static_cast<std::size_t>(place / storage.block)] =
            std::byte{BlockScale::of(largest, top_exponent(storage.code))};
      }
      multiply(from + done + i, 1 / scale_at(storage, data, access.count, place, writing.scale), run, scaled + i);
    }
    access.round(access.grid, writing.key, first + done, part, scaled, rounded);
    if (writing.noticed) noticed.add(notice(access.grid, scaled, rounded, part));
    if (bits_of(storage.code) % 8 == 0) {
      access.encode(rounded, data + (first + done) * access.size, part);
    } else {
      write_packed(access, data, first + done, part, rounded);
    }
  }
  if (writing.noticed) add_atomically(*writing.noticed, noticed);
}

}  // namespace
}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {

void add_atomically(Noticed& to, const Noticed& more) {
  const auto add = [](std::int64_t& sum, std::int64_t x) { __atomic_fetch_add(&sum, x, __ATOMIC_RELAXED); };
  add(to.count, more.count);
  add(to.zeros, more.zeros);
  add(to.flushed, more.flushed);
  add(to.saturated, more.saturated);
  add(to.upper_half, more.upper_half);
  float largest = more.largest, seen;
  __atomic_load(&to.largest, &seen, __ATOMIC_RELAXED);
  while (seen < largest &&
         !__atomic_compare_exchange(&to.largest, &seen, &largest, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

Decode decoder(Isa isa, DType code) { return HALFTONE_PER_ISA(isa, decoder(code)); }
Encode encoder(Isa isa, DType code) { return HALFTONE_PER_ISA(isa, encoder(code, overflow_of(code))); }
Draw drawer(Isa isa) { return HALFTONE_PER_ISA(isa, draw); }
Round rounder(Isa isa, const Grid& grid) { return HALFTONE_PER_ISA(isa, rounder(grid)); }

Largest largest_finder(Isa isa) { return HALFTONE_PER_ISA(isa, largest_of); }

Access::Access(Isa isa, const TensorSpec& tensor)
    : f32(tensor.storage.plain() && tensor.storage.code == DType::f32),
      plain(tensor.storage.plain()),
      size(static_cast<std::int64_t>(size_of(tensor.storage.code))),
      decode(decoder(isa, tensor.storage.code)),
      encode(HALFTONE_PER_ISA(isa, encoder(tensor.storage.code, tensor.storage.overflow))),
      storage(tensor.storage),
      count(tensor.shape.elements()) {
  if (plain) return;
  read = HALFTONE_PER_ISA(isa, read);
  write = HALFTONE_PER_ISA(isa, write);
  grid = storage.grid();
  round = rounder(isa, grid);
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

void Output::settle_scale(float largest) const {
  data_[access_->storage.code_bytes(access_->count)] = std::byte{BlockScale::fitting(largest, access_->grid.largest)};
}

Output::Output(const Access& access, const Arguments& arguments, std::size_t i)
    : access_(&access),
      data_(static_cast<std::byte*>(arguments.outputs[i].data)),
      state_(arguments.state),
      node_(arguments.outputs[i].node) {
  if (access.plain) return;
  const Memory& memory = arguments.outputs[i];
  writing_.scale = memory.write_scale(access.storage);
  if (memory.range && access.storage.noticed) writing_.noticed = &memory.range->noticed;
  if (access.storage.rounding == Rounding::stochastic) writing_.key = arguments.key(memory);
}

}  // namespace halftone::cpu
#endif
