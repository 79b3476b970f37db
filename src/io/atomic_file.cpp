#include "halftone/io/atomic_file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <random>
#include <string>
#include <system_error>
#include <utility>

#include "halftone/tensor/error.hpp"

namespace halftone {
namespace fs = std::filesystem;

namespace {

constexpr const char* marker = ".partial-";  // between a target's name and what nobody can foretell

std::string reason() { return std::generic_category().message(errno); }

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : "."; }

std::string unforeseeable() {
  std::random_device random;
  char digits[17];
  std::snprintf(digits, sizeof digits, "%08x%08x", random(), random());
  return digits;
}

/// Returns when the disk holds the names in a folder, as far as its file system can tell; false with errno where not.
bool flush_folder(const fs::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return errno == EACCES;  // writable, not readable
  const bool flushed = ::fsync(descriptor) == 0 || errno == EINVAL || errno == EROFS;
  const int error = errno;
  ::close(descriptor);
  errno = error;
  return flushed;
}

}  // namespace

// Whoever writes a partial file holds its lock, so one that can be locked is a dead process's.
void remove_leftovers(const fs::path& target) {
  const std::string prefix = target.filename().string() + marker;
  std::error_code error;
  for (fs::directory_iterator entry(folder_of(target), error), end; !error && entry != end; entry.increment(error)) {
    if (!entry->path().filename().string().starts_with(prefix)) continue;
    const int descriptor = ::open(entry->path().c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0) continue;
    struct stat status {};
    if (::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode) && ::flock(descriptor, LOCK_EX | LOCK_NB) == 0)
      ::unlink(entry->path().c_str());
    ::close(descriptor);
  }
}

PartialFile::PartialFile(fs::path target) : target_(std::move(target)) {
  std::error_code ignored;
  beside_ = !fs::exists(target_, ignored) || fs::is_regular_file(target_, ignored);
  if (beside_ && fs::is_symlink(target_, ignored)) target_ = place_of(target_);  // through, not over it
  if (beside_) {
    remove_leftovers(target_);
    open_beside();
  } else {
    path_ = target_;
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
  }
  if (descriptor_ < 0) give_up();
}

/// Under a name that was free, and locked before anybody can take it for a leftover.
void PartialFile::open_beside() {
  struct stat status {};
  do {
    if (descriptor_ >= 0) ::close(descriptor_);
    path_ = target_.string() + marker + unforeseeable();
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (descriptor_ >= 0) ::flock(descriptor_, LOCK_EX);
  } while (descriptor_ < 0 ? errno == EEXIST : ::fstat(descriptor_, &status) == 0 && status.st_nlink == 0);
}

PartialFile::~PartialFile() {
  if (beside_ && descriptor_ >= 0) ::unlink(path_.c_str());
  if (descriptor_ >= 0) ::close(descriptor_);
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
  if (beside_) {
    if (::fsync(descriptor_) != 0 || std::rename(path_.c_str(), target_.c_str()) != 0) give_up();
    beside_ = false;
    if (!flush_folder(folder_of(target_))) give_up();
  }
  if (::close(std::exchange(descriptor_, -1)) != 0) give_up();
}

void PartialFile::give_up() const { throw FileError("cannot write '" + target_.string() + "': " + reason()); }

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

void make_folder(const fs::path& folder) {
  std::error_code error;
  if (fs::is_directory(folder, error)) return;
  const fs::path above = folder_of(folder.has_filename() ? folder : folder.parent_path());
  if (above != folder) make_folder(above);
  fs::create_directory(folder, error);
  if (!fs::is_directory(folder) || !flush_folder(above))
    throw FileError("the folder '" + folder.string() + "' cannot be made: " + (error ? error.message() : reason()));
}

void write_file(const fs::path& path, std::span<const std::byte> content) {
  PartialFile file(path);
  file.append(content);
  file.publish();
}

void write_file(const fs::path& path, std::string_view content) { write_file(path, std::as_bytes(std::span(content))); }

FolderLock::FolderLock(const fs::path& folder)
    : descriptor_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (descriptor_ < 0) throw FileError("cannot open '" + folder.string() + "': " + reason());
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(descriptor_);
    throw Failure("the folder '" + folder.string() + "' is in use: another training writes into it");
  }
}

FolderLock::~FolderLock() { ::close(descriptor_); }

}  // namespace halftone
