#pragma once
#include <cmath>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace halftone {

/// The finite decimal number that all of `text` spells, or nothing.
std::optional<double> parse_number(std::string_view text);

/// Whether `x` is 0 or a normal number in f32.
inline bool fits_f32(double x) {
  using Limits = std::numeric_limits<float>;
  return x == 0 || (std::abs(x) >= (Limits::min)() && std::abs(x) <= (Limits::max)());
}

bool is_utf8(std::string_view text);

/// What stands between the marks in `text`, at least one part.
inline std::vector<std::string_view> parts(std::string_view text, char mark) {
  std::vector<std::string_view> all;
  for (std::size_t begin = 0, end = 0; end != std::string_view::npos; begin = end + 1) {
    end = text.find(mark, begin);
    all.push_back(text.substr(begin, end - begin));
  }
  return all;
}

/// "a, b and c", where `last_separator` is " and ".
inline std::string listed(std::span<const std::string_view> names, std::string_view last_separator) {
  std::string list;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i > 0) list += i + 1 < names.size() ? ", " : last_separator;
    list += names[i];
  }
  return list;
}

}  // namespace halftone
