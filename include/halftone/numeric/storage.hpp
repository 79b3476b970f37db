#pragma once
#include <cstddef>
#include <cstdint>

#include "halftone/numeric/formats.hpp"
#include "halftone/numeric/philox.hpp"
#include "halftone/numeric/range.hpp"
#include "halftone/numeric/rounding.hpp"

namespace halftone {

/// Where the scale of a stored tensor comes from.
enum class Scaling : std::uint8_t {
  none,      ///< it is 1
  constant,  ///< 2^exponent
  range,     ///< one a tensor, at first 2^exponent, then moved by a controller
  block,     ///< a power of two for each `block` numbers in memory order, from the largest of them (OCP Microscaling)
  tensor     ///< a power of two, from the largest of all numbers: it is known when they are (current scaling)
};

/// How the numbers of a tensor are stored: each is a code times a scale. It is all that tells one number system from
/// another. Packed codes lie in memory order, low bits first; the scales of blocks, then that of the whole tensor, a
/// byte each, come after all codes. Where blocks lie in a tensor that has a scale of its own (`nested`), theirs are
/// E4M3 numbers in units of that one (NVFP4, but the tensor's scale is a power of two).
struct Storage {
  DType code = DType::f32;
  Rounding rounding = Rounding::nearest;
  Overflow overflow = Overflow::infinity;
  Scaling scaling = Scaling::none;
  std::int8_t exponent = 0;
  std::uint8_t width = 0;   ///< bits of an integer code that are in use, its sign among them; 0: all
  std::uint16_t block = 0;  ///< a multiple of 8
  bool noticed = false;     ///< whoever writes counts what `Noticed` has
  RangeController controller = {};

  // NOLINTNEXTLINE(google-explicit-constructor): a code alone is the storage that most tensors have
  constexpr Storage(DType the_code = DType::f32, Rounding the_rounding = Rounding::nearest)
      : code(the_code), rounding(the_rounding), overflow(overflow_of(the_code)) {}

  /// Two's complement with `integer_bits`, the sign among them, before the point and `fraction_bits` behind it, at most
  /// 32 together, in the narrowest code that holds them (Gupta et al. 2015).
  static constexpr Storage fixed(int integer_bits, int fraction_bits, Rounding rounding = Rounding::nearest) {
    const int width = integer_bits + fraction_bits;
    Storage storage(width <= 8 ? DType::i8 : width <= 16 ? DType::i16 : DType::i32, rounding);
    storage.scaling = Scaling::constant;
    storage.exponent = static_cast<std::int8_t>(-fraction_bits);
    storage.width = static_cast<std::uint8_t>(width);
    return storage;
  }

  static constexpr Storage blocks(DType code, int block) {
    Storage storage(code);
    storage.scaling = Scaling::block;
    storage.block = static_cast<std::uint16_t>(block);
    return storage;
  }

  static constexpr Storage scaled(DType code) {
    Storage storage(code);
    storage.scaling = Scaling::tensor;
    return storage;
  }

  static constexpr Storage nested_blocks(DType code, int block, Rounding rounding = Rounding::nearest) {
    Storage storage(code, rounding);
    storage.scaling = Scaling::tensor;
    storage.block = static_cast<std::uint16_t>(block);
    return storage;
  }

  constexpr bool operator==(const Storage&) const = default;

