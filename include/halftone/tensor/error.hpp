#pragma once
#include <stdexcept>
#include <string>
#include <utility>

namespace halftone {

/// What every wrong use of the library throws: one sentence that names the node, option, file or tensor.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The call is right, but memory, a network or a file does not give what it needs.
struct Failure : Error {
  using Error::Error;
};

/// The file system or a file's content is at fault, not the call.
struct FileError : Failure {
  using Failure::Failure;
};

[[noreturn]] inline void fail(const std::string& sentence) { throw Error(sentence); }

/// Calls f; an Error that it throws gets `name` and a colon put in front, if it does not begin with the name already.
/// What is a Failure remains one.
template <class F>
decltype(auto) naming(const std::string& name, F&& f) {
  const auto named = [&](const std::string& text) { return text.starts_with(name) ? text : name + ": " + text; };
  try {
    return std::forward<F>(f)();
  } catch (const Failure& failure) {
    throw Failure(named(failure.what()));
  } catch (const Error& error) {
    throw Error(named(error.what()));
  }
}

}  // namespace halftone
