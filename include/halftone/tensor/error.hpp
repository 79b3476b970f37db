#pragma once
#include <stdexcept>
#include <string>

namespace halftone {

/// What every wrong use of the library throws: one sentence that names the node, option, file or tensor.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The file system or a file's content is at fault, not the call.
struct FileError : Error {
  using Error::Error;
};

[[noreturn]] inline void fail(const std::string& sentence) { throw Error(sentence); }

}  // namespace halftone
