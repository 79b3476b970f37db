#include "halftone/io/safetensors.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "halftone/io/atomic_file.hpp"
#include "halftone/tensor/error.hpp"

namespace halftone {
namespace {

using json = nlohmann::json;

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr std::uint64_t largest_header = 100'000'000;  // of the reference implementation
constexpr std::size_t most_numbers = 64;               // in a shape and its offsets
constexpr char metadata_key[] = "__metadata__";
constexpr std::array<std::string_view, 3> tensor_fields = {"dtype", "shape", "data_offsets"};

/// How the format spells a dtype: as we do, in capitals, and "F8_E4M3" for e4m3.
std::string spelling_of(DType dtype) {
  std::string name = name_of(dtype);
  for (char& letter : name) letter = static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
  return name.starts_with('E') ? "F8_" + name : name;
}

std::optional<DType> dtype_of(std::string_view spelling) {
  for (std::size_t i = 0; i < Formats::size; ++i)
    if (spelling == spelling_of(static_cast<DType>(i))) return static_cast<DType>(i);
  return std::nullopt;
}

/// Fit for one line of text, whatever a file calls its tensors.
std::string in_quotes(std::string_view text) {
  return json(text.substr(0, 80)).dump(-1, ' ', true, json::error_handler_t::replace);
}

/// Nothing where the product is beyond 64 bits or a dimension is negative.
std::optional<std::uint64_t> byte_count(DType dtype, std::span<const std::int64_t> shape) {
  std::uint64_t bytes = size_of(dtype);
  for (const std::int64_t extent : shape)
    if (extent < 0 || __builtin_mul_overflow(bytes, static_cast<std::uint64_t>(extent), &bytes)) return std::nullopt;
  return bytes;
}

/// Where a tensor lies in the data that follow the header.
struct Entry {
  StoredTensor tensor;
  std::uint64_t begin = 0, end = 0;
};

/// Checks the header while it is parsed, tensor by tensor, so that a hostile one is refused before it has grown.
class HeaderParser {
 public:
  HeaderParser(const std::filesystem::path& file, std::uint64_t data_bytes) : file_(file), data_bytes_(data_bytes) {}

  void parse(const std::string& text) {
    try {
      const json root = json::parse(
          text, [this](int depth, json::parse_event_t event, json& value) { return accept(depth, event, value); });
      if (!root.is_object()) refuse("the header is not a JSON object");
    } catch (const json::exception&) {
      refuse("the header is not valid JSON");
    }
    check_layout();
  }

  std::map<std::string, std::string> metadata;
  std::vector<Entry> entries;

 private:
  [[noreturn]] void refuse(const std::string& why) const { throw FileError("'" + file_.string() + "': " + why); }
  [[noreturn]] void refuse_tensor(const std::string& why) const { refuse("tensor " + in_quotes(name_) + " " + why); }

  /// Depth 0 is the header, 1 a tensor, 2 its fields, 3 the numbers in them. What has been taken over is dropped.
  bool accept(int depth, json::parse_event_t event, json& value) {
    using Event = json::parse_event_t;
    switch (event) {
      case Event::object_start:
        if (depth > 1) refuse_tensor("is nested too deeply");
        fields_.clear();
        numbers_ = 0;
        return true;
      case Event::array_start:
        if (depth != 2)
          refuse(depth < 2 ? "the header is not an object of objects" : "the header is nested too deeply");
        return true;
      case Event::key:
        return take_key(depth, value.get_ref<const std::string&>());
      case Event::value:
        if (depth < 2) refuse("the header is not an object of objects");
        if (depth == 3 && ++numbers_ > most_numbers) refuse_tensor("has too many dimensions");
        return true;
      case Event::object_end:
        if (depth == 1) take_object(value);
        return depth == 0;
      case Event::array_end:
        return true;
    }
    return true;
  }

