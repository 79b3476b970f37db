// A tar file: headers with a right checksum and some with a wrong one, and bytes between them.
#include "src/data/archive.hpp"

#include "tests/fuzz/input.hpp"

using namespace halftone;

namespace {

std::string header(FuzzedDataProvider& input) {
  constexpr const char* names[] = {"set/one", "set/two", "set/../two", "/etc/passwd", "set", "one"};
  std::string head(512, '\0');
  const auto put = [&](std::size_t at, const std::string& text) { head.replace(at, text.size(), text); };
  put(0, input.ConsumeBool() ? input.PickValueInArray(names) : input.ConsumeRandomLengthString(100));
  constexpr const char* sizes[] = {"00000000003", "00000000000", "00000001000", "77777777777", " 3", "-3", "\x80"};
  put(124, input.ConsumeBool() ? input.PickValueInArray(sizes) : input.ConsumeRandomLengthString(12));
  head[156] = input.PickValueInArray({'0', '\0', '1', '2', '5', 'x', 'g', 'L'});
  if (input.ConsumeBool()) put(257, "ustar");
  if (input.ConsumeBool()) put(345, input.ConsumeRandomLengthString(155));
  unsigned sum = 8 * ' ' + input.ConsumeIntegralInRange(0, 9) / 9;
  for (const char c : head) sum += static_cast<unsigned char>(c);
  char digits[8];
  std::snprintf(digits, sizeof digits, "%06o", sum);
  put(148, digits);
  return head;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  FuzzedDataProvider input(bytes, size);
  // "abc" and nothing.
  const KnownFile wanted[] = {{"one", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
                              {"two", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}};
  std::string content;
  while (input.remaining_bytes() > 0 && content.size() < 100000) {
    if (input.ConsumeBool()) content += header(input);
    std::string data = input.ConsumeBool() ? "abc" : input.ConsumeRandomLengthString(600);
    if (input.ConsumeBool()) data.resize((data.size() + 511) / 512 * 512);
    content += data;
  }
  const auto archive = fuzz::folder() / "archive", to = fuzz::folder() / "to";
  std::filesystem::remove_all(to);
  std::filesystem::create_directory(to);
  size % 2 == 0 ? fuzz::write(archive, content) : fuzz::write_gz(archive, content);
  const bool whole = fuzz::answered([&] { unpack(archive, "set", wanted, to); });
  for (const auto& entry : std::filesystem::recursive_directory_iterator(fuzz::folder()))
    fuzz::expect(entry.path() == archive || entry.path() == to || entry.path() == to / "one" ||
                 entry.path() == to / "two");
  for (const KnownFile& file : wanted)
    fuzz::expect(is_intact(to / file.name, file) || (!whole && !exists(to / file.name)));
  return 0;
}
