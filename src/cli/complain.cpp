#include "cli/complain.hpp"

#include <algorithm>
#include <cstdio>

namespace halftone::cli {

void complain(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  constexpr std::size_t most = 380;
  if (text.size() > most) text = text.substr(0, most) + "...";
  std::fprintf(stderr, "halftone: %s\n", text.c_str());
}

}  // namespace halftone::cli
