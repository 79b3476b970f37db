// A .safetensors file as it is, or a header with the length and data that it wants. What is read can be written and is
// then read again.
#include "halftone/io/safetensors.hpp"

#include "tests/fuzz/input.hpp"

using namespace halftone;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  FuzzedDataProvider input(bytes, size);
  const auto path = fuzz::folder() / "x";
  std::string content;
  if (input.ConsumeBool()) {
    const auto data = input.ConsumeIntegralInRange<std::size_t>(0, 64);
    const std::string header = input.ConsumeRemainingBytesAsString();
    for (int i = 0; i < 8; ++i) content += static_cast<char>(header.size() >> 8 * i & 0xff);
    content += header + std::string(data, 'x');
  } else {
    content = input.ConsumeRemainingBytesAsString();
  }
  fuzz::write(path, content);
  SafeTensors file;
  if (!fuzz::answered([&] { file = read_safetensors(path); })) return 0;
  std::size_t total = 0;
  for (const StoredTensor& tensor : file.tensors) total += tensor.data.size();
  fuzz::expect(total <= content.size());
  if (!fuzz::answered([&] { write_safetensors(fuzz::folder() / "y", file.tensors, file.metadata); })) return 0;
  const SafeTensors again = read_safetensors(fuzz::folder() / "y");
  fuzz::expect(again.metadata == file.metadata && again.tensors.size() == file.tensors.size());
  for (const StoredTensor& tensor : file.tensors)
    fuzz::expect(again.at(tensor.name).data == tensor.data && again.at(tensor.name).shape == tensor.shape);
  return 0;
}