  bool take_key(int depth, const std::string& key) {
    if (depth == 1) {
      name_ = key;
      if (!names_.insert(key).second) refuse_tensor("appears twice");
    } else {
      if (name_ != metadata_key && std::ranges::find(tensor_fields, key) == tensor_fields.end())
        refuse_tensor("has the unknown field " + in_quotes(key));
      if (!fields_.insert(key).second) refuse_tensor("has the field " + in_quotes(key) + " twice");
    }
    return true;
  }

  void take_object(const json& object) {
    if (name_ == metadata_key) {
      for (const auto& [key, text] : object.items()) {
        if (!text.is_string()) refuse("metadata " + in_quotes(key) + " is not a string");
        metadata[key] = text.get<std::string>();
      }
    } else {
      take_tensor(object);
    }
  }

  void take_tensor(const json& object) {
    for (const std::string_view field : tensor_fields)
      if (!object.contains(field)) refuse_tensor("has no " + std::string(field));
    const json& dtype = object["dtype"];
    if (!dtype.is_string()) refuse_tensor("has a dtype that is not a string");
    const auto known = dtype_of(dtype.get_ref<const std::string&>());
    if (!known) refuse_tensor("has the unknown dtype " + in_quotes(dtype.get_ref<const std::string&>()));

    Entry entry;
    entry.tensor.name = name_;
    entry.tensor.dtype = *known;
    entry.tensor.shape = numbers(object["shape"], "shape");
    const std::vector<std::int64_t> offsets = numbers(object["data_offsets"], "data_offsets");
    if (offsets.size() != 2) refuse_tensor("has data_offsets that are not two numbers");
    entry.begin = static_cast<std::uint64_t>(offsets[0]);
    entry.end = static_cast<std::uint64_t>(offsets[1]);
    if (entry.begin > entry.end || entry.end > data_bytes_) refuse_tensor("lies outside the file");
    if (byte_count(*known, entry.tensor.shape) != entry.end - entry.begin)
      refuse_tensor("has " + std::to_string(entry.end - entry.begin) + " bytes, which do not fill its shape");
    entries.push_back(std::move(entry));
  }

  std::vector<std::int64_t> numbers(const json& array, const char* field) const {
    std::vector<std::int64_t> result;
    if (!array.is_array()) refuse_tensor(std::string("has a ") + field + " that is not an array");
    for (const json& number : array) {
      constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
      if (!number.is_number_unsigned() || number.get<std::uint64_t>() > most)
        refuse_tensor(std::string("has a ") + field + " that is not made of whole numbers");
      result.push_back(number.get<std::int64_t>());
    }
    return result;
  }

  /// Every byte of the data belongs to exactly one tensor.
  void check_layout() {
    std::ranges::sort(entries, {}, [](const Entry& e) { return std::pair(e.begin, e.end); });
    std::uint64_t expected = 0;
    for (const Entry& entry : entries) {
      name_ = entry.tensor.name;
      if (entry.begin < expected) refuse_tensor("overlaps another one");
      if (entry.begin > expected) refuse_tensor("follows bytes that belong to no tensor");
      expected = entry.end;
    }
    if (expected != data_bytes_) refuse("the data go on behind the last tensor");
  }

