#pragma once
#include <fuzzer/FuzzedDataProvider.h>
#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "halftone/tensor/error.hpp"

namespace halftone::fuzz {

/// A folder of this process, in memory where there is such a place.
inline const std::filesystem::path& folder() {
  static const std::filesystem::path path = [] {
    const char* memory = "/dev/shm";
    std::string name =
        (std::filesystem::is_directory(memory) ? memory : std::filesystem::temp_directory_path().string()) +
        "/halftone-fuzz-XXXXXX";
    if (!::mkdtemp(name.data())) std::abort();
    static std::string gone;
    gone = name;
    std::atexit([] { std::filesystem::remove_all(gone); });
    return std::filesystem::path(name);
  }();
  return path;
}

inline void write(const std::filesystem::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

inline void write_gz(const std::filesystem::path& path, const std::string& content) {
  const gzFile file = gzopen(path.c_str(), "wb1");
  gzwrite(file, content.data(), static_cast<unsigned>(content.size()));
  gzclose(file);
}

/// Calls f. An Error is a right answer to a wrong input, if it is one short line; false then.
template <class F>
bool answered(F&& f) {
  try {
    f();
    return true;
  } catch (const Error& error) {
    if (std::string(error.what()).empty()) std::abort();
    return false;
  }
}

inline void expect(bool holds) {
  if (!holds) std::abort();
}

}  // namespace halftone::fuzz