  /// Whether the code's own `encode` and `decode` are all there is to it.
  constexpr bool plain() const {
    return scaling == Scaling::none && rounding == Rounding::nearest && overflow == overflow_of(code) && width == 0 &&
           !noticed && bits_of(code) % 8 == 0;
  }
  constexpr bool nested() const { return block > 0 && scaling != Scaling::block; }
  constexpr bool has_range() const { return scaling == Scaling::range || noticed; }
  /// Whether infinity and NaN are read as numbers that are not finite again.
  constexpr bool keeps_nonfinite() const {
    return block > 0 || scaling == Scaling::tensor || visit_format(code, [&](auto format) {
             using Format = decltype(format);
             const auto kept = [&](float x) {
               return !(math::abs(Format::decode(halftone::encode<Format>(x, overflow))) <= F32::largest);
             };
             return kept(bit_cast<float>(0x7f800000u)) && kept(bit_cast<float>(0x7fc00000u));
           });
  }
  /// The largest f32 number that is stored as a finite one.
  constexpr float finite_limit() const {
    if (overflow == Overflow::saturate) return F32::largest;
    const float limit = visit_format(code, [](auto format) {
      using Format = decltype(format);
      if constexpr (requires { Format::dropped_bits; }) {  // the next number rounds up, to even
        constexpr std::uint32_t half = 1u << (Format::dropped_bits - 1);
        return bit_cast<float>(bit_cast<std::uint32_t>(Format::largest) + half - 1);
      } else {
        return F32::largest;
      }
    });
    const float scaled = scaling == Scaling::constant ? limit * math::power_of_two(exponent) : limit;
    return scaled < F32::largest ? scaled : F32::largest;
  }
  /// The largest number that an update may give; what is scaled saturates by itself.
  constexpr float largest_update() const {
    return scaling != Scaling::none
               ? F32::largest
               : visit_format(code, [](auto format) -> float { return decltype(format)::largest; });
  }
  /// Why there is no such storage; null where there is.
  constexpr const char* fault() const {
    if (width > bits_of(code)) return "the code has no such width";
    if (code == DType::f32 && overflow == Overflow::saturate) return "f32 does not saturate";
    if ((scaling == Scaling::block && block == 0) || (block > 0 && (block < 8 || 1024 % block != 0)))
      return "a block has 8, 16, 32, ... or 1024 numbers";
    if (nested() && scaling != Scaling::tensor && scaling != Scaling::range) return "blocks have a scale";
    if (scaling == Scaling::range && overflow == Overflow::infinity && overflow_of(code) == Overflow::infinity)
      return "what lies beyond a range that moves saturates";
    return nullptr;
  }
  /// Of a `Scaling::range`, before anything has moved it.
  constexpr float first_scale() const { return scaling == Scaling::range ? math::power_of_two(exponent) : 1.0f; }

  /// A run that is written begins at a multiple of so many numbers, and ends at one or with the tensor.
  constexpr std::int64_t granule() const { return block > 0 ? block : bits_of(code) % 8 == 0 ? 1 : 8; }

  constexpr std::size_t code_bytes(std::int64_t count) const {
    return (static_cast<std::size_t>(count) * static_cast<std::size_t>(bits_of(code)) + 7) / 8;
  }
  /// Where the scale of a `Scaling::tensor` lies.
  constexpr std::size_t scale_place(std::int64_t count) const {
    return code_bytes(count) + static_cast<std::size_t>(block > 0 ? (count + block - 1) / block : 0);
  }
  constexpr std::size_t bytes(std::int64_t count) const {
    return scale_place(count) + (scaling == Scaling::tensor ? 1 : 0);
  }

  /// The largest magnitude in units of the tensor's scale.
  constexpr float largest() const { return grid().largest * (nested() ? E4M3::largest : 1); }

