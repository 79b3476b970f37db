#include "halftone/io/safetensors.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "halftone/io/atomic_file.hpp"
#include "halftone/io/regular_file.hpp"
#include "halftone/tensor/error.hpp"

namespace halftone {
namespace {

using json = nlohmann::json;

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr std::uint64_t largest_header = 100'000'000;  // of the reference implementation, as the following
constexpr int most_nested = 127;
constexpr char metadata_key[] = "__metadata__";
constexpr std::array<std::string_view, 3> tensor_fields = {"dtype", "shape", "data_offsets"};

/// What the format calls a dtype, the bits of an element, and what we call it.
struct Spelling {
  std::string_view text;
  int bits;
  std::optional<DType> dtype = {};
};

constexpr Spelling spellings[] = {{"F32", 32, DType::f32},
                                  {"F16", 16, DType::f16},
                                  {"BF16", 16, DType::bf16},
                                  {"U8", 8, DType::u8},
                                  {"F8_E4M3", 8, DType::e4m3},
                                  {"F8_E5M2", 8, DType::e5m2},
                                  {"I8", 8, DType::i8},
                                  {"I16", 16, DType::i16},
                                  {"I32", 32, DType::i32},
                                  {"F64", 64},
                                  {"I64", 64},
                                  {"U64", 64},
                                  {"C64", 64},
                                  {"U32", 32},
                                  {"U16", 16},
                                  {"BOOL", 8},
                                  {"F8_E8M0", 8},
                                  {"F8_E4M3FNUZ", 8},
                                  {"F8_E5M2FNUZ", 8},
                                  {"F6_E2M3", 6},
                                  {"F6_E3M2", 6},
                                  {"F4", 4}};

/// Fit for one line of text, whatever a file calls its tensors.
std::string in_quotes(std::string_view text) {
  return json(text.substr(0, 80)).dump(-1, ' ', true, json::error_handler_t::replace);
}

/// Nothing where a count is beyond 64 bits, a dimension is negative or the last byte is not full.
std::optional<std::uint64_t> byte_count(int bits, std::span<const std::int64_t> shape) {
  std::uint64_t count = 1;
  for (const std::int64_t extent : shape)
    if (extent < 0 || __builtin_mul_overflow(count, static_cast<std::uint64_t>(extent), &count)) return std::nullopt;
  if (__builtin_mul_overflow(count, static_cast<std::uint64_t>(bits), &count) || count % 8 != 0) return std::nullopt;
  return count / 8;
}

/// Where a tensor lies in the data that follow the header.
struct Entry {
  StoredTensor tensor;
  int bits = 0;  // of an element
  std::uint64_t begin = 0, end = 0;
};

/// Checks the header while it is parsed, tensor by tensor, so that a hostile one is refused before it has grown. Takes
/// and refuses what the reference implementation does: fields that nobody knows mean nothing, of a name that appears
/// twice the last tensor counts, and a tensor may be an array of its three fields.
class HeaderParser {
 public:
  HeaderParser(const std::filesystem::path& file, std::uint64_t data_bytes) : file_(file), data_bytes_(data_bytes) {}

  void parse(const std::string& text) {
    // Both would be skipped by the parser.
    if (text.starts_with('\xef') || text.find('\0') != std::string::npos) refuse("the header is not valid JSON");
    try {
      const json root = json::parse(
          text, [this](int depth, json::parse_event_t event, json& value) { return accept(depth, event, value); });
      if (!root.is_object()) refuse("the header is not an object of objects");
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
      case Event::array_start:
        check_nesting(depth, event == Event::array_start);
        if (depth < 2) fields_.clear(), unknown_ = false;
        return true;
      case Event::key:
        if (depth > 2 && !unknown_ && !fields_.insert("").second) refuse_tensor("has a dtype that is not a string");
        return depth == 1 ? take_name(value.get_ref<const std::string&>())
                          : depth > 2 || take_field(value.get_ref<const std::string&>());
      case Event::object_end:
      case Event::array_end:
      case Event::value:
        if (depth == 1) take(value);
        return depth != 1;
    }
    return true;
  }

  void check_nesting(int depth, bool array) const {
    if (depth >= most_nested || (depth > 2 && !unknown_)) refuse("the header is nested too deeply");
    if (depth == 0 && array) refuse("the header is not an object of objects");
  }

  bool take_name(const std::string& name) {
    name_ = name;
    if (name == metadata_key && std::exchange(has_metadata_, true)) refuse("the metadata appear twice");
    return true;
  }

  /// False for a field whose value is to be dropped.
  bool take_field(const std::string& field) {
    if (name_ == metadata_key) return true;
    unknown_ = std::ranges::find(tensor_fields, field) == tensor_fields.end();
    if (!unknown_ && !fields_.insert(field).second) refuse_tensor("has the field " + in_quotes(field) + " twice");
    return !unknown_;
  }

  void take(const json& value) {
    if (name_ != metadata_key) return take_tensor(value);
    if (value.is_null()) return;
    if (!value.is_object()) refuse("the metadata are not an object");
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) refuse("metadata " + in_quotes(key) + " is not a string");
      metadata[key] = text.get<std::string>();
    }
  }

