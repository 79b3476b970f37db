#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "halftone/io/regular_file.hpp"

struct z_stream_s;

namespace halftone {

/// The bytes of a file from its first to its last, unzipped where its name ends in .gz. Throws FileError naming the
/// file, also where its gzip streams are cut off, damaged or followed by anything but zeros, and where a small file
/// unpacks to more than any images would.
class InputFile {
 public:
  explicit InputFile(std::filesystem::path path);
  ~InputFile();

  std::uint64_t size() const { return file_.size(); }  ///< of the file as it lies there

  /// Fills `to`, and returns how many bytes it got: fewer only at the end.
  std::size_t read(std::span<std::byte> to);

  [[noreturn]] void broken(const std::string& what) const;

 private:
  std::size_t unzip(std::span<std::byte> to);

  RegularFile file_;
  std::unique_ptr<z_stream_s> unzip_;  // none: a plain file
  std::vector<std::byte> zipped_;
  bool inside_ = false, behind_ = false;  // a gzip stream; at least one
  std::uint64_t unzipped_ = 0;
};

}  // namespace halftone
