#pragma once
#include <zlib.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "halftone/tensor/error.hpp"
#include "tests/io/temporary_folder.hpp"

namespace halftone::testing {

/// Sets an environment variable (an empty value removes it) until the end of a test.
class Environment {
 public:
  Environment(const char* name, const std::string& value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    set(value);
  }
  ~Environment() { set(before_); }

 private:
  void set(const std::string& value) {
    if (value.empty())
      unsetenv(name_);
    else
      setenv(name_, value.c_str(), 1);
  }

  const char* name_;
  std::string before_;
};

inline void write(const std::filesystem::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

inline std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_gz(const std::filesystem::path& path, const std::string& content) {
  const gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, content.data(), static_cast<unsigned>(content.size()));
  gzclose(file);
}

/// What the FileError (and no other error) says that `act` throws.
inline std::string file_error(const std::function<void()>& act) {
  try {
    act();
  } catch (const FileError& error) {
    return error.what();
  }
  return "no error";
}

/// What the Error says that `act` throws.
inline std::string error(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// The folder of a real data set under $HALFTONE_DATA, or an empty path.
inline std::filesystem::path real_data(const std::string& name, const std::string& file) {
  const char* root = std::getenv("HALFTONE_DATA");
  const std::filesystem::path dir = root ? std::filesystem::path(root) / name : std::filesystem::path();
  return root && std::filesystem::exists(dir / file) ? dir : std::filesystem::path();
}

}  // namespace halftone::testing
