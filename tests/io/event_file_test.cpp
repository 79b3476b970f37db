#include "halftone/io/event_file.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <optional>

#include "halftone/tensor/error.hpp"

namespace halftone {
namespace {

namespace fs = std::filesystem;

/// CRC-32C by its definition, bit by bit.
std::uint32_t crc32c(const std::string& bytes) {
  std::uint32_t crc = 0xffffffff;
  for (const char byte : bytes) {
    crc ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? (crc >> 1) ^ 0x82f63b78 : crc >> 1;
  }
  return ~crc;
}

std::uint32_t masked(std::uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8; }

TEST(Crc32c, TheTestsChecksumIsTheOneOfTheStandard) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau) << "RFC 3720, B.4";
}

template <class T>
T number_at(const std::string& bytes, std::size_t place) {
  T number;
  std::memcpy(&number, bytes.data() + place, sizeof number);
  return number;
}

/// The events of a file, or nothing where a checksum or a length is wrong.
std::optional<std::vector<std::string>> events_in(const std::string& content) {
  std::vector<std::string> events;
  for (std::size_t place = 0; place < content.size();) {
    if (content.size() - place < 16) return {};
    const auto length = number_at<std::uint64_t>(content, place);
    if (number_at<std::uint32_t>(content, place + 8) != masked(crc32c(content.substr(place, 8)))) return {};
    if (length > content.size() - place - 16) return {};
    events.push_back(content.substr(place + 12, length));
    if (number_at<std::uint32_t>(content, place + 12 + length) != masked(crc32c(events.back()))) return {};
    place += 16 + length;
  }
  return events;
}

std::string content_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct EventFiles : ::testing::Test {
  const fs::path folder = fs::temp_directory_path() / ("halftone-events-" + std::to_string(getpid()));
  ~EventFiles() override { fs::remove_all(folder); }
};

TEST_F(EventFiles, HoldRecordsOfScalars) {
  EventFile file(folder / "logs", 300);
  const EventScalar scalars[] = {{"train/loss", 0.5f}, {"train/scale", -2}};
  file.add(300, scalars);
  const std::string content = content_of(file.file());
  const auto events = events_in(content);
  ASSERT_TRUE(events.has_value());
  ASSERT_EQ(events->size(), 3u);
  for (const std::string& event : *events) EXPECT_EQ(event[0], '\x09');
  EXPECT_EQ(events->at(0).substr(9), std::string("\x10\x00\x1a\x0d", 4) + "brain.Event:2");
  EXPECT_EQ(events->at(1).substr(9), "\x10\xac\x02\x3a\x02\x08\x01");
  EXPECT_EQ(events->at(2).substr(9),
            std::string("\x10\xac\x02\x2a\x27\x0a\x11\x0a\x0atrain/loss\x15\x00\x00\x00\x3f", 24) +
                std::string("\x0a\x12\x0a\x0btrain/scale\x15\x00\x00\x00\xc0", 20));
  for (const std::size_t place : {std::size_t{0}, std::size_t{9}, std::size_t{20}, content.size() - 1}) {
    std::string damaged = content;
    damaged[place] = static_cast<char>(damaged[place] ^ 1);
    EXPECT_FALSE(events_in(damaged).has_value()) << place;
  }
}

TEST_F(EventFiles, EachHasANameOfItsOwn) {
  const EventFile first(folder), second(folder);
  EXPECT_NE(first.file(), second.file());
  EXPECT_NE(first.file().string().find("tfevents"), std::string::npos);
}

TEST_F(EventFiles, SayWhatCannotBeWritten) {
  std::ofstream(folder) << "a file";
  EXPECT_THROW(EventFile(folder / "logs"), FileError);
}

}  // namespace
}  // namespace halftone
