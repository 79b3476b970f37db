#include "src/data/archive.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <vector>

#include "src/data/sha256.hpp"
#include "tests/data/files.hpp"

namespace halftone {
namespace {

using testing::contains;
using testing::file_error;

std::string sha256(const std::string& bytes) {
  Sha256 sum;
  sum.update(bytes.data(), bytes.size());
  return sum.hex();
}

TEST(Sha256, HasTheDigestsOfTheStandard) {
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, DoesNotSeeHowTheBytesAreCut) {
  for (std::size_t length = 0; length < 200; ++length) {
    const std::string bytes(length, 'x');
    Sha256 pieces;
    for (std::size_t i = 0; i < length; i += 7) pieces.update(bytes.data() + i, std::min<std::size_t>(7, length - i));
    EXPECT_EQ(pieces.hex(), sha256(bytes)) << length;
  }
}

std::string tar_entry(const std::string& name, const std::string& content, char type = '0') {
  std::string head(512, '\0');
  head.replace(0, name.size(), name);
  head.replace(124, 11, fmt::format("{:011o}", content.size()));
  head[156] = type;
  head.replace(257, 8, std::string("ustar\00000", 8));
  head.replace(148, 8, "        ");
  unsigned sum = 0;
  for (const char c : head) sum += static_cast<unsigned char>(c);
  head.replace(148, 7, fmt::format("{:06o}", sum) + '\0');
  return head + content + std::string((512 - content.size() % 512) % 512, '\0');
}

struct Archive : ::testing::Test {
  TemporaryFolder dir;
  const std::filesystem::path tar = dir / "a.tar.gz", out = dir / "out";
  const std::string one = std::string(700, 'y'), two = "two";
  const std::string sum_one = sha256(one), sum_two = sha256(two);
  const std::vector<KnownFile> wanted = {{"one", 700, sum_one}, {"two", 3, sum_two}};

  Archive() { std::filesystem::create_directory(out); }

  void pack(const std::string& entries) const { testing::write_gz(tar, entries + std::string(1024, '\0')); }
  void take() const { unpack(tar, "box", wanted, out); }
  std::string problem() const {
    return file_error([&] { take(); });
  }

  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(dir / ""))
      if (!entry.is_directory() && entry.path() != tar) names.push_back(entry.path().filename());
    return names;
  }
};

TEST_F(Archive, GivesTheWantedFiles) {
  pack(tar_entry("box/", "", '5') + tar_entry("box/one", one) + tar_entry("box/readme", "r") +
       tar_entry("box/two", two));
  take();
  EXPECT_EQ(testing::read(out / "one"), one);
  EXPECT_EQ(testing::read(out / "two"), two);
  EXPECT_EQ(files().size(), 2u);
}

TEST_F(Archive, LetsNoNameEscape) {
  pack(tar_entry("../evil", "e") + tar_entry("/tmp/evil", "e") + tar_entry("box/../one", one) +
       tar_entry("box/one", "/etc/passwd", '2') + tar_entry("one", one));
  EXPECT_EQ(problem(), tar.string() + " holds 0 of the 2 files wanted");
  EXPECT_TRUE(files().empty());
}

TEST_F(Archive, RefusesWrongContentAndLeavesNothing) {
  pack(tar_entry("box/one", std::string(700, 'z')));
  EXPECT_EQ(problem(), (out / "one").string() + " did not arrive intact: its checksum is not that of one");
  EXPECT_TRUE(files().empty());
  pack(tar_entry("box/one", std::string(701, 'y')));
  EXPECT_EQ(problem(), "one has 701 bytes in its archive, not 700");
  EXPECT_TRUE(files().empty());
}

TEST_F(Archive, AFileThatComesTwiceStandsForNoOther) {
  pack(tar_entry("box/two", two) + tar_entry("box/two", two));
  EXPECT_EQ(problem(), tar.string() + " holds 1 of the 2 files wanted");
  pack(tar_entry("box/two", two) + tar_entry("box/two", two) + tar_entry("box/one", one));
  take();
  EXPECT_EQ(testing::read(out / "one"), one);
}

TEST_F(Archive, NamesADamagedArchive) {
  testing::write_gz(tar, tar_entry("box/one", one).substr(0, 1000));
  EXPECT_EQ(problem(), tar.string() + " ends early");
  testing::write(tar, "<html>404</html>");
  EXPECT_EQ(problem(), tar.string() + " ends early");
  testing::write(tar, std::string(2000, 'h'));
  EXPECT_EQ(problem(), tar.string() + " is not a tar file or is damaged");
  std::string flipped = tar_entry("box/one", one);
  flipped[3] = '!';
  pack(flipped);
  EXPECT_EQ(problem(), tar.string() + " is not a tar file or is damaged");
  std::filesystem::remove(tar);
  EXPECT_EQ(problem(), tar.string() + " cannot be opened");
  EXPECT_TRUE(files().empty());
}

TEST_F(Archive, IntactMeansSizeAndChecksum) {
  EXPECT_FALSE(is_intact(out / "two", wanted[1]));
  testing::write(out / "two", "twO");
  EXPECT_FALSE(is_intact(out / "two", wanted[1]));
  testing::write(out / "two", "two!");
  EXPECT_FALSE(is_intact(out / "two", wanted[1]));
  testing::write(out / "two", two);
  EXPECT_TRUE(is_intact(out / "two", wanted[1]));
}

}  // namespace
}  // namespace halftone
