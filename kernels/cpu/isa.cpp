#include "kernels/cpu/isa.hpp"

#include <hwy/targets.h>

namespace halftone::cpu {

bool supported(Isa isa) {
  const auto usable = hwy::SupportedTargets() & HWY_TARGETS;
  if (isa == Isa::avx512) return (usable & HWY_AVX3) != 0;
  if (isa == Isa::avx2) return (usable & HWY_AVX2) != 0;
  return true;
}

Isa best_isa() { return supported(Isa::avx512) ? Isa::avx512 : supported(Isa::avx2) ? Isa::avx2 : Isa::baseline; }

const char* name_of(Isa isa) {
  constexpr const char* names[] = {"baseline", "avx2", "avx512"};
  return names[static_cast<int>(isa)];
}

std::optional<Isa> parse_isa(std::string_view name) {
  if (name == "auto") return best_isa();
  for (Isa isa : all_isas)
    if (name == name_of(isa)) return isa;
  return std::nullopt;
}

}  // namespace halftone::cpu