  const std::filesystem::path& file_;
  std::uint64_t data_bytes_;
  std::string name_;
  std::set<std::string> names_, fields_;
  std::size_t numbers_ = 0;
};

/// The JSON in front of the data, padded so that these begin at a multiple of eight bytes.
std::string header_of(std::span<const StoredTensor* const> tensors,
                      const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[metadata_key] = metadata;
  std::uint64_t offset = 0;
  for (const StoredTensor* tensor : tensors) {
    if (tensor->name == metadata_key || header.contains(tensor->name))
      fail("tensor " + in_quotes(tensor->name) + " cannot be stored: the name is taken");
    if (byte_count(tensor->dtype, tensor->shape) != tensor->data.size())
      fail("tensor " + in_quotes(tensor->name) + " cannot be stored: " + std::to_string(tensor->data.size()) +
           " bytes do not fill its shape");
    const std::uint64_t end = offset + tensor->data.size();
    header[tensor->name] = {
        {"dtype", spelling_of(tensor->dtype)}, {"shape", tensor->shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  try {
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    return text;
  } catch (const json::exception&) {
    fail("a name or a piece of metadata to be stored is not UTF-8");
  }
}

void read_exactly(std::ifstream& stream, const std::filesystem::path& file, void* to, std::uint64_t bytes) {
  if (!stream.read(static_cast<char*>(to), static_cast<std::streamsize>(bytes)))
    throw FileError("cannot read '" + file.string() + "'");
}

}  // namespace

const StoredTensor* SafeTensors::find(std::string_view name) const {
  const auto found = std::ranges::find(tensors, name, &StoredTensor::name);
  return found == tensors.end() ? nullptr : &*found;
}

const StoredTensor& SafeTensors::at(std::string_view name) const {
  if (const StoredTensor* tensor = find(name)) return *tensor;
  throw FileError("'" + file.string() + "': tensor " + in_quotes(name) + " is missing");
}

std::vector<float> SafeTensors::numbers(std::string_view name) const {
  const StoredTensor& tensor = at(name);
  const auto refuse = [&](const std::string& why) {
    throw FileError("'" + file.string() + "': tensor " + in_quotes(name) + " " + why);
  };
  if (tensor.dtype != DType::f32) refuse("holds " + std::string(name_of(tensor.dtype)) + ", not f32");
  std::vector<float> values(tensor.data.size() / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
  if (!std::ranges::all_of(values, [](float x) { return std::isfinite(x); }))
    refuse("holds numbers that are not finite");
  return values;
}

void write_safetensors(const std::filesystem::path& path, std::span<const StoredTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<const StoredTensor*> sorted;
  for (const StoredTensor& tensor : tensors) sorted.push_back(&tensor);
  // Wide elements first, so that every tensor lies at a multiple of its element's size.
  std::ranges::sort(sorted, {}, [](const StoredTensor* tensor) {
    return std::pair(-static_cast<int>(size_of(tensor->dtype)), std::string_view(tensor->name));
  });
  const std::string header = header_of(sorted, metadata);

  std::vector<std::byte> content(sizeof(std::uint64_t));
  const std::uint64_t header_bytes = header.size();
  std::memcpy(content.data(), &header_bytes, sizeof header_bytes);
  const auto append = [&](std::span<const std::byte> bytes) {
    content.insert(content.end(), bytes.begin(), bytes.end());
  };
  append(std::as_bytes(std::span(header)));
  for (const StoredTensor* tensor : sorted) append(tensor->data);
  write_file(path, content);
}

SafeTensors read_safetensors(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::exists(path, error) && !std::filesystem::is_regular_file(path, error))
    throw FileError("cannot read '" + path.string() + "': it is not a regular file");
  const std::uint64_t file_bytes = std::filesystem::file_size(path, error);
  if (error) throw FileError("cannot read '" + path.string() + "': " + error.message());
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw FileError("cannot read '" + path.string() + "'");

  std::uint64_t header_bytes = 0;
  if (file_bytes < sizeof header_bytes) throw FileError("'" + path.string() + "': too short for a safetensors file");
  read_exactly(stream, path, &header_bytes, sizeof header_bytes);
  if (header_bytes > std::min(largest_header, file_bytes - sizeof header_bytes))
    throw FileError("'" + path.string() + "': no safetensors file, or cut off: its header would have " +
                    std::to_string(header_bytes) + " bytes");
  std::string header(header_bytes, '\0');
  read_exactly(stream, path, header.data(), header_bytes);

  HeaderParser parser(path, file_bytes - sizeof header_bytes - header_bytes);
  parser.parse(header);
  SafeTensors result{path, std::move(parser.metadata), {}};
  for (Entry& entry : parser.entries) {
    entry.tensor.data.resize(entry.end - entry.begin);
    read_exactly(stream, path, entry.tensor.data.data(), entry.tensor.data.size());
    result.tensors.push_back(std::move(entry.tensor));
  }
  return result;
}

}  // namespace halftone