  void take_tensor(const json& value) {
    if (!value.is_object() && !value.is_array()) refuse("the header is not an object of objects");
    if (value.is_array() && value.size() != tensor_fields.size()) refuse_tensor("has not three fields");
    std::array<const json*, 3> fields = {};
    for (std::size_t i = 0; i < fields.size(); ++i) {
      const std::string field(tensor_fields[i]);
      if (value.is_object() && !value.contains(field)) refuse_tensor("has no " + field);
      fields[i] = value.is_object() ? &value.at(field) : &value.at(i);
    }

    Entry entry;
    entry.tensor.name = name_;
    const Spelling& spelling = spelling_in(*fields[0]);
    if (spelling.dtype) entry.tensor.dtype = *spelling.dtype;
    if (!spelling.dtype) entry.tensor.foreign = spelling.text;
    entry.tensor.shape = numbers(*fields[1], "shape");
    const std::vector<std::int64_t> offsets = numbers(*fields[2], "data_offsets");
    if (offsets.size() != 2) refuse_tensor("has data_offsets that are not two numbers");
    entry.begin = static_cast<std::uint64_t>(offsets[0]);
    entry.end = static_cast<std::uint64_t>(offsets[1]);
    entry.bits = spelling.bits;
    by_name_[name_] = std::move(entry);
  }

  const Spelling& spelling_in(const json& dtype) const {
    const json* text = &dtype;
    json name;
    if (dtype.is_object() && dtype.size() == 1 && dtype.front().is_null()) text = &(name = dtype.begin().key());
    if (!text->is_string()) refuse_tensor("has a dtype that is not a string");
    for (const Spelling& spelling : spellings)
      if (text->get_ref<const std::string&>() == spelling.text) return spelling;
    refuse_tensor("has the unknown dtype " + in_quotes(text->get_ref<const std::string&>()));
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
    for (auto& [name, entry] : by_name_) entries.push_back(std::move(entry));
    std::ranges::stable_sort(entries, {}, [](const Entry& e) { return std::pair(e.begin, e.end); });
    std::uint64_t expected = 0;
    for (const Entry& entry : entries) {
      name_ = entry.tensor.name;
      if (entry.begin > entry.end || entry.end > data_bytes_) refuse_tensor("lies outside the file");
      if (entry.begin < expected) refuse_tensor("overlaps another one");
      if (entry.begin > expected) refuse_tensor("follows bytes that belong to no tensor");
      if (byte_count(entry.bits, entry.tensor.shape) != entry.end - entry.begin)
        refuse_tensor("has " + std::to_string(entry.end - entry.begin) + " bytes, which do not fill its shape");
      expected = entry.end;
    }
    if (expected != data_bytes_) refuse("the data go on behind the last tensor");
  }

  const std::filesystem::path& file_;
  std::uint64_t data_bytes_;
  std::string name_;
  std::set<std::string> fields_;
  std::map<std::string, Entry> by_name_;
  bool has_metadata_ = false, unknown_ = false;  // unknown: what is parsed belongs to a field that means nothing
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
    const auto spelling = std::ranges::find(spellings, std::optional(tensor->dtype), &Spelling::dtype);
    if (spelling == std::end(spellings) || !tensor->foreign.empty())
      fail("tensor " + in_quotes(tensor->name) + " cannot be stored: a file has no such dtype");
    if (byte_count(spelling->bits, tensor->shape) != tensor->data.size())
      fail("tensor " + in_quotes(tensor->name) + " cannot be stored: " + std::to_string(tensor->data.size()) +
           " bytes do not fill its shape");
    const std::uint64_t end = offset + tensor->data.size();
    header[tensor->name] = {{"dtype", spelling->text}, {"shape", tensor->shape}, {"data_offsets", {offset, end}}};
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

void read_exactly(RegularFile& file, std::span<std::byte> to) {
  if (file.read(to) != to.size()) throw FileError("'" + file.path().string() + "': it was cut off while it was read");
}

}  // namespace

bool StoredTensor::is_float() const {
  return foreign.empty() ? epsilon_of(dtype) < 1 : foreign.starts_with('F') || foreign.starts_with('C');
}

const StoredTensor* SafeTensors::find(std::string_view name) const {
  const auto found = std::ranges::find(tensors, name, &StoredTensor::name);
  return found == tensors.end() ? nullptr : &*found;
}

const StoredTensor& SafeTensors::at(std::string_view name) const {
  const StoredTensor* tensor = find(name);
  if (!tensor) throw FileError("'" + file.string() + "': tensor " + in_quotes(name) + " is missing");
  if (!tensor->foreign.empty())
    throw FileError("'" + file.string() + "': tensor " + in_quotes(name) + " holds " + tensor->foreign +
                    ", which Halftone does not use");
  return *tensor;
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

  PartialFile file(path);
  const std::uint64_t header_bytes = header.size();
  file.append(std::as_bytes(std::span(&header_bytes, 1)));
  file.append(std::as_bytes(std::span(header)));
  for (const StoredTensor* tensor : sorted) file.append(tensor->data);
  file.publish();
}

SafeTensors read_safetensors(const std::filesystem::path& path) {
  RegularFile file(path);
  std::uint64_t header_bytes = 0;
  if (file.size() < sizeof header_bytes) throw FileError("'" + path.string() + "': too short for a safetensors file");
  read_exactly(file, std::as_writable_bytes(std::span(&header_bytes, 1)));
  if (header_bytes > std::min(largest_header, file.size() - sizeof header_bytes))
    throw FileError("'" + path.string() + "': no safetensors file, or cut off: its header would have " +
                    std::to_string(header_bytes) + " bytes");
  std::string header(header_bytes, '\0');
  read_exactly(file, std::as_writable_bytes(std::span(header)));

  HeaderParser parser(path, file.size() - sizeof header_bytes - header_bytes);
  parser.parse(header);
  SafeTensors result{path, std::move(parser.metadata), {}};
  for (Entry& entry : parser.entries) {
    entry.tensor.data.resize(entry.end - entry.begin);
    read_exactly(file, entry.tensor.data);
    result.tensors.push_back(std::move(entry.tensor));
  }
  return result;
}

}  // namespace halftone
