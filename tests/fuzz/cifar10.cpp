// A file of CIFAR-10: the input, and zeros up to its size or nearly.
#include "halftone/data/cifar10.hpp"

#include "tests/fuzz/input.hpp"

using namespace halftone;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  FuzzedDataProvider input(bytes, size);
  const auto path = fuzz::folder() / "test_batch.bin";
  const auto limit = input.ConsumeIntegralInRange<std::int64_t>(-1, 20);
  const std::uintmax_t file_size =
      input.ConsumeProbability<float>() < 0.2f ? input.ConsumeIntegralInRange(0, 100000) : 30730000;
  fuzz::write(path, input.ConsumeRemainingBytesAsString());
  std::filesystem::resize_file(path, file_size);
  Dataset data;
  if (!fuzz::answered([&] { data = read_cifar10(fuzz::folder(), Split::test, limit); })) return 0;
  fuzz::expect(data.size() > 0 && data.pixels.size() == data.labels.size() * 3072 && data.mean.size() == 3);
  for (const auto label : data.labels) fuzz::expect(label >= 0 && label < 10);
  return 0;
}
