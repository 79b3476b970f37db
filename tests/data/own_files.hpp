#pragma once
#include <zlib.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// PNG and JPEG files and NumPy archives.
namespace halftone::testing {

inline std::string little_endian(std::uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> 8 * i & 0xff);
  return text;
}

inline std::uint32_t checksum(const std::string& text) {
  return static_cast<std::uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(text.data()), text.size()));
}

inline std::string big_endian(std::uint32_t value) {
  const std::string text = little_endian(value, 4);
  return {text.rbegin(), text.rend()};
}

inline std::string png_chunk(const std::string& kind, const std::string& content) {
  return big_endian(static_cast<std::uint32_t>(content.size())) + kind + content + big_endian(checksum(kind + content));
}

/// A PNG file of `rows`, each after the byte of its filter, with chunks `before` them. `kind` is 0 (gray), 2 (RGB),
/// 3 (palette), 4 (gray with transparency) or 6 (RGB with transparency).
inline std::string png_of(std::uint32_t h, std::uint32_t w, int depth, int kind, const std::string& rows,
                          const std::string& before = "", bool interlaced = false) {
  uLongf size = compressBound(rows.size());
  std::string packed(size, '\0');
  compress(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(rows.data()), rows.size());
  packed.resize(size);
  const char facts[] = {static_cast<char>(depth), static_cast<char>(kind), 0, 0, static_cast<char>(interlaced)};
  return "\x89PNG\r\n\x1a\n" + png_chunk("IHDR", big_endian(w) + big_endian(h) + std::string(facts, 5)) + before +
         png_chunk("IDAT", packed) + png_chunk("IEND", "");
}

/// A PNG file of 8 bits a number; `channels` is 1 (gray), 3 (RGB) or 4 (with transparency).
inline std::string png(std::uint32_t h, std::uint32_t w, int channels, const std::vector<std::uint8_t>& pixels) {
  std::string rows;
  for (std::size_t y = 0, row = w * static_cast<std::size_t>(channels); y < h; ++y)
    rows += '\0' + std::string(pixels.begin() + static_cast<std::ptrdiff_t>(y * row),
                               pixels.begin() + static_cast<std::ptrdiff_t>((y + 1) * row));
  return png_of(h, w, 8, channels == 1 ? 0 : channels == 3 ? 2 : 6, rows);
}

inline std::string bytes_of(std::string_view hex) {
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  return bytes;
}

/// 16 x 8 pixels of (200, 30, 59), as Pillow packs and unpacks (200, 30, 60) at quality 90.
inline std::string jpeg() {
  constexpr std::string_view hex =
      "ffd8ffe000104a46494600010100000100010000ffdb0043000302020302020303030304030304050805050404050a070706080c0a0c0c0b"
      "0a0b0b0d0e12100d0e110e0b0b1016101113141515150c0f171816141812141514ffdb00430103040405040509050509140d0b0d14141414"
      "14141414141414141414141414141414141414141414141414141414141414141414141414141414141414141414ffc00011080008001003"
      "011100021101031101ffc4001500010100000000000000000000000000000007ffc40014100100000000000000000000000000000000ffc4"
      "00160101010100000000000000000000000000000608ffc40014110100000000000000000000000000000000ffda000c0301000211031100"
      "3f0085269b7407ffd9";
  return bytes_of(hex);
}

/// A NumPy array's file; versions from 2 on have room for headers of 2^16 bytes and more.
inline std::string npy(const std::string& type, const std::string& shape, const std::string& bytes,
                       const std::string& fortran = "False", char version = 1, std::size_t spaces = 0) {
  const std::string header = "{'descr': '" + type + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }" +
                             std::string(spaces, ' ') + "\n";
  return std::string("\x93NUMPY") + version + '\0' + little_endian(header.size(), version > 1 ? 4 : 2) + header + bytes;
}

/// A zip archive of members (name, content), packed or stored; `wide` writes sizes as Python does from 2^31 on.
inline std::string zip(const std::vector<std::pair<std::string, std::string>>& members, bool packed = false,
                       bool wide = false) {
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
    const auto facts = [&, &name = name, &content = content](bool in_extra) {
      return little_endian(20, 2) + little_endian(0, 2) + little_endian(packed ? 8 : 0, 2) + little_endian(0, 4) +
             little_endian(checksum(content), 4) + little_endian(in_extra ? 0xffffffff : stored.size(), 4) +
             little_endian(in_extra ? 0xffffffff : content.size(), 4) + little_endian(name.size(), 2) +
             little_endian(in_extra ? 27 : 0, 2);
    };
    // A foreign field, then that of the sizes.
    const std::string extra = little_endian(0x5455, 2) + little_endian(3, 2) + "abc" + little_endian(1, 2) +
                              little_endian(16, 2) + little_endian(content.size(), 8) + little_endian(stored.size(), 8);
    directory += "PK\1\2" + little_endian(20, 2) + facts(wide) + std::string(10, '\0') +
                 little_endian(archive.size(), 4) + name + (wide ? extra : "");
    archive += "PK\3\4" + facts(false) + name + stored;
  }
  return archive + directory + "PK\5\6" + std::string(4, '\0') + little_endian(members.size(), 2) +
         little_endian(members.size(), 2) + little_endian(directory.size(), 4) + little_endian(archive.size(), 4) +
         little_endian(0, 2);
}

}  // namespace halftone::testing
