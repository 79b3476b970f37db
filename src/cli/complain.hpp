#pragma once
#include <algorithm>
#include <cstdio>
#include <string>

namespace halftone::cli {

/// Puts one line of at most 400 characters on stderr; where that cannot be written nothing happens. Returns `status`.
inline int complain(int status, std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  constexpr std::size_t most = 380;
  if (text.size() > most) text = text.substr(0, most) + "...";
  std::fprintf(stderr, "halftone: %s\n", text.c_str());
  return status;
}

}  // namespace halftone::cli
