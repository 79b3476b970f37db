#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "halftone/tensor/shape.hpp"

namespace halftone {

/// "png, jpeg": the formats that this build of the library reads.
std::string image_formats();

/// Decodes a PNG or JPEG file, scales it until it covers image.h x image.w pixels (bilinear, smoothed where it shrinks)
/// and cuts out the middle: bytes [h, w, c], of which c is 3 (RGB) or 1 (gray, 0.299 R + 0.587 G + 0.114 B).
/// Transparency is dropped, a file of 16 bits rounded to 8; gamma, color profile and EXIF orientation are not applied.
/// Throws FileError naming the file that is damaged, too large (also for its bytes) or of a format that this build does
/// not read, and Error for another `image`.
std::vector<std::uint8_t> read_image(const std::filesystem::path& file, const Shape& image);

}  // namespace halftone
