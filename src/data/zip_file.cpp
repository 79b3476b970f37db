#include "src/data/zip_file.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <initializer_list>
#include <new>
#include <span>

#include "halftone/tensor/error.hpp"

namespace halftone {
namespace {

constexpr std::uint64_t end_bytes = 22, entry_bytes = 46, local_bytes = 30, most_comment = 65535;

/// Little endian, as all numbers in a zip file.
template <class T = std::uint32_t>
T number(std::span<const std::byte> bytes, std::size_t at, int size = sizeof(T)) {
  T value = 0;
  for (int i = size; i-- > 0;) value = value << 8 | std::to_integer<T>(bytes[at + static_cast<std::size_t>(i)]);
  return value;
}

/// Reads from an entry's extra fields those of its numbers that do not fit the entry itself, which has 2^32 - 1 for
/// them; false where there are fewer.
bool widen(std::span<const std::byte> extra, std::initializer_list<std::uint64_t*> numbers) {
  std::span<const std::byte> wide;
  while (extra.size() >= 4) {
    const std::size_t size = std::min<std::size_t>(number(extra, 2, 2), extra.size() - 4);
    if (number(extra, 0, 2) == 1) wide = extra.subspan(4, size);
    extra = extra.subspan(4 + size);
  }
  for (std::uint64_t* one : numbers) {
    if (*one != 0xffffffff) continue;
    if (wide.size() < 8) return false;
    *one = number<std::uint64_t>(wide, 0);
    wide = wide.subspan(8);
  }
  return true;
}

bool has_signature(std::span<const std::byte> bytes, std::size_t at, std::uint32_t signature) {
  return number(bytes, at, 4) == signature;
}

}  // namespace

ZipFile::ZipFile(std::filesystem::path path) : file_(std::move(path)) { read_directory(); }

std::vector<std::string> ZipFile::names() const {
  std::vector<std::string> names;
  for (const Member& member : members_) names.push_back(member.name);
  return names;
}

void ZipFile::broken(const std::string& what) const { throw FileError(file_.path().string() + " " + what); }

std::vector<std::byte> ZipFile::bytes(std::uint64_t offset, std::uint64_t size, const char* what) {
  if (offset > file_.size() || size > file_.size() - offset) broken(fmt::format("is damaged: {} lies outside", what));
  std::vector<std::byte> result(size);
  if (file_.read_at(offset, result) != size) broken("ends early");
  return result;
}

void ZipFile::read_directory() {
  const std::uint64_t tail = std::min(file_.size(), end_bytes + most_comment);
  if (tail < end_bytes) broken("is no zip archive");
  const std::vector<std::byte> end = bytes(file_.size() - tail, tail, "its end");
  std::size_t at = end.size() - end_bytes;
  while (at > 0 && !has_signature(end, at, 0x06054b50)) --at;
  if (!has_signature(end, at, 0x06054b50)) broken("is no zip archive");
  const std::uint32_t count = number(end, at + 10, 2), size = number(end, at + 12, 4), offset = number(end, at + 16, 4);
  if (count == 0xffff || offset == 0xffffffff) broken("is a zip archive of 4 GiB or more, which is not read");
  const std::vector<std::byte> directory = bytes(offset, size, "its directory");
  at = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (directory.size() - at < entry_bytes || !has_signature(directory, at, 0x02014b50))
      broken("has a damaged directory");
    const std::size_t name = number(directory, at + 28, 2), extra = number(directory, at + 30, 2),
                      all = entry_bytes + name + extra + number(directory, at + 32, 2);
    if (directory.size() - at < all) broken("has a damaged directory");
    Member member{std::string(reinterpret_cast<const char*>(&directory[at]) + entry_bytes, name),
                  number(directory, at + 10, 2),
                  number(directory, at + 16),
                  number(directory, at + 20),
                  number(directory, at + 24),
                  number(directory, at + 42)};
    if (!widen(std::span(directory).subspan(at + entry_bytes + name, extra),
               {&member.size, &member.packed, &member.offset}))
      broken("has a damaged directory");
    members_.push_back(std::move(member));
    at += all;
  }
}

std::vector<std::byte> ZipFile::read(const std::string& name) {
  const auto member = std::ranges::find(members_, name, &Member::name);
  if (member == members_.end()) return {};
  const std::vector<std::byte> head = bytes(member->offset, local_bytes, name.c_str());
  if (!has_signature(head, 0, 0x04034b50)) broken(fmt::format("is damaged: {} does not begin where it should", name));
  const std::uint64_t begin = member->offset + local_bytes + number(head, 26, 2) + number(head, 28, 2);
  std::vector<std::byte> content = unpack(*member, bytes(begin, member->packed, name.c_str()));
  if (crc32_z(0, reinterpret_cast<const Bytef*>(content.data()), content.size()) != member->checksum)
    broken(fmt::format("is damaged: {} has another checksum", name));
  return content;
}

std::vector<std::byte> ZipFile::unpack(const Member& member, const std::vector<std::byte>& packed) const {
  constexpr std::uint64_t most_per_byte = 100, small = 1 << 28;
  constexpr std::uint32_t stored = 0, deflated = 8;
  if (member.method == stored && member.size == member.packed) return packed;
  if (member.method != deflated) broken(fmt::format("packs {} in a way that is not read", member.name));
  if (std::max<std::uint64_t>(member.size, packed.size()) >= 0xffffffff)
    broken(fmt::format("packs {} of 4 GiB or more, which is not read", member.name));
  if (member.size > std::max(small, most_per_byte * packed.size()))
    broken(fmt::format("unpacks {} to more than {} times its size", member.name, most_per_byte));
  std::vector<std::byte> content(member.size);
  z_stream stream{};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw std::bad_alloc();
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  std::byte none;  // zlib wants a place even for nothing
  stream.next_out = reinterpret_cast<Bytef*>(content.empty() ? &none : content.data());
  stream.avail_out = static_cast<uInt>(content.size());
  const int status = inflate(&stream, Z_FINISH);
  inflateEnd(&stream);
  if (status != Z_STREAM_END || stream.avail_out > 0)
    broken(fmt::format("is damaged: {} cannot be unpacked", member.name));
  return content;
}

}  // namespace halftone
