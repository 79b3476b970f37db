#include "halftone/data/image.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <new>

#include "halftone/io/regular_file.hpp"
#include "src/data/decode_image.hpp"
#ifdef HALFTONE_HAS_PNG
#include <png.h>
#endif
#ifdef HALFTONE_HAS_JPEG
#include <jerror.h>
#include <jpeglib.h>
#endif

namespace halftone {
namespace {

constexpr std::int64_t channels = 3;

using Bytes = std::span<const std::byte>;

/// Allocates the pixels that a file's header tells of, if the file may hold as many.
[[maybe_unused]] Pixels pixels_of(std::int64_t h, std::int64_t w, Bytes file) {
  constexpr std::int64_t small = 1 << 24, most_per_byte = 100;
  if (h < 1 || w < 1 || h > std::max(small, most_per_byte * std::ssize(file)) / w)
    throw FileError(fmt::format("tells of {} x {} pixels in {} bytes", w, h, file.size()));
  return {h, w, std::vector<std::uint8_t>(static_cast<std::size_t>(h * w * channels))};
}

// Both libraries leave by longjmp, so no function that they may leave has anything to destroy.

#ifdef HALFTONE_HAS_PNG
class Png {
 public:
  explicit Png(Bytes file)
      : rest_(file),
        png_(png_create_read_struct(PNG_LIBPNG_VER_STRING, this, give_up, [](png_structp, const char*) {})) {
    if (png_) info_ = png_create_info_struct(png_);
    if (!info_) png_destroy_read_struct(&png_, nullptr, nullptr), throw std::bad_alloc();
    png_set_read_fn(png_, this, read);
  }
  ~Png() { png_destroy_read_struct(&png_, &info_, nullptr); }
  Png(const Png&) = delete;
  Png& operator=(const Png&) = delete;

  bool begin() {
    if (setjmp(png_jmpbuf(png_))) return false;
    png_read_info(png_, info_);
    return true;
  }

  bool decode(std::uint8_t* to) {
    if (setjmp(png_jmpbuf(png_))) return false;
    png_set_expand(png_), png_set_scale_16(png_), png_set_gray_to_rgb(png_), png_set_strip_alpha(png_);
    const int passes = png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    const std::size_t row = png_get_rowbytes(png_, info_);
    for (int pass = 0; pass < passes; ++pass)
      for (std::uint32_t y = 0; y < height(); ++y) png_read_row(png_, to + y * row, nullptr);
    return true;
  }

  std::uint32_t height() const { return png_get_image_height(png_, info_); }
  std::uint32_t width() const { return png_get_image_width(png_, info_); }
  const char* why() const { return why_; }

 private:
  static void read(png_structp png, png_bytep to, std::size_t size) {
    auto* self = static_cast<Png*>(png_get_io_ptr(png));
    if (size > self->rest_.size()) png_error(png, "it ends early");
    std::memcpy(to, self->rest_.data(), size);
    self->rest_ = self->rest_.subspan(size);
  }
  [[noreturn]] static void give_up(png_structp png, const char* why) {
    std::snprintf(static_cast<Png*>(png_get_error_ptr(png))->why_, sizeof why_, "%s", why);
    png_longjmp(png, 1);
  }

  Bytes rest_;
  char why_[256] = {};
  png_structp png_;
  png_infop info_ = nullptr;
};

Pixels decode_png(Bytes file) {
  Png png(file);
  const auto need = [&](bool good) {
    if (!good) throw FileError(fmt::format("is no sound PNG: {}", png.why()));
  };
  need(png.begin());
  Pixels pixels = pixels_of(png.height(), png.width(), file);
  need(png.decode(pixels.rgb.data()));
  return pixels;
}
#endif

#ifdef HALFTONE_HAS_JPEG
struct Jpeg : jpeg_decompress_struct {
  Jpeg() : jpeg_decompress_struct{} {
    err = jpeg_std_error(&errors);
    errors.error_exit = give_up;
    errors.emit_message = [](j_common_ptr jpeg, int level) {
      const int what = jpeg->err->msg_code;
      const bool harmless = what == JWRN_JFIF_MAJOR || what == JWRN_ADOBE_XFORM || what == JWRN_EXTRANEOUS_DATA;
      if (level < 0 && !harmless) give_up(jpeg);  // damaged data, which it would make up
    };
    jpeg_create_decompress(this);
    watch.progress_monitor = [](j_common_ptr jpeg) {
      constexpr int most_scans = 100;  // each takes time, hardly any bytes
      auto* self = static_cast<Jpeg*>(reinterpret_cast<jpeg_decompress_struct*>(jpeg));
      if (self->input_scan_number <= most_scans) return;
      std::snprintf(self->why, sizeof why, "it has more than %d scans", most_scans);
      std::longjmp(self->back, 1);
    };
    progress = &watch;
  }
  ~Jpeg() { jpeg_destroy_decompress(this); }

