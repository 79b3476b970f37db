// The idx files of MNIST: plain, gzipped, or bytes that say they are gzip; with a sound header or without.
#include "halftone/data/mnist.hpp"
#include "tests/fuzz/input.hpp"

using namespace halftone;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  FuzzedDataProvider input(bytes, size);
  const auto place = [&](const char* name, const std::string& sound) {
    const int kind = input.ConsumeIntegralInRange(0, 2);
    std::string content = input.ConsumeBool() ? sound : "";
    content += input.ConsumeRandomLengthString();
    if (input.ConsumeBool()) content.append(input.ConsumeIntegralInRange<std::size_t>(0, 3000), '\1');
    const auto path = fuzz::folder() / name, zipped = fuzz::folder() / (std::string(name) + ".gz");
    std::filesystem::remove(path), std::filesystem::remove(zipped);
    kind == 0 ? fuzz::write(path, content) : kind == 1 ? fuzz::write_gz(zipped, content) : fuzz::write(zipped, content);
  };
  const auto text = [](auto... values) { return std::string{static_cast<char>(values)...}; };
  place("train-images-idx3-ubyte", text(0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28));
  place("train-labels-idx1-ubyte", text(0, 0, 8, 1, 0, 0, 0, 2));
  const auto limit = input.ConsumeIntegralInRange<std::int64_t>(-1, 3);
  Dataset data;
  if (!fuzz::answered([&] { data = read_mnist(fuzz::folder(), Split::train, limit); })) return 0;
  fuzz::expect(data.size() > 0 && data.pixels.size() == data.labels.size() * 784 && data.mean.size() == 1);
  for (const auto label : data.labels) fuzz::expect(label >= 0 && label < 10);
  return 0;
}
