#pragma once
#include <optional>
#include <string_view>

// Only these targets are compiled: AVX2, AVX3 (= AVX-512) and whatever the compiler's own flags give, but for SVE,
// whose vectors have no size.
#if !defined(HWY_DISABLED_TARGETS) && defined(__x86_64__)
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)
#elif !defined(HWY_DISABLED_TARGETS)
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#define HWY_COMPILE_ONLY_STATIC
#endif
#include <hwy/detect_targets.h>

// One kernel file holds its code once and is compiled once per instruction set. A plain loop is vectorised by the
// compiler for each; there is no global switch, the caller chooses by `Isa`:
//
//   #include "kernels/cpu/double.hpp"                       // declares: using Double = void (*)(float*, std::int64_t);
//   #undef HWY_TARGET_INCLUDE                               //           Double doubler(Isa);
//   #define HWY_TARGET_INCLUDE "kernels/cpu/double.cpp"     // this very file
//   #include <hwy/foreach_target.h>
//   #include <hwy/highway.h>
//   HWY_BEFORE_NAMESPACE();
//   namespace halftone::cpu::HWY_NAMESPACE {
//   void twice(float* x, std::int64_t n) { for (std::int64_t i = 0; i < n; ++i) x[i] *= 2; }
//   }
//   HWY_AFTER_NAMESPACE();
//   #if HWY_ONCE
//   namespace halftone::cpu { Double doubler(Isa isa) { return HALFTONE_PER_ISA(isa, twice); } }
//   #endif
//
// A lambda or a constant may stand in place of a function; a constant must be `constexpr`.
#if HWY_TARGETS & HWY_AVX3
#define HALFTONE_AVX512(name) N_AVX3::name
#else
#define HALFTONE_AVX512(name) HWY_STATIC_DISPATCH(name)
#endif
#if HWY_TARGETS & HWY_AVX2
#define HALFTONE_AVX2(name) N_AVX2::name
#else
#define HALFTONE_AVX2(name) HWY_STATIC_DISPATCH(name)
#endif
#define HALFTONE_PER_ISA(isa, name)                              \
  ((isa) >= ::halftone::cpu::Isa::avx512 ? HALFTONE_AVX512(name) \
   : (isa) >= ::halftone::cpu::Isa::avx2 ? HALFTONE_AVX2(name)   \
                                         : HWY_STATIC_DISPATCH(name))

namespace halftone::cpu {

/// Each has all that those before it have. The last two add products of bf16 pairs (pair_products.hpp).
enum class Isa { baseline, avx2, avx512, avx512_bf16, amx };
inline constexpr Isa all_isas[] = {Isa::baseline, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx};

/// Whether this build holds code for the instruction set and this machine runs it.
bool supported(Isa isa);

/// The supported one that is fastest on this processor.
Isa best_isa();

const char* name_of(Isa isa);

/// The instruction set of that name, supported or not; "auto" is the best one; nothing for an unknown name.
std::optional<Isa> parse_isa(std::string_view name);

}  // namespace halftone::cpu
