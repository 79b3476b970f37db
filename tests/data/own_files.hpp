#pragma once
#include <zlib.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

// PNG files and NumPy archives, written by hand.
namespace halftone::testing {

inline std::string little_endian(std::uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> 8 * i & 0xff);
  return text;
}

inline std::uint32_t checksum(const std::string& text) {
  return static_cast<std::uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(text.data()), text.size()));
}

/// A PNG file of 8 bits a number; `channels` is 1 (gray), 3 (RGB) or 4 (with transparency).
inline std::string png(std::uint32_t h, std::uint32_t w, int channels, const std::vector<std::uint8_t>& pixels) {
  const auto big_endian = [](std::uint32_t value) {
    const std::string text = little_endian(value, 4);
    return std::string(text.rbegin(), text.rend());
  };
  const auto chunk = [&](const std::string& kind, const std::string& content) {
    return big_endian(static_cast<std::uint32_t>(content.size())) + kind + content +
           big_endian(checksum(kind + content));
  };
  std::string rows;
  for (std::size_t y = 0, row = w * static_cast<std::size_t>(channels); y < h; ++y)
    rows += '\0' + std::string(pixels.begin() + static_cast<std::ptrdiff_t>(y * row),
                               pixels.begin() + static_cast<std::ptrdiff_t>((y + 1) * row));
  uLongf size = compressBound(rows.size());
  std::string packed(size, '\0');
  compress(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(rows.data()), rows.size());
  packed.resize(size);
  const char kind = channels == 1 ? 0 : channels == 3 ? 2 : 6;
  return "\x89PNG\r\n\x1a\n" + chunk("IHDR", big_endian(w) + big_endian(h) + '\x8' + kind + std::string(3, '\0')) +
         chunk("IDAT", packed) + chunk("IEND", "");
}

/// A NumPy array's file.
inline std::string npy(const std::string& type, const std::string& shape, const std::string& bytes,
                       const std::string& fortran = "False") {
  const std::string header = "{'descr': '" + type + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }\n";
  return "\x93NUMPY\x01" + std::string(1, '\0') + little_endian(header.size(), 2) + header + bytes;
}

/// A zip archive of members (name, content), packed or stored.
inline std::string zip(const std::vector<std::pair<std::string, std::string>>& members, bool packed = false) {
  std::string archive, directory;
  for (const auto& [name, content] : members) {
    std::string stored = content;
    if (packed) {
      stored.resize(compressBound(content.size()) + 64);
      z_stream stream{};
      deflateInit2(&stream, 6, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
      stream.avail_in = static_cast<uInt>(content.size());
      stream.next_out = reinterpret_cast<Bytef*>(stored.data());
      stream.avail_out = static_cast<uInt>(stored.size());
      deflate(&stream, Z_FINISH);
      stored.resize(stream.total_out);
      deflateEnd(&stream);
    }
    const std::string facts = little_endian(20, 2) + little_endian(0, 2) + little_endian(packed ? 8 : 0, 2) +
                              little_endian(0, 4) + little_endian(checksum(content), 4) +
                              little_endian(stored.size(), 4) + little_endian(content.size(), 4) +
                              little_endian(name.size(), 2) + little_endian(0, 2);
    directory +=
        "PK\1\2" + little_endian(20, 2) + facts + std::string(10, '\0') + little_endian(archive.size(), 4) + name;
    archive += "PK\3\4" + facts + name + stored;
  }
  return archive + directory + "PK\5\6" + std::string(4, '\0') + little_endian(members.size(), 2) +
         little_endian(members.size(), 2) + little_endian(directory.size(), 4) + little_endian(archive.size(), 4) +
         little_endian(0, 2);
}

}  // namespace halftone::testing
