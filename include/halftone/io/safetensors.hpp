#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "halftone/numeric/formats.hpp"

namespace halftone {

/// A named tensor as it lies in a file: any rank, rows last, `data` in the format `dtype`.
struct StoredTensor {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> data;
  std::string foreign = {};  ///< the file's word for a dtype that `DType` lacks; `dtype` means nothing then

  bool is_float() const;  ///< not integers or booleans
};

/// The content of a .safetensors file.
struct SafeTensors {
  std::filesystem::path file;
  std::map<std::string, std::string> metadata;
  std::vector<StoredTensor> tensors;  ///< in the order of the file

  /// The tensor called `name`, or nullptr.
  const StoredTensor* find(std::string_view name) const;
  /// The tensor called `name`; throws FileError where the file has none, or one of a foreign dtype.
  const StoredTensor& at(std::string_view name) const;
  /// What the tensor called `name` holds; throws FileError unless these are finite f32 numbers.
  std::vector<float> numbers(std::string_view name) const;
};

/// Writes a .safetensors file, whole or not at all. The bytes depend on the arguments alone, and not on the order of
/// `tensors`. Throws Error for a repeated name or for data that do not fill their shape.
void write_safetensors(const std::filesystem::path& path, std::span<const StoredTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {});

/// Reads a .safetensors file. Throws FileError, naming file and tensor, for what the format's reference implementation
/// refuses, and for extents of 2^63 and more. Memory goes by what the file really holds, not by what its header claims.
SafeTensors read_safetensors(const std::filesystem::path& path);

}  // namespace halftone
