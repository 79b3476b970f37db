#include "halftone/data/image.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstring>

#include "halftone/io/regular_file.hpp"
#include "src/data/decode_image.hpp"
#ifdef HALFTONE_HAS_PNG
#include <png.h>
#endif
#ifdef HALFTONE_HAS_JPEG
#include <jpeglib.h>
#endif

namespace halftone {
namespace {

constexpr std::int64_t channels = 3;

using Bytes = std::span<const std::byte>;

/// Allocates the pixels that a file's header tells of, if the file may hold as many.
[[maybe_unused]] Pixels pixels_of(std::int64_t h, std::int64_t w, Bytes file) {
  constexpr std::int64_t small = 1 << 26, most_per_byte = 100;
  if (h < 1 || w < 1 || h > std::max(small, most_per_byte * std::ssize(file)) / w)
    throw FileError(fmt::format("tells of {} x {} pixels in {} bytes", w, h, file.size()));
  return {h, w, std::vector<std::uint8_t>(static_cast<std::size_t>(h * w * channels))};
}

#ifdef HALFTONE_HAS_PNG
Pixels decode_png(Bytes file) {
  struct Image : png_image {
    Image() : png_image{} { version = PNG_IMAGE_VERSION; }
    ~Image() { png_image_free(this); }
    void need(int good) const {
      if (!good) throw FileError(fmt::format("is no sound PNG: {}", message));
    }
  } image;
  image.need(png_image_begin_read_from_memory(&image, file.data(), file.size()));
  Pixels pixels = pixels_of(image.height, image.width, file);
  image.format = PNG_FORMAT_RGBA;  // else the library would blend transparent pixels with a background
  image.flags |= PNG_IMAGE_FLAG_16BIT_sRGB;
  std::vector<std::uint8_t> rgba(PNG_IMAGE_SIZE(image));
  image.need(png_image_finish_read(&image, nullptr, rgba.data(), 0, nullptr));
  for (std::size_t i = 0; i < rgba.size() / 4; ++i) std::copy_n(&rgba[4 * i], channels, &pixels.rgb[channels * i]);
  return pixels;
}
#endif

#ifdef HALFTONE_HAS_JPEG
/// The library leaves by longjmp, so no function that it may leave has anything to destroy.
struct Jpeg : jpeg_decompress_struct {
  Jpeg() : jpeg_decompress_struct{} {
    err = jpeg_std_error(&errors);
    errors.error_exit = give_up;
    errors.emit_message = [](j_common_ptr jpeg, int level) {
      if (level < 0) give_up(jpeg);  // damaged data, which it would make up
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

std::vector<std::byte> content_of(const std::filesystem::path& path) {
  RegularFile file(path);
  std::vector<std::byte> bytes(file.size());
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
  for (const Format& format : formats)
    if (file.size() >= format.begins.size() &&
        std::memcmp(file.data(), format.begins.data(), format.begins.size()) == 0)
      return format.decode(file);
  throw FileError("is neither PNG nor JPEG");
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
  std::vector<std::uint8_t> result(static_cast<std::size_t>(image.elements()));
  const std::vector<std::byte> bytes = content_of(file);
  try {
    fit(decode_image(bytes), image, result.data());
  } catch (const FileError& error) {
    throw FileError(file.string() + " " + error.what());
  }
  return result;
}

}  // namespace halftone
