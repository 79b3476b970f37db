#include "src/data/archive.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <memory>
#include <set>
#include <vector>

#include "halftone/tensor/error.hpp"
#include "src/data/sha256.hpp"

namespace halftone {
namespace fs = std::filesystem;

bool is_intact(const fs::path& path, const KnownFile& file) {
  std::error_code error;
  if (fs::file_size(path, error) != static_cast<std::uintmax_t>(file.bytes) || error) return false;
  std::ifstream stream(path, std::ios::binary);
  std::vector<char> buffer(1 << 16);
  Sha256 sum;
  do {
    stream.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    sum.update(buffer.data(), static_cast<std::size_t>(stream.gcount()));
  } while (stream);
  return sum.hex() == file.sha256;
}

void publish(PartialFile& file, const KnownFile& known) {
  if (!is_intact(file.path(), known))
    throw FileError(
        fmt::format("{} did not arrive intact: its checksum is not that of {}", file.target().string(), known.name));
  file.publish();
}

namespace {

using Block = std::array<char, 512>;

struct Entry {
  std::string name;
  std::int64_t bytes = 0;
  bool regular = false;
};

class TarFile {
 public:
  explicit TarFile(const fs::path& path) : path_(path), file_(gzopen(path.c_str(), "rb"), gzclose) {
    if (!file_) damaged("cannot be opened");
  }

  /// The next entry, whose blocks are to be read before the one after it; false at the end.
  bool next(Entry& entry) {
    const Block head = block();
    if (std::all_of(head.begin(), head.end(), [](char c) { return c == 0; })) return false;
    unsigned sum = 0;
    for (std::size_t i = 0; i < head.size(); ++i)
      sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(head[i]);
    if (octal(head, 148, 8) != sum) damaged("is not a tar file or is damaged");
    const std::string prefix = std::string_view(&head[257], 5) == "ustar" ? text(head, 345, 155) : "";
    entry.name = (prefix.empty() ? "" : prefix + "/") + text(head, 0, 100);
    entry.bytes = octal(head, 124, 12);
    entry.regular = head[156] == '0' || head[156] == 0;
    return true;
  }

  Block block() {
    Block block;
    if (++blocks_ > most_blocks) damaged("is larger than it should be");
    if (gzread(file_.get(), block.data(), block.size()) != static_cast<int>(block.size())) damaged("ends early");
    return block;
  }

 private:
  [[noreturn]] void damaged(const char* how) const { throw FileError(path_.string() + " " + how); }

  static std::string text(const Block& head, std::size_t begin, std::size_t length) {
    const char* first = &head[begin];
    return {first, std::find(first, first + length, '\0')};
  }

  std::int64_t octal(const Block& head, std::size_t begin, std::size_t length) const {
    const std::string digits = text(head, begin, length);
    const char* first = digits.data() + std::min(digits.find_first_not_of(' '), digits.size());
    std::int64_t value = 0;
    if (std::from_chars(first, digits.data() + digits.size(), value, 8).ec != std::errc() || value < 0)
      damaged("is not a tar file or is damaged");
    return value;
  }

  static constexpr std::int64_t most_blocks = std::int64_t{1} << 21;  // of 512 bytes: CIFAR-10 takes a sixth

  fs::path path_;
  std::int64_t blocks_ = 0;
  std::unique_ptr<gzFile_s, decltype(&gzclose)> file_;
};

void unpack_entry(TarFile& tar, const Entry& entry, const KnownFile& file, const fs::path& to) {
  if (entry.bytes != file.bytes)
    throw FileError(fmt::format("{} has {} bytes in its archive, not {}", file.name, entry.bytes, file.bytes));
  make_folder(to);
  PartialFile out(to / file.name);
  for (auto left = static_cast<std::size_t>(entry.bytes); left > 0;) {
    const Block block = tar.block();
    const auto bytes = std::as_bytes(std::span(block)).first(std::min(left, block.size()));
    out.append(bytes);
    left -= bytes.size();
  }
  publish(out, file);
}

}  // namespace

void unpack(const fs::path& archive, std::string_view folder, std::span<const KnownFile> wanted, const fs::path& to) {
  TarFile tar(archive);
  std::set<std::string_view> found;  // an archive may hold one file twice
  for (Entry entry; found.size() < wanted.size() && tar.next(entry);) {
    const auto file = std::find_if(wanted.begin(), wanted.end(), [&](const KnownFile& f) {
      return entry.regular && entry.name == fmt::format("{}/{}", folder, f.name);
    });
    if (file != wanted.end()) {
      unpack_entry(tar, entry, *file, to);
      found.insert(file->name);
    } else {
      for (std::int64_t left = entry.bytes; left > 0; left -= sizeof(Block)) tar.block();
    }
  }
  if (found.size() < wanted.size())
    throw FileError(fmt::format("{} holds {} of the {} files wanted", archive.string(), found.size(), wanted.size()));
}

}  // namespace halftone