  bool begin(Bytes file) {
    if (setjmp(back)) return false;
    jpeg_mem_src(this, reinterpret_cast<const unsigned char*>(file.data()), file.size());
    jpeg_read_header(this, TRUE);
    return true;
  }

  bool decode(std::uint8_t* to) {
    if (setjmp(back)) return false;
    out_color_space = JCS_RGB;
    dct_method = JDCT_ISLOW;
    jpeg_start_decompress(this);
    while (output_scanline < output_height) {
      JSAMPROW row = to + static_cast<std::size_t>(output_scanline) * image_width * channels;
      jpeg_read_scanlines(this, &row, 1);
    }
    jpeg_finish_decompress(this);
    return true;
  }

  [[noreturn]] static void give_up(j_common_ptr jpeg) {
    auto* self = static_cast<Jpeg*>(reinterpret_cast<jpeg_decompress_struct*>(jpeg));
    jpeg->err->format_message(jpeg, self->why);
    std::longjmp(self->back, 1);
  }

  jpeg_error_mgr errors = {};
  jpeg_progress_mgr watch = {};
  std::jmp_buf back = {};
  char why[JMSG_LENGTH_MAX] = {};
};

Pixels decode_jpeg(Bytes file) {
  Jpeg jpeg;
  const auto need = [&](bool good) {
    if (!good) throw FileError(fmt::format("is no sound JPEG: {}", jpeg.why));
  };
  need(jpeg.begin(file));
  if (jpeg.jpeg_color_space == JCS_CMYK || jpeg.jpeg_color_space == JCS_YCCK)
    throw FileError("is CMYK, which is not read");
  Pixels pixels = pixels_of(jpeg.image_height, jpeg.image_width, file);
  need(jpeg.decode(pixels.rgb.data()));
  return pixels;
}
#endif

[[maybe_unused]] Pixels absent(Bytes) { throw FileError("is of a format that this build of Halftone does not read"); }

struct Format {
  const char* name;
  std::string_view begins;
  Pixels (*decode)(Bytes);
};

constexpr Format formats[] = {
#ifdef HALFTONE_HAS_PNG
    {"png", "\x89PNG", decode_png},
#else
    {"png", "\x89PNG", absent},
#endif
#ifdef HALFTONE_HAS_JPEG
    {"jpeg", "\xff\xd8\xff", decode_jpeg},
#else
    {"jpeg", "\xff\xd8\xff", absent},
#endif
};

/// How much each pixel of a line counts for one pixel of a shorter or longer one.
struct Taps {
  std::int64_t first = 0;
  std::vector<float> weights;
};

/// For `to` pixels that cover `length` of `from` pixels in the middle: triangles as wide as a pixel of the result, and
/// no narrower than one of the source.
std::vector<Taps> taps_of(std::int64_t from, double length, std::int64_t to) {
  const double step = length / static_cast<double>(to), reach = std::max(step, 1.0),
               begin = (static_cast<double>(from) - length) / 2;
  std::vector<Taps> all;
  for (std::int64_t i = 0; i < to; ++i) {
    const double center = begin + (static_cast<double>(i) + 0.5) * step;
    const auto first = std::max<std::int64_t>(0, static_cast<std::int64_t>(std::floor(center - reach + 0.5))),
               last = std::min(from, static_cast<std::int64_t>(std::floor(center + reach + 0.5)));
    Taps taps{first, {}};
    double sum = 0;
    for (std::int64_t x = first; x < last; ++x) {
      const double weight = std::max(0.0, 1 - std::abs(static_cast<double>(x) + 0.5 - center) / reach);
      taps.weights.push_back(static_cast<float>(weight));
      sum += weight;
    }
    for (float& weight : taps.weights) weight = static_cast<float>(weight / sum);
    all.push_back(std::move(taps));
  }
  return all;
}

std::uint8_t byte_of(float x) { return static_cast<std::uint8_t>(std::clamp(std::lround(x), 0l, 255l)); }

constexpr const char* unknown = "is neither PNG nor JPEG";

const Format* format_of(Bytes file) {
  for (const Format& format : formats)
    if (file.size() >= format.begins.size() &&
        std::memcmp(file.data(), format.begins.data(), format.begins.size()) == 0)
      return &format;
  return nullptr;
}

std::vector<std::byte> content_of(const std::filesystem::path& path) {
  constexpr std::uint64_t most = 1 << 28;
  RegularFile file(path);
  std::vector<std::byte> bytes(4);
  bytes.resize(file.read_at(0, bytes));
  if (!format_of(bytes)) throw FileError(path.string() + " " + unknown);
  if (file.size() > most)
    throw FileError(fmt::format("{} has {} bytes, of which images have at most {}", path.string(), file.size(), most));
  bytes.resize(file.size());
  bytes.resize(file.read(bytes));
  return bytes;
}

}  // namespace

std::string image_formats() {
  std::string names;
  for (const Format& format : formats)
    if (format.decode != absent) names += (names.empty() ? "" : ", ") + std::string(format.name);
  return names;
}

Pixels decode_image(std::span<const std::byte> file) {
  if (const Format* format = format_of(file)) return format->decode(file);
  throw FileError(unknown);
}

void fit(const Pixels& pixels, const Shape& image, std::uint8_t* to) {
  const auto h = static_cast<double>(pixels.h), w = static_cast<double>(pixels.w),
             ratio = static_cast<double>(image.w) / static_cast<double>(image.h);
  const auto columns = taps_of(pixels.w, std::min(w, h * ratio), image.w),
             rows = taps_of(pixels.h, std::min(h, w / ratio), image.h);
  const auto width = static_cast<std::size_t>(image.w * channels);
  std::vector<float> sums(static_cast<std::size_t>(image.h) * width), line(width);
  std::size_t begin = 0;  // the first row of the result that the rest of the source counts for
  for (std::int64_t y = rows.front().first; begin < rows.size(); ++y) {
    const std::uint8_t* source = pixels.rgb.data() + y * pixels.w * channels;
    for (std::size_t x = 0; x < columns.size(); ++x) {
      float sum[channels] = {};
      const std::uint8_t* from = source + columns[x].first * channels;
      for (const float weight : columns[x].weights)
        for (float& channel : sum) channel += weight * static_cast<float>(*from++);
      std::copy_n(sum, channels, &line[x * channels]);
    }
    for (std::size_t row = begin; row < rows.size() && rows[row].first <= y; ++row) {
      const std::int64_t tap = y - rows[row].first;
      if (tap >= std::ssize(rows[row].weights)) continue;
      for (std::size_t i = 0; i < width; ++i)
        sums[row * width + i] += rows[row].weights[static_cast<std::size_t>(tap)] * line[i];
      if (tap + 1 == std::ssize(rows[row].weights)) begin = row + 1;
    }
  }
  if (image.c == channels) {
    std::ranges::transform(sums, to, byte_of);
  } else {
    for (std::size_t i = 0; i < sums.size(); i += channels)
      *to++ = byte_of(0.299f * sums[i] + 0.587f * sums[i + 1] + 0.114f * sums[i + 2]);
  }
}

void check_image(const Shape& image) {
  constexpr std::int64_t most = 65536;
  if (image.n != 1 || image.h < 1 || image.w < 1 || image.h > most || image.w > most || (image.c != 1 && image.c != 3))
    fail(fmt::format("image {}x{}x{}: an image is HEIGHTxWIDTH, or HEIGHTxWIDTHx1 where it is gray", image.h, image.w,
                     image.c));
}

std::vector<std::uint8_t> read_image(const std::filesystem::path& file, const Shape& image) {
  check_image(image);
  try {
    std::vector<std::uint8_t> result(static_cast<std::size_t>(image.elements()));
    const std::vector<std::byte> bytes = content_of(file);
    try {
      fit(decode_image(bytes), image, result.data());
    } catch (const FileError& error) {
      throw FileError(file.string() + " " + error.what());
    }
    return result;
  } catch (const std::bad_alloc&) {
    throw FileError(file.string() + " needs more memory than there is");
  }
}

}  // namespace halftone