  /// The codes' own numbers, rounded to as this storage rounds; not for f32.
  constexpr Grid grid() const {
    const bool saturate = overflow == Overflow::saturate;
    return visit_format(code, [&](auto format) -> Grid {
      using Format = decltype(format);
      if constexpr (std::is_same_v<Format, Sign>) {
        return Grid::binary(rounding);
      } else if constexpr (std::is_same_v<Format, F32>) {
        return Grid::floating(8, 23, rounding);
      } else if constexpr (std::is_unsigned_v<typename Format::Code> && Format::epsilon == 1) {
        Grid grid = Grid::fixed(Format::bits + 1, 0, rounding);
        grid.lowest = 0;
        return grid;
      } else if constexpr (std::is_integral_v<typename Format::Code> && Format::epsilon == 1) {
        return Grid::fixed(width > 0 ? width : Format::bits, 0, rounding);
      } else {
        return {Grid::Kind::floating,   rounding, saturate,         Format::dropped_bits,
                Format::first_exponent, 1,        -Format::largest, Format::largest};
      }
    });
  }
};

/// The scales of blocks (E8M0): 2^(code - 127); the last code is NaN and stands for a block that has a number which is
/// not finite.
struct BlockScale {
  static constexpr std::uint8_t nan = 255;
  HALFTONE_HD static constexpr float decode(std::uint8_t code) {
    return code == nan ? bit_cast<float>(0x7fc00000u) : math::power_of_two(code - 127);
  }
  /// The largest power of two with which the largest magnitude of a block is no less than the largest power of two
  /// among the codes, 2^`top`.
  HALFTONE_HD static constexpr std::uint8_t of(float largest, int top) {
    const std::uint32_t bits = bit_cast<std::uint32_t>(largest);
    if (bits >= 0x7f800000u) return nan;
    const int code = static_cast<int>(bits >> 23) - top;
    return static_cast<std::uint8_t>(code < 0 ? 0 : code);
  }
  /// The smallest power of two with which the largest magnitude is no more than the largest number among the codes.
  HALFTONE_HD static constexpr std::uint8_t fitting(float largest, float largest_code) {
    if (!(largest <= F32::largest)) return nan;
    const float scale = largest / largest_code;
    return static_cast<std::uint8_t>(scale >= 0x1p-126f ? 127 + math::ceil_log2(scale) : 1);
  }
};

/// The scales of nested blocks: E4M3 numbers, from the smallest normal one on, or NaN.
struct NestedScale {
  /// The one with which the largest magnitude of a block, in units of the tensor's scale, is about the largest code.
  HALFTONE_HD static constexpr std::uint8_t of(float largest, float largest_code) {
    constexpr std::uint8_t smallest = 1 << 3, nan = 0x7f;
    if (!(largest <= F32::largest)) return nan;
    const std::uint8_t code = E4M3::encode(largest / largest_code);
    return code < smallest ? smallest : code;
  }
};

/// The exponent of the largest power of two among a code's numbers.
constexpr int top_exponent(DType code) {
  return visit_format(code, [](auto format) {
    return static_cast<int>(bit_cast<std::uint32_t>(decltype(format)::largest) >> 23) - 127;
  });
}

// Reading and writing as they are defined, number by number; the kernels' faster ways give the same bits.

namespace detail {

template <class Format>
HALFTONE_HD constexpr typename Format::Code code_at(const std::byte* data, std::int64_t i) {
  using Code = typename Format::Code;
  if constexpr (Format::bits % 8 == 0) {
    return reinterpret_cast<const Code*>(data)[i];
  } else {
    const std::int64_t bit = i * Format::bits, shift = bit % 8;
    std::uint32_t word = std::to_integer<std::uint32_t>(data[bit / 8]) >> shift;
    if (shift + Format::bits > 8) word |= std::to_integer<std::uint32_t>(data[bit / 8 + 1]) << (8 - shift);
    return static_cast<Code>(word & ((1u << Format::bits) - 1));
  }
}

/// Bits that are set already stay so.
template <class Format>
HALFTONE_HD constexpr void put_code(typename Format::Code code, std::byte* data, std::int64_t i) {
  if constexpr (Format::bits % 8 == 0) {
    reinterpret_cast<typename Format::Code*>(data)[i] = code;
  } else {
    const std::int64_t bit = i * Format::bits, shift = bit % 8;
    data[bit / 8] |= static_cast<std::byte>(code << shift);
    if (shift + Format::bits > 8) data[bit / 8 + 1] |= static_cast<std::byte>(code >> (8 - shift));
  }
}

}  // namespace detail

/// The scale that all numbers of a tensor have in common; `range` is that of a `Scaling::range`.
HALFTONE_HD constexpr float tensor_scale(const Storage& storage, const std::byte* data, std::int64_t count,
                                         float range) {
  switch (storage.scaling) {
    case Scaling::constant:
      return math::power_of_two(storage.exponent);
    case Scaling::range:
      return range;
    case Scaling::tensor:
      return BlockScale::decode(std::to_integer<std::uint8_t>(data[storage.scale_place(count)]));
    case Scaling::block:
    case Scaling::none:
      break;
  }
  return 1;
}

/// Stores the scale of a `Scaling::tensor` whose largest magnitude is `largest`, NaN where a number is.
HALFTONE_HD constexpr void put_tensor_scale(const Storage& storage, std::byte* data, std::int64_t count,
                                            float largest) {
  data[storage.scale_place(count)] = std::byte{BlockScale::fitting(largest, storage.largest())};
}

/// The scale of the block of number `i`, in units of the tensor's; 1 where there are no blocks.
HALFTONE_HD constexpr float block_scale(const Storage& storage, const std::byte* data, std::int64_t count,
                                        std::int64_t i) {
  if (storage.block == 0) return 1;
  const auto code = std::to_integer<std::uint8_t>(data[storage.code_bytes(count) + i / storage.block]);
  return storage.nested() ? E4M3::decode(code) : BlockScale::decode(code);
}

/// The code of a block's scale, from its largest magnitude in units of the tensor's; NaN where there is one.
HALFTONE_HD constexpr std::uint8_t block_scale_code(const Storage& storage, float largest) {
  return storage.nested() ? NestedScale::of(largest, storage.grid().largest)
                          : BlockScale::of(largest, top_exponent(storage.code));
}

/// What the codes of `storage` from number `i` on are multiplied by; `range` is the scale of a `Scaling::range`.
HALFTONE_HD constexpr float scale_at(const Storage& storage, const std::byte* data, std::int64_t count, std::int64_t i,
                                     float range) {
  return tensor_scale(storage, data, count, range) * block_scale(storage, data, count, i);
}

/// Number `i` of a tensor of `count`.
HALFTONE_HD constexpr float read_number(const Storage& storage, const std::byte* data, std::int64_t count,
                                        std::int64_t i, float range = 1) {
  const float code = visit_format(storage.code, [&](auto format) {
    using Format = decltype(format);
    return Format::decode(detail::code_at<Format>(data, i));
  });
  return storage.scaling == Scaling::none ? code : code * scale_at(storage, data, count, i, range);
}

/// Counts x, which became `rounded`, where the largest magnitude is `end`.
HALFTONE_HD constexpr void notice(float end, float x, float rounded, Noticed& noticed) {
  const float magnitude = math::abs(x);
  ++noticed.count;
  noticed.zeros += magnitude == 0;
  noticed.flushed += magnitude > 0 && rounded == 0;
  noticed.saturated += magnitude >= end;
  noticed.upper_half += magnitude >= end / 2;
  if (magnitude > noticed.largest) noticed.largest = magnitude;
}

/// Writes numbers [first, first + n) of a tensor of `count`, in a way that `Storage::granule` allows. Random bits are
/// drawn by the number's place in the tensor. The scale of a `Scaling::tensor` is found where all are written at once;
/// else it must be there.
HALFTONE_HD constexpr void write_numbers(const Storage& storage, std::byte* data, std::int64_t count,
                                         std::int64_t first, std::int64_t n, const float* values,
                                         const RandomKey& key = {}, float range = 1, Noticed* noticed = nullptr) {
  const Grid grid = storage.grid();
  const std::int64_t granule = storage.granule(), run = granule > 1 ? granule : n;
  for (std::int64_t done = 0; done < n; done += run) {
    const std::int64_t begin = first + done, end = done + run < n ? begin + run : first + n;
    if (granule > 1)
      for (std::size_t b = storage.code_bytes(begin); b < storage.code_bytes(end); ++b) data[b] = std::byte{0};
    const auto largest_of = [&](std::int64_t last) {
      float largest = 0;
      for (std::int64_t i = begin; i < last; ++i) {
        const float magnitude = math::abs(values[i - first]);
        if (!(magnitude <= largest)) largest = magnitude;
        if (!(magnitude == magnitude)) break;
      }
      return largest;
    };
    if (storage.scaling == Scaling::tensor && n == count && done == 0)
      put_tensor_scale(storage, data, count, largest_of(first + n));
    const float inverse = 1 / tensor_scale(storage, data, count, range);
    if (storage.block > 0)
      data[storage.code_bytes(count) + begin / storage.block] =
          std::byte{block_scale_code(storage, largest_of(end) * inverse)};
    const float of_block = 1 / block_scale(storage, data, count, begin);
    visit_format(storage.code, [&](auto format) {
      using Format = decltype(format);
      for (std::int64_t i = begin; i < end; ++i) {
        const float x = values[i - first] * inverse;
        const float rounded = grid(x * of_block, storage.rounding == Rounding::stochastic ? key.uniform(i) : 0.0f);
        if (noticed) notice(storage.largest(), storage.nested() ? x : x * of_block, rounded, *noticed);
        detail::put_code<Format>(encode<Format>(rounded, storage.overflow), data, i);
      }
    });
  }
}

}  // namespace halftone
