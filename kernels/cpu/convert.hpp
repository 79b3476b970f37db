#pragma once
#include <cstdint>

#include "halftone/numeric/formats.hpp"
#include "kernels/cpu/isa.hpp"

namespace halftone::cpu {

using Decode = void (*)(const void* from, float* to, std::int64_t count);
using Encode = void (*)(const float* from, void* to, std::int64_t count);

/// The loop that reads `count` stored numbers as f32; every result has the bits of the format's scalar `decode`.
Decode decoder(Isa isa, DType dtype);

/// The loop that stores f32 numbers; every code is that of the format's scalar `encode`.
Encode encoder(Isa isa, DType dtype);

/// How the numbers of a stored tensor are read and written, settled when a kernel is made.
struct Codec {
  Codec(Isa isa, DType dtype)
      : decode(decoder(isa, dtype)), encode(encoder(isa, dtype)), size(static_cast<std::int64_t>(size_of(dtype))) {}
  Decode decode;
  Encode encode;
  std::int64_t size;  ///< bytes of a number
};

}  // namespace halftone::cpu
