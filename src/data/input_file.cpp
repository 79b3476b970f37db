#include "src/data/input_file.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <cerrno>
#include <new>
#include <system_error>

#include "halftone/tensor/error.hpp"

namespace halftone {
namespace fs = std::filesystem;

std::uintmax_t size_of_file(const fs::path& path) {
  std::error_code error;
  const fs::file_type type = fs::status(path, error).type();
  if (type == fs::file_type::directory) throw FileError(path.string() + " is a folder");
  if (fs::exists(path, error) && type != fs::file_type::regular)
    throw FileError(path.string() + " is not a regular file");
  const std::uintmax_t size = fs::file_size(path, error);
  if (error) throw FileError(fmt::format("{} cannot be opened: {}", path.string(), error.message()));
  return size;
}

InputFile::InputFile(fs::path path) : path_(std::move(path)) {
  size_of_file(path_);
  stream_.open(path_, std::ios::binary);
  if (!stream_) broken("cannot be opened: " + std::generic_category().message(errno));
  if (path_.extension() != ".gz") return;
  constexpr int gzip_only = 16 + MAX_WBITS;
  unzip_ = std::make_unique<z_stream_s>();
  zipped_.resize(1 << 16);
  if (inflateInit2(unzip_.get(), gzip_only) != Z_OK) throw std::bad_alloc();
}

InputFile::~InputFile() {
  if (unzip_) inflateEnd(unzip_.get());
}

std::size_t InputFile::read(std::span<std::byte> to) { return unzip_ ? unzip(to) : read_plain(to); }

std::size_t InputFile::read_plain(std::span<std::byte> to) {
  stream_.read(reinterpret_cast<char*>(to.data()), static_cast<std::streamsize>(to.size()));
  if (stream_.bad()) broken("cannot be read");
  return static_cast<std::size_t>(stream_.gcount());
}

std::size_t InputFile::unzip(std::span<std::byte> to) {
  unzip_->next_out = reinterpret_cast<Bytef*>(to.data());
  unzip_->avail_out = static_cast<uInt>(to.size());
  while (unzip_->avail_out > 0) {
    if (unzip_->avail_in == 0) {
      unzip_->next_in = reinterpret_cast<Bytef*>(zipped_.data());
      unzip_->avail_in = static_cast<uInt>(read_plain(zipped_));
    }
    if (unzip_->avail_in == 0 && inside_) broken("is not a whole gzip file: it ends early");
    if (unzip_->avail_in == 0) break;
    const int status = inflate(unzip_.get(), Z_NO_FLUSH);
    inside_ = status != Z_STREAM_END;
    if (status == Z_STREAM_END)
      inflateReset(unzip_.get());
    else if (status != Z_OK && status != Z_BUF_ERROR)
      broken(fmt::format("is not a sound gzip file: {}", unzip_->msg ? unzip_->msg : zError(status)));
  }
  return to.size() - unzip_->avail_out;
}

void InputFile::broken(const std::string& what) const { throw FileError(path_.string() + " " + what); }

}  // namespace halftone
