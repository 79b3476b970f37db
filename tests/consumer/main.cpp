#include <cstdio>
#include <halftone/io/safetensors.hpp>
#include <halftone/version.hpp>

namespace ht = halftone;

int main(int, char** argv) {
  const std::string file = std::string(argv[0]) + ".safetensors";
  ht::write_safetensors(file, std::vector<ht::StoredTensor>{{"x", ht::DType::u8, {1}, {std::byte{42}}}});
  const bool same = ht::read_safetensors(file).at("x").data.at(0) == std::byte{42};
  std::remove(file.c_str());
  std::printf("halftone %s %s\n", ht::version, same ? "works" : "FAILS");
  return same ? 0 : 1;
}
