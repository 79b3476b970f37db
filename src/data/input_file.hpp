#pragma once
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <vector>

struct z_stream_s;

namespace halftone {

/// The size of a file. Throws FileError naming it where it is absent or none that has an end, as a pipe.
std::uintmax_t size_of_file(const std::filesystem::path& path);

/// The bytes of a file from its first to its last, unzipped where its name ends in .gz. Throws FileError naming the
/// file, also where its gzip streams are cut off, damaged or followed by anything else.
class InputFile {
 public:
  explicit InputFile(std::filesystem::path path);
  ~InputFile();

  /// Fills `to`, and returns how many bytes it got: fewer only at the end.
  std::size_t read(std::span<std::byte> to);

  [[noreturn]] void broken(const std::string& what) const;

 private:
  std::size_t read_plain(std::span<std::byte> to);
  std::size_t unzip(std::span<std::byte> to);

  std::filesystem::path path_;
  std::ifstream stream_;
  std::unique_ptr<z_stream_s> unzip_;  // none: a plain file
  std::vector<std::byte> zipped_;
  bool inside_ = false;  // a gzip stream
};

}  // namespace halftone
