#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "halftone/io/regular_file.hpp"

namespace halftone {

/// A zip archive of less than 4 GiB. Throws FileError naming the file and the member that is damaged, or that unpacks
/// to more than any images would.
class ZipFile {
 public:
  explicit ZipFile(std::filesystem::path path);

  /// The content of the member `name`; empty where there is none.
  std::vector<std::byte> read(const std::string& name);

  std::vector<std::string> names() const;
  [[noreturn]] void broken(const std::string& what) const;

 private:
  struct Member {
    std::string name;
    std::uint32_t method = 0, checksum = 0;
    std::uint64_t packed = 0, size = 0, offset = 0;
  };

  void read_directory();
  std::vector<std::byte> bytes(std::uint64_t offset, std::uint64_t size, const char* what);
  std::vector<std::byte> unpack(const Member& member, const std::vector<std::byte>& packed) const;

  RegularFile file_;
  std::vector<Member> members_;
};

}  // namespace halftone
