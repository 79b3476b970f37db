// NumPy archives: sound members or any bytes, and an archive that was changed afterwards.
#include "halftone/data/npz.hpp"

#include "tests/data/own_files.hpp"
#include "tests/fuzz/input.hpp"

using namespace halftone;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  FuzzedDataProvider input(bytes, size);
  std::vector<std::pair<std::string, std::string>> members;
  for (const char* name : {"x", "y", "x_train", "y_train", "x_test", "y_test"}) {
    if (input.ConsumeBool()) continue;
    const bool images = name[0] == 'x';
    const std::string type = input.PickValueInArray({"|u1", "<f4", "<i8", "<i4", ">i2", "<f8", "|O"}),
                      shape = input.PickValueInArray({"(2,)", "(2, 1)", "(2, 2, 3)", "(2, 1, 2, 3)", "(0,)", "()"});
    std::string array = input.ConsumeBool() ? testing::npy(images ? "|u1" : "<i4", images ? "(2, 2, 3)" : "(2,)",
                                                           std::string(images ? 12 : 8, '\0'))
                                            : testing::npy(type, shape, input.ConsumeRandomLengthString(64));
    if (input.ConsumeBool()) array = input.ConsumeRandomLengthString(200);
    members.push_back({std::string(name) + ".npy", array});
  }
  std::string archive = testing::zip(members, input.ConsumeBool());
  const DataOptions options{
      .limit = input.ConsumeIntegralInRange<std::int64_t>(-1, 3),
      .validation = input.ConsumeBool() ? 0.5 : 0,
      .layout = input.PickValueInArray({PixelLayout::unknown, PixelLayout::nhwc, PixelLayout::nchw}),
      .validation_without_parts = input.ConsumeBool() ? std::optional(input.ConsumeBool() ? 0.5 : 0) : std::nullopt};
  const Split split = input.ConsumeBool() ? Split::train : Split::test;
  while (input.remaining_bytes() > 0) {
    const auto at = input.ConsumeIntegralInRange<std::size_t>(0, archive.size() - 1);
    archive[at] = static_cast<char>(input.ConsumeIntegral<std::uint8_t>());
  }
  fuzz::write(fuzz::folder() / "set.npz", archive);
  Dataset data;
  if (!fuzz::answered([&] { data = load_dataset("npz:" + (fuzz::folder() / "set.npz").string(), split, options); }))
    return 0;
  fuzz::expect(data.size() > 0 && data.pixels.size() == data.labels.size() * data.image_bytes());
  fuzz::expect(data.mean.size() == static_cast<std::size_t>(data.image.c));
  for (const auto label : data.labels) fuzz::expect(label >= 0 && label < data.classes);
  return 0;
}
