// PNG and JPEG files: sound ones with some other bytes, a sound beginning or none, then anything.
#include "halftone/data/image.hpp"

#include "tests/data/own_files.hpp"
#include "tests/fuzz/input.hpp"

using namespace halftone;

namespace {

/// Makes the checksums of a PNG file's chunks those of what they hold, so that what comes behind them is reached.
void repair(std::string& png) {
  for (std::size_t at = 8; at + 12 <= png.size();) {
    std::size_t size = 0;
    for (std::size_t i = 0; i < 4; ++i) size = size << 8 | static_cast<std::uint8_t>(png[at + i]);
    if (size > png.size() - at - 12) return;
    png.replace(at + 8 + size, 4, testing::big_endian(testing::checksum(png.substr(at + 4, size + 4))));
    at += size + 12;
  }
}

/// A sound file of which a few bytes are others.
std::string with_other_bytes(FuzzedDataProvider& input) {
  const bool is_png = input.ConsumeBool();
  std::string content =
      is_png ? testing::png_of(3, 4, 8, 0, std::string(3 * 5, '\1'), "", input.ConsumeBool()) : testing::jpeg();
  for (int i = input.ConsumeIntegralInRange(1, 4); i > 0; --i)
    content[input.ConsumeIntegralInRange<std::size_t>(0, content.size() - 1)] = input.ConsumeIntegral<char>();
  if (is_png && input.ConsumeBool()) repair(content);
  return content;
}

}  // namespace

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
  content = input.ConsumeBool() ? with_other_bytes(input) : content + input.ConsumeRemainingBytesAsString();
  fuzz::write(fuzz::folder() / "image", content);
  std::vector<std::uint8_t> pixels;
  if (fuzz::answered([&] { pixels = read_image(fuzz::folder() / "image", image); }))
    fuzz::expect(pixels.size() == static_cast<std::size_t>(image.elements()));
  return 0;
}
