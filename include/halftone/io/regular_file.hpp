#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace halftone {

/// A file open for reading: the same one from the first byte to the last, whatever takes its name meanwhile. Throws
/// FileError naming it where it is absent, unreadable or nothing that has an end, as a pipe.
class RegularFile {
 public:
  explicit RegularFile(std::filesystem::path path);
  RegularFile(const RegularFile&) = delete;
  RegularFile& operator=(const RegularFile&) = delete;
  ~RegularFile();

  const std::filesystem::path& path() const { return path_; }
  std::uint64_t size() const { return size_; }  ///< when it was opened

  /// Fills `to`, and returns how many bytes it got: fewer only at the end.
  std::size_t read(std::span<std::byte> to);

  /// The same from the byte `offset` on; what `read` does next stays as it was.
  std::size_t read_at(std::uint64_t offset, std::span<std::byte> to);

 private:
  template <class Read>
  std::size_t fill(std::span<std::byte> to, Read&& read_some);
  [[noreturn]] void refuse(const char* why) const;

  std::filesystem::path path_;
  int descriptor_;
  std::uint64_t size_ = 0;
};

/// CRC-32 of a file's content, in eight hexadecimal digits.
std::string checksum_of_file(const std::filesystem::path& path);

}  // namespace halftone
