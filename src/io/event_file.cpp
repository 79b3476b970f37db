#include "halftone/io/event_file.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>

#include "halftone/io/atomic_file.hpp"
#include "halftone/tensor/error.hpp"

// A file is a list of records: length (u64), masked CRC of the length, the event, masked CRC of the event; all numbers
// little-endian. An event is a protocol buffer `tensorflow.Event`, of which few fields are written.
namespace halftone {
namespace {

constexpr std::array<std::uint32_t, 256> castagnoli = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    table[i] = i;
    for (int bit = 0; bit < 8; ++bit) table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0x82f63b78u : 0);
  }
  return table;
}();

std::uint32_t masked_crc(const std::string& bytes) {
  std::uint32_t crc = ~0u;
  for (const char byte : bytes) crc = crc >> 8 ^ castagnoli[(crc ^ static_cast<unsigned char>(byte)) & 0xff];
  return std::rotr(~crc, 15) + 0xa282ead8u;
}

template <class Word>
void append_little(std::string& to, Word word) {
  for (std::size_t i = 0; i < sizeof word; ++i) to.push_back(static_cast<char>(word >> (8 * i) & 0xff));
}

/// A protocol buffer, field by field; their numbers are below 16.
class Message {
 public:
  Message& whole(int field, std::int64_t number) {
    key(field, 0);
    varint(static_cast<std::uint64_t>(number));
    return *this;
  }
  Message& number(int field, double number) {
    key(field, 1);
    append_little(bytes_, std::bit_cast<std::uint64_t>(number));
    return *this;
  }
  Message& number(int field, float number) {
    key(field, 5);
    append_little(bytes_, std::bit_cast<std::uint32_t>(number));
    return *this;
  }
  Message& text(int field, const std::string& text) {
    key(field, 2);
    varint(text.size());
    bytes_.append(text);
    return *this;
  }
  Message& message(int field, const Message& inner) { return text(field, inner.bytes_); }
  const std::string& bytes() const { return bytes_; }

 private:
  void key(int field, int wire_type) { bytes_.push_back(static_cast<char>(field << 3 | wire_type)); }
  void varint(std::uint64_t number) {
    for (; number >= 0x80; number >>= 7) bytes_.push_back(static_cast<char>(number | 0x80));
    bytes_.push_back(static_cast<char>(number));
  }
  std::string bytes_;
};

Message event(std::int64_t step) {
  using Seconds = std::chrono::duration<double>;
  const double now = Seconds(std::chrono::system_clock::now().time_since_epoch()).count();
  return Message().number(1, now).whole(2, step);
}

}  // namespace

EventFile::EventFile(const std::filesystem::path& folder, std::int64_t first_step) {
  make_folder(folder);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
  file_ = folder / fmt::format("events.out.tfevents.{}.{:09}.{}.halftone", nanoseconds / 1000000000,
                               nanoseconds % 1000000000, getpid());
  stream_.open(file_, std::ios::binary);
  write(event(0).text(3, "brain.Event:2").bytes());
  constexpr std::int64_t started = 1;
  write(event(first_step).message(7, Message().whole(1, started)).bytes());
}

void EventFile::add(std::int64_t step, std::span<const EventScalar> scalars) {
  Message summary;
  for (const EventScalar& scalar : scalars) summary.message(1, Message().text(1, scalar.tag).number(2, scalar.value));
  write(event(step).message(5, summary).bytes());
}

void EventFile::write(const std::string& event) {
  std::string length, record;
  append_little(length, std::uint64_t{event.size()});
  record = length;
  append_little(record, masked_crc(length));
  record.append(event);
  append_little(record, masked_crc(event));
  if (!(stream_ << record << std::flush)) throw FileError(file_.string() + ": cannot be written");
}

}  // namespace halftone
