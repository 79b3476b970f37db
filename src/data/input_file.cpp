#include "src/data/input_file.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <new>

#include "halftone/tensor/error.hpp"

namespace halftone {
namespace {

/// Zeros shrink a thousandfold, images do not; what is small in memory does no harm.
constexpr std::uint64_t most_per_byte = 100, small = 1 << 28;

}  // namespace
InputFile::InputFile(std::filesystem::path path) : file_(std::move(path)) {
  if (file_.path().extension() != ".gz") return;
  constexpr int gzip_only = 16 + MAX_WBITS;
  unzip_ = std::make_unique<z_stream_s>();
  zipped_.resize(1 << 16);
  if (inflateInit2(unzip_.get(), gzip_only) != Z_OK) throw std::bad_alloc();
}

InputFile::~InputFile() {
  if (unzip_) inflateEnd(unzip_.get());
}

std::size_t InputFile::read(std::span<std::byte> to) { return unzip_ ? unzip(to) : file_.read(to); }

std::size_t InputFile::unzip(std::span<std::byte> to) {
  unzip_->next_out = reinterpret_cast<Bytef*>(to.data());
  unzip_->avail_out = static_cast<uInt>(to.size());
  while (unzip_->avail_out > 0) {
    if (unzip_->avail_in == 0) {
      unzip_->next_in = reinterpret_cast<Bytef*>(zipped_.data());
      unzip_->avail_in = static_cast<uInt>(file_.read(zipped_));
    }
    if (unzip_->avail_in == 0 && inside_) broken("is not a whole gzip file: it ends early");
    if (unzip_->avail_in == 0) break;
    if (behind_ && !inside_ && *unzip_->next_in == 0) {  // padding
      ++unzip_->next_in, --unzip_->avail_in;
      continue;
    }
    const int status = inflate(unzip_.get(), Z_NO_FLUSH);
    inside_ = status != Z_STREAM_END;
    behind_ = behind_ || !inside_;
    if (status == Z_STREAM_END)
      inflateReset(unzip_.get());
    else if (status != Z_OK && status != Z_BUF_ERROR)
      broken(fmt::format("is not a sound gzip file: {}", unzip_->msg ? unzip_->msg : zError(status)));
  }
  const std::size_t done = to.size() - unzip_->avail_out;
  unzipped_ += done;
  if (unzipped_ > std::max(small, most_per_byte * file_.size()))
    broken(fmt::format("unpacks to more than {} times its size", most_per_byte));
  return done;
}

void InputFile::broken(const std::string& what) const { throw FileError(file_.path().string() + " " + what); }

}  // namespace halftone
