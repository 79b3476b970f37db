#include "kernels/cpu/isa.hpp"

#include <hwy/targets.h>
#if HWY_ARCH_X86_64
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace halftone::cpu {
namespace {

#if HWY_ARCH_X86_64
struct Registers {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
  return r;
}

bool has_bf16() { return (cpuid(7, 1).a >> 5 & 1) != 0; }

/// Whether the system lets this process use tiles, for which it must be asked.
bool granted_tiles() {
  constexpr unsigned bf16 = 1u << 22, tile = 1u << 24;
  constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool granted =
      (cpuid(7, 0).d & (bf16 | tile)) == (bf16 | tile) && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  return granted;
}

/// Intel's dot products do half of what its multiply-adds do in a cycle (Sapphire Rapids: measured), AMD's twice as
/// much.
bool fast_dot_products() {
  const unsigned vendor = cpuid(0, 0).c;
  return vendor == signature_AMD_ecx;
}
#else
bool has_bf16() { return false; }
bool granted_tiles() { return false; }
bool fast_dot_products() { return false; }
#endif

}  // namespace

bool supported(Isa isa) {
  const auto usable = hwy::SupportedTargets() & HWY_TARGETS;
  switch (isa) {
    case Isa::baseline:
      return true;
    case Isa::avx2:
      return (usable & HWY_AVX2) != 0;
    case Isa::avx512:
      return (usable & HWY_AVX3) != 0;
    case Isa::avx512_bf16:
      return supported(Isa::avx512) && has_bf16();
    case Isa::amx:
      break;
  }
  return supported(Isa::avx512_bf16) && granted_tiles();
}

Isa best_isa() {
  if (supported(Isa::amx)) return Isa::amx;
  if (supported(Isa::avx512_bf16) && fast_dot_products()) return Isa::avx512_bf16;
  return supported(Isa::avx512) ? Isa::avx512 : supported(Isa::avx2) ? Isa::avx2 : Isa::baseline;
}

const char* name_of(Isa isa) {
  constexpr const char* names[] = {"baseline", "avx2", "avx512", "avx512_bf16", "amx"};
  return names[static_cast<int>(isa)];
}

std::optional<Isa> parse_isa(std::string_view name) {
  if (name == "auto") return best_isa();
  for (Isa isa : all_isas)
    if (name == name_of(isa)) return isa;
  return std::nullopt;
}

}  // namespace halftone::cpu
