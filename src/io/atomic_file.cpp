#include "halftone/io/atomic_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <system_error>
#include <utility>

#include "halftone/tensor/error.hpp"

namespace halftone {
namespace {

/// A file being written under a temporary name, which goes away again unless it is published.
class PartialFile {
 public:
  explicit PartialFile(std::filesystem::path target) : target_(std::move(target)) {
    std::error_code ignored;
    beside_ = !std::filesystem::exists(target_, ignored) || std::filesystem::is_regular_file(target_, ignored);
    if (beside_ && std::filesystem::is_symlink(target_, ignored)) target_ = place_of(target_);  // through, not over it
    name_ = target_.string() + (beside_ ? ".partial-" + std::to_string(::getpid()) : "");
    descriptor_ = ::open(name_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor_ < 0) give_up();
  }
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;
  ~PartialFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (beside_) ::unlink(name_.c_str());
  }

  void append(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) give_up();
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
  }

  void publish() {
    if (beside_ && ::fsync(descriptor_) != 0) give_up();
    if (::close(std::exchange(descriptor_, -1)) != 0) give_up();
    if (beside_ && std::rename(name_.c_str(), target_.c_str()) != 0) give_up();
    beside_ = false;
  }

 private:
  [[noreturn]] void give_up() const {
    throw FileError("cannot write '" + target_.string() + "': " + std::generic_category().message(errno));
  }

  std::filesystem::path target_;
  std::string name_;
  int descriptor_ = -1;
  bool beside_ = true;
};

}  // namespace

std::filesystem::path place_of(const std::filesystem::path& path) {
  namespace fs = std::filesystem;
  constexpr int most_links = 40;  // of Linux
  std::error_code error;
  fs::path place = path;
  for (int i = 0; !fs::exists(place, error) && fs::is_symlink(place, error); ++i) {
    if (i == most_links) throw FileError("cannot write '" + path.string() + "': its links lead in a circle");
    place = place.parent_path() / fs::read_symlink(place, error);
  }
  const fs::path whole = fs::absolute(place, error);
  if (error) return place;
  const fs::path real = fs::weakly_canonical(whole, error);
  return error ? whole : real;
}

void write_file(const std::filesystem::path& path, std::span<const std::byte> content) {
  PartialFile file(path);
  file.append(content);
  file.publish();
}

void write_file(const std::filesystem::path& path, std::string_view content) {
  write_file(path, std::as_bytes(std::span(content)));
}

}  // namespace halftone
