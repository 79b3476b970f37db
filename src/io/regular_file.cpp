#include "halftone/io/regular_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "halftone/tensor/error.hpp"

namespace halftone {

RegularFile::RegularFile(std::filesystem::path path)
    : path_(std::move(path)), descriptor_(::open(path_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {
  struct stat status {};
  if (descriptor_ < 0 || ::fstat(descriptor_, &status) != 0) refuse("cannot be opened");
  errno = 0;
  const bool folder = S_ISDIR(status.st_mode);
  if (!S_ISREG(status.st_mode)) ::close(descriptor_), refuse(folder ? "is a folder" : "is not a regular file");
  size_ = static_cast<std::uint64_t>(status.st_size);
}

RegularFile::~RegularFile() { ::close(descriptor_); }

template <class Read>
std::size_t RegularFile::fill(std::span<std::byte> to, Read&& read_some) {
  std::size_t done = 0;
  while (done < to.size()) {
    const ssize_t got = read_some(to.data() + done, to.size() - done, done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) refuse("cannot be read");
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

std::size_t RegularFile::read(std::span<std::byte> to) {
  return fill(to, [this](void* at, std::size_t size, std::size_t) { return ::read(descriptor_, at, size); });
}

std::size_t RegularFile::read_at(std::uint64_t offset, std::span<std::byte> to) {
  return fill(to, [&](void* at, std::size_t size, std::size_t done) {
    return ::pread(descriptor_, at, size, static_cast<off_t>(offset + done));
  });
}

void RegularFile::refuse(const char* why) const {
  const std::string reason = errno != 0 ? ": " + std::generic_category().message(errno) : "";
  throw FileError(path_.string() + " " + why + reason);
}

std::string checksum_of_file(const std::filesystem::path& path) {
  RegularFile file(path);
  std::vector<std::byte> part(1 << 16);
  uLong crc = 0;
  while (const std::size_t bytes = file.read(part))
    crc = ::crc32_z(crc, reinterpret_cast<const Bytef*>(part.data()), bytes);
  return fmt::format("{:08x}", crc);
}

}  // namespace halftone
