#pragma once
#include <cstdint>

#include "halftone/numeric/formats.hpp"
#include "kernels/cpu/isa.hpp"

namespace halftone::cpu {

using Decode = void (*)(const void* from, float* to, std::int64_t count);
using Encode = void (*)(const float* from, void* to, std::int64_t count);

/// The loops that read and store codes of whole bytes (packed ones as a byte each), without a scale and rounded to
/// nearest; every result has the bits of the format's scalar functions. What is too large becomes what `overflow`
/// says, by default the format's own.
Decode decoder(Isa isa, DType code);
Encode encoder(Isa isa, DType code);
Encode encoder(Isa isa, DType code, Overflow overflow);

/// An encoder by the format's own overflow that gives the largest magnitude in passing, NaN where there is one; null
/// where that would gain nothing.
using EncodeFinding = float (*)(const float* from, void* to, std::int64_t count);
EncodeFinding finding_encoder(Isa isa, DType code);

}  // namespace halftone::cpu
