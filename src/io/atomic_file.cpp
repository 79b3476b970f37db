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
namespace fs = std::filesystem;

PartialFile::PartialFile(fs::path target) : target_(std::move(target)) {
  std::error_code ignored;
  beside_ = !fs::exists(target_, ignored) || fs::is_regular_file(target_, ignored);
  if (beside_ && fs::is_symlink(target_, ignored)) target_ = place_of(target_);  // through, not over it
  path_ = target_.string() + (beside_ ? ".partial-" + std::to_string(::getpid()) : "");
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) give_up();
}

PartialFile::~PartialFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (beside_) ::unlink(path_.c_str());
}

void PartialFile::append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) give_up();
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void PartialFile::publish() {
  if (beside_ && ::fsync(descriptor_) != 0) give_up();
  if (::close(std::exchange(descriptor_, -1)) != 0) give_up();
  if (beside_ && std::rename(path_.c_str(), target_.c_str()) != 0) give_up();
  beside_ = false;
}

void PartialFile::give_up() const {
  throw FileError("cannot write '" + target_.string() + "': " + std::generic_category().message(errno));
}

fs::path place_of(const fs::path& path) {
  constexpr int most_links = 40;  // of Linux
  std::error_code error;
  fs::path place = path;
  for (int i = 0; !fs::exists(place, error) && fs::is_symlink(place, error); ++i) {
    if (i == most_links) throw FileError("cannot write '" + path.string() + "': its links lead in a circle");
    place = place.parent_path() / fs::read_symlink(place, error);
  }
  const fs::path absolute = fs::absolute(place, error);
  if (error) return place;
  const fs::path canonical = fs::weakly_canonical(absolute, error);
  return error ? absolute : canonical;
}

void write_file(const fs::path& path, std::span<const std::byte> content) {
  PartialFile file(path);
  file.append(content);
  file.publish();
}

void write_file(const fs::path& path, std::string_view content) { write_file(path, std::as_bytes(std::span(content))); }

}  // namespace halftone
