#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace halftone {

inline constexpr std::string_view base64_digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes as text (RFC 4648), without padding.
inline std::string to_base64(std::string_view bytes) {
  std::string text;
  unsigned pending = 0;
  int bits = 0;
  for (const char byte : bytes) {
    pending = pending << 8 | static_cast<unsigned char>(byte);
    for (bits += 8; bits >= 6; bits -= 6) text += base64_digits[pending >> (bits - 6) & 63];
  }
  if (bits > 0) text += base64_digits[pending << (6 - bits) & 63];
  return text;
}

/// Nothing where the text holds another character.
inline std::optional<std::string> from_base64(std::string_view text) {
  std::string bytes;
  unsigned pending = 0;
  int bits = 0;
  for (const char digit : text) {
    const std::size_t value = base64_digits.find(digit);
    if (value == std::string_view::npos) return {};
    pending = pending << 6 | static_cast<unsigned>(value);
    bits += 6;
    if (bits >= 8) bytes += static_cast<char>(pending >> (bits -= 8) & 255);
  }
  return bytes;
}

}  // namespace halftone
