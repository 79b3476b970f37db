#pragma once
#include <string>
#include <vector>

#include "halftone/io/safetensors.hpp"
#include "halftone/train/checkpoint.hpp"

// What writers and readers of models agree on.
namespace halftone {

inline constexpr const char* format_key = "format";
inline constexpr const char* own_format = "halftone 2";

/// Whether this version of Halftone wrote the file; throws FileError for one of another version.
bool is_own(const SafeTensors& file);

std::vector<std::int64_t> file_shape(Shape shape, int rank);

/// Whether a weight is a bit in a packed model.
inline bool is_packed(const Storage& storage) {
  return storage.code == DType::sign && storage.scaling == Scaling::none && storage.block == 0;
}

/// [planes, columns, rows] to [planes, rows, columns]: out[p][r][q] = in[p][q][r]; no numbers
/// stay none.
std::vector<float> swapped(const std::vector<float>& in, std::int64_t planes, std::int64_t columns, std::int64_t rows);

/// What a file calls the trained numbers where those under `name` are averaged.
inline std::string raw_name(const std::string& name) { return "raw." + name; }

}  // namespace halftone
