#pragma once
#include <string>

namespace halftone::cli {

/// Puts one line of at most 400 characters on stderr; where that cannot be written nothing happens.
void complain(std::string text);

}  // namespace halftone::cli
