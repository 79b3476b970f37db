// PNG and JPEG files: a sound beginning or none, then anything.
#include "halftone/data/image.hpp"

#include "tests/data/own_files.hpp"
#include "tests/fuzz/input.hpp"

using namespace halftone;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  FuzzedDataProvider input(bytes, size);
  const Shape image{1, input.ConsumeIntegralInRange<std::int64_t>(1, 40),
                    input.ConsumeIntegralInRange<std::int64_t>(1, 40), input.ConsumeBool() ? 1 : 3};
  std::string content = input.ConsumeBool() ? "\xff\xd8\xff" : "";
  if (input.ConsumeBool()) {
    const auto h = input.ConsumeIntegralInRange<std::uint32_t>(1, 9),
               w = input.ConsumeIntegralInRange<std::uint32_t>(1, 9);
    content = testing::png(h, w, 3, std::vector<std::uint8_t>(h * w * 3, input.ConsumeIntegral<std::uint8_t>()));
    const auto at = input.ConsumeIntegralInRange<std::size_t>(0, content.size());
    content.replace(at, std::string::npos, input.ConsumeBool() ? content.substr(at) : "");
  }
  content += input.ConsumeRemainingBytesAsString();
  fuzz::write(fuzz::folder() / "image", content);
  std::vector<std::uint8_t> pixels;
  if (fuzz::answered([&] { pixels = read_image(fuzz::folder() / "image", image); }))
    fuzz::expect(pixels.size() == static_cast<std::size_t>(image.elements()));
  return 0;
}
