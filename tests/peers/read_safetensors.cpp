// Says of each file named whether Halftone's reader takes it, and what it reads: a line a file, then one a tensor.
#include <cstdio>

#include "halftone/io/safetensors.hpp"
#include "halftone/tensor/error.hpp"

namespace {

template <class Bytes>
void print_hex(const Bytes& bytes) {
  for (const auto byte : bytes) std::printf("%02x", static_cast<unsigned char>(byte));
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) try {
      const halftone::SafeTensors file = halftone::read_safetensors(argv[i]);
      std::printf("takes\n");
      for (const auto& tensor : file.tensors) {
        std::printf(" ");
        print_hex(tensor.name);
        for (const auto extent : tensor.shape) std::printf(" %lld", static_cast<long long>(extent));
        std::printf(" ");
        print_hex(tensor.data);
        std::printf("\n");
      }
    } catch (const halftone::FileError& error) {
      std::printf("refuses %s\n", error.what());
    }
  return 0;
}
