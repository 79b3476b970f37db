#include "halftone/io/safetensors.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <thread>

#include "halftone/tensor/error.hpp"
#include "tests/io/temporary_folder.hpp"

namespace halftone {
namespace {

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

std::string content_of(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::string file_of(std::string_view header, std::string_view data) {
  std::string content(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(content.data(), &length, 8);
  return content.append(header).append(data);
}

const std::vector<StoredTensor> examples = {
    {"b", DType::u8, {3}, bytes_of("abc")},
    {"conv1.weight", DType::f16, {2, 1, 1, 2}, bytes_of("01234567")},
    {"a", DType::f32, {}, bytes_of("wxyz")},
    {"empty", DType::bf16, {0, 5}, {}},
};

TEST(SafeTensors, WritesTheDocumentedBytes) {
  TemporaryFolder folder;
  write_safetensors(folder / "x", examples, {{"step", "7"}});
  std::string header = R"({"__metadata__":{"step":"7"},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                       R"("conv1.weight":{"dtype":"F16","shape":[2,1,1,2],"data_offsets":[4,12]},)"
                       R"("empty":{"dtype":"BF16","shape":[0,5],"data_offsets":[12,12]},)"
                       R"("b":{"dtype":"U8","shape":[3],"data_offsets":[12,15]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  EXPECT_EQ(content_of(folder / "x"), file_of(header, "wxyz01234567abc"));
}

TEST(SafeTensors, BytesDoNotDependOnTheOrderGiven) {
  TemporaryFolder folder;
  const std::vector<StoredTensor> reversed(examples.rbegin(), examples.rend());
  write_safetensors(folder / "x", examples);
  write_safetensors(folder / "y", reversed);
  EXPECT_EQ(content_of(folder / "x"), content_of(folder / "y"));
}

TEST(SafeTensors, ReadsBackWhatWasWritten) {
  TemporaryFolder folder;
  std::vector<StoredTensor> all = examples;
  all.push_back({"\"quoted\"\n\xc3\xa9", DType::e4m3, {1}, bytes_of("e")});
  all.push_back({"g", DType::e5m2, {1}, bytes_of("g")});
  all.push_back({"i", DType::i32, {1}, bytes_of("iiii")});
  write_safetensors(folder / "x", all, {{"net", "lenet5"}});
  const SafeTensors read = read_safetensors(folder / "x");
  EXPECT_EQ(read.metadata.at("net"), "lenet5");
  ASSERT_EQ(read.tensors.size(), all.size());
  for (const StoredTensor& tensor : all) {
    const StoredTensor& got = read.at(tensor.name);
    EXPECT_EQ(got.dtype, tensor.dtype);
    EXPECT_EQ(got.shape, tensor.shape);
    EXPECT_EQ(got.data, tensor.data);
  }
  EXPECT_EQ(read.find("c"), nullptr);
  EXPECT_THROW(read.at("c"), FileError);
}

TEST(SafeTensors, FileWithoutTensors) {
  TemporaryFolder folder;
  write_safetensors(folder / "x", {});
  EXPECT_EQ(content_of(folder / "x"), file_of("{}      ", ""));
  EXPECT_TRUE(read_safetensors(folder / "x").tensors.empty());
}

TEST(SafeTensors, RefusesToWriteNonsense) {
  TemporaryFolder folder;
  const auto refused = [&](std::vector<StoredTensor> tensors) {
    EXPECT_THROW(write_safetensors(folder / "x", tensors), Error);
    EXPECT_TRUE(folder.empty());
  };
  refused({examples[0], examples[0]});
  refused({{"__metadata__", DType::u8, {1}, bytes_of("a")}});
  refused({{"short", DType::f32, {2}, bytes_of("1234")}});
  refused({{"negative", DType::u8, {-1, -1}, bytes_of("a")}});
  refused({{"not utf-8 \xff", DType::u8, {1}, bytes_of("a")}});
}

struct Hostile {
  const char* what;
  std::string content;
  const char* says;
};

/// One tensor "t" with these fields, and `data`.
std::string tensor_file(std::string_view fields, std::string_view data) {
  return file_of("{\"t\":{" + std::string(fields) + "}}", data);
}

std::string huge_claim() {
  std::string content = file_of("{}", "");
  content[5] = 1;  // a header of 2^40 bytes
  return content;
}

std::vector<Hostile> hostile_files() {
  const std::string good = R"("dtype":"U8","shape":[2],"data_offsets":[0,2])";
  const std::string other = R"(,"u":{"dtype":"U8","shape":[2],"data_offsets":)";
  return {
      {"nothing", "", "too short"},
      {"seven bytes", std::string(7, 'a'), "too short"},
      {"text", "this is no safetensors file", "no safetensors file"},
      {"a header of 2^40 bytes", huge_claim(), "no safetensors file"},
      {"cut header", tensor_file(good, "").substr(0, 20), "no safetensors file"},
      {"cut data", tensor_file(good, "a"), "\"t\" lies outside"},
      {"data too long", tensor_file(good, "abc"), "go on"},
      {"empty header", file_of("", ""), "not valid JSON"},
      {"half a header", file_of("{\"t\":{", ""), "not valid JSON"},
      {"bytes behind the header's end", file_of("{}{}", ""), "not valid JSON"},
      {"not utf-8", file_of("{\"\xff\":{}}", ""), "not valid JSON"},
      {"number beyond double", tensor_file(R"("dtype":"U8","shape":[1e999],"data_offsets":[0,2])", "ab"),
       "not valid JSON"},
      {"a mark in front", file_of("\xef\xbb\xbf{}", ""), "not valid JSON"},
      {"a zero behind", file_of(std::string("{}\0", 3), ""), "not valid JSON"},
      {"array", file_of("[]", ""), "not an object"},
      {"number", file_of("7", ""), "not an object"},
      {"tensor is a number", file_of("{\"t\":7}", ""), "not an object"},
      {"tensor is an array of none", file_of("{\"t\":[]}", ""), "\"t\" has not three fields"},
      {"deep arrays", file_of("{\"t\":{\"shape\":" + std::string(1'000'000, '['), ""), "nested"},
      {"deep objects",
       file_of(
           [] {
             std::string s;
             for (int i = 0; i < 100'000; ++i) s += "{\"dtype\":";
             return s;
           }(),
           ""),
       "nested"},
      {"no dtype", tensor_file(R"("shape":[2],"data_offsets":[0,2])", "ab"), "no dtype"},
      {"no shape", tensor_file(R"("dtype":"U8","data_offsets":[0,2])", "ab"), "no shape"},
      {"no offsets", tensor_file(R"("dtype":"U8","shape":[2])", "ab"), "no data_offsets"},
      {"dtype a number", tensor_file(R"("dtype":8,"shape":[2],"data_offsets":[0,2])", "ab"), "not a string"},
      {"unknown dtype", tensor_file(R"("dtype":"F5","shape":[2],"data_offsets":[0,2])", "ab"), "unknown dtype \"F5\""},
      {"a dtype that is ours alone", tensor_file(R"("dtype":"SIGN","shape":[16],"data_offsets":[0,2])", "ab"),
       "unknown"},
      {"half a byte", tensor_file(R"("dtype":"F4","shape":[3],"data_offsets":[0,2])", "ab"), "do not fill"},
      {"shape a string", tensor_file(R"("dtype":"U8","shape":"2","data_offsets":[0,2])", "ab"), "not an array"},
      {"negative extent", tensor_file(R"("dtype":"U8","shape":[-2],"data_offsets":[0,2])", "ab"), "whole numbers"},
      {"extent 2.0", tensor_file(R"("dtype":"U8","shape":[2.0],"data_offsets":[0,2])", "ab"), "whole numbers"},
      {"extent beyond int64", tensor_file(R"("dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,2])", "ab"),
       "whole numbers"},
      {"extent null", tensor_file(R"("dtype":"U8","shape":[null],"data_offsets":[0,2])", "ab"), "whole numbers"},
      {"product wraps to 2",
       tensor_file(R"("dtype":"F16","shape":[9223372036854775807,2,1],"data_offsets":[0,2])", "ab"), "do not fill"},
      {"product wraps to 0", tensor_file(R"("dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0])", ""),
       "do not fill"},
      {"too few bytes", tensor_file(R"("dtype":"U8","shape":[3],"data_offsets":[0,2])", "ab"), "do not fill"},
      {"three offsets", tensor_file(R"("dtype":"U8","shape":[2],"data_offsets":[0,2,2])", "ab"), "two numbers"},
      {"offsets swapped", tensor_file(R"("dtype":"U8","shape":[2],"data_offsets":[2,0])", "ab"), "outside"},
      {"offset beyond the file",
       tensor_file(R"("dtype":"U8","shape":[2],"data_offsets":[9223372036854775805,9223372036854775807])", "ab"),
       "outside"},
      {"unknown field of 126 arrays", tensor_file(good + R"(,"extra":)" + std::string(126, '['), "ab"), "nested"},
      {"field twice", tensor_file(good + R"(,"dtype":"U8")", "ab"), "twice"},
      {"name twice, the last beside the data",
       file_of("{\"t\":{" + good + R"(},"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "ab"), "go on"},
      {"overlap", file_of("{\"t\":{" + good + "}" + other + "[1,3]}}", "abc"), "\"u\" overlaps"},
      {"same bytes twice", file_of("{\"t\":{" + good + "}" + other + "[0,2]}}", "ab"), "overlaps"},
      {"gap", file_of("{\"t\":{" + good + "}" + other + "[3,5]}}", "abcde"), "\"u\" follows bytes"},
      {"metadata a number", file_of(R"({"__metadata__":{"a":1}})", ""), "metadata \"a\""},
      {"metadata twice", file_of(R"({"__metadata__":{"a":"1"},"__metadata__":{"a":"2"}})", ""), "twice"},
      {"metadata a list", file_of(R"({"__metadata__":[]})", ""), "metadata"},
      {"name with a line break", file_of(R"({"a\nb":{"dtype":"U8"}})", ""), "\"a\\nb\" has no"},
  };
}

TEST(SafeTensors, RefusesHostileFilesInOneSentence) {
  TemporaryFolder folder;
  for (const Hostile& file : hostile_files()) {
    SCOPED_TRACE(file.what);
    std::ofstream(folder / "x", std::ios::binary) << file.content;
    try {
      read_safetensors(folder / "x");
      ADD_FAILURE() << "was read";
    } catch (const FileError& error) {
      const std::string sentence = error.what();
      EXPECT_NE(sentence.find(file.says), std::string::npos) << sentence;
      EXPECT_NE(sentence.find((folder / "x").string()), std::string::npos) << sentence;
      EXPECT_EQ(sentence.find('\n'), std::string::npos) << sentence;
    }
  }
}

/// What tests/peers/safetensors_cases.py sees the reference implementation take.
TEST(SafeTensors, TakesWhatTheReferenceTakes) {
  TemporaryFolder folder;
  const std::string good = R"("dtype":"U8","shape":[2],"data_offsets":[0,2])";
  std::string ones;
  for (int i = 0; i < 1000; ++i) ones += ",1";
  const std::vector<std::pair<const char*, std::string>> files = {
      {"unknown fields", tensor_file(good + R"(,"extra":1,"extra":{"dtype":[[2]]})", "ab")},
      {"unknown field of 125 arrays",
       tensor_file(good + R"(,"extra":)" + std::string(125, '[') + std::string(125, ']'), "ab")},
      {"name twice, the last counts",
       file_of(R"({"t":{"dtype":"U8","shape":[9],"data_offsets":[5,1]},"t":{)" + good + "}}", "ab")},
      {"metadata key twice", file_of(R"({"__metadata__":{"a":"1","a":"2"},"t":{)" + good + "}}", "ab")},
      {"no metadata", file_of(R"({"__metadata__":null,"t":{)" + good + "}}", "ab")},
      {"a thousand dimensions", tensor_file(R"("dtype":"U8","shape":[2)" + ones + R"(],"data_offsets":[0,2])", "ab")},
      {"an array", file_of(R"({"t":["U8",[2],[0,2]]})", "ab")},
      {"spaces around", file_of("\n {\"t\":{" + good + "}}\t", "ab")},
      {"no bytes of many",
       file_of(R"({"e":{"dtype":"F64","shape":[2305843009213693952,0],"data_offsets":[2,2]},"t":{)" + good + "}}",
               "ab")},
  };
  for (const auto& [what, content] : files) {
    SCOPED_TRACE(what);
    std::ofstream(folder / "x", std::ios::binary) << content;
    const SafeTensors file = read_safetensors(folder / "x");
    EXPECT_EQ(file.at("t").data, bytes_of("ab"));
    EXPECT_TRUE(file.metadata.empty() || file.metadata.at("a") == "2");
  }
}

TEST(SafeTensors, ATensorOfAForeignDtypeIsThereButIsNotUsed) {
  TemporaryFolder folder;
  std::ofstream(folder / "x", std::ios::binary)
      << tensor_file(R"("dtype":"I64","shape":[1],"data_offsets":[0,8])", "12345678");
  const SafeTensors file = read_safetensors(folder / "x");
  ASSERT_NE(file.find("t"), nullptr);
  EXPECT_EQ(file.find("t")->foreign, "I64");
  EXPECT_EQ(file.find("t")->data, bytes_of("12345678"));
  EXPECT_THROW(file.at("t"), FileError);
  EXPECT_THROW(write_safetensors(folder / "y", file.tensors), Error);
}

/// The writer's files differ in length, so a size and a content that belong to two of them do not fit.
TEST(SafeTensors, AReaderBesideAWriterSeesWholeFiles) {
  TemporaryFolder folder;
  const auto file = [&](std::size_t n) {
    write_safetensors(folder / "x", std::vector<StoredTensor>{
                                        {"t", DType::u8, {static_cast<std::int64_t>(n)}, std::vector<std::byte>(n)}});
  };
  file(1);
  std::atomic<bool> done = false;
  std::thread writer([&] {
    for (std::size_t n = 1; !done; n = n % 5 + 1) file(n * 1000);
  });
  for (int i = 0; i < 20000; ++i) EXPECT_NO_THROW(read_safetensors(folder / "x"));
  done = true;
  writer.join();
}

TEST(SafeTensors, EveryTruncationAndEveryFlippedBitIsSurvived) {
  TemporaryFolder folder;
  write_safetensors(folder / "x", examples);
  const std::string good = content_of(folder / "x");
  const auto survives = [&](const std::string& content) {
    std::ofstream(folder / "x", std::ios::binary) << content;
    try {
      read_safetensors(folder / "x");
      return true;
    } catch (const FileError&) {
      return false;
    }
  };
  EXPECT_TRUE(survives(good));
  for (std::size_t size = 0; size < good.size(); ++size) EXPECT_FALSE(survives(good.substr(0, size))) << size;
  for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
    std::string changed = good;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << bit % 8));
    survives(changed);
  }
}

TEST(SafeTensors, MissingFileAndFolder) {
  TemporaryFolder folder;
  EXPECT_THROW(read_safetensors(folder / "none"), FileError);
  EXPECT_THROW(read_safetensors(folder / "."), FileError);
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THROW(read_safetensors(folder / "pipe"), FileError);
}

TEST(SafeTensors, NumbersAreFiniteF32) {
  const auto holding = [](float x) {
    const auto bytes = std::as_bytes(std::span(&x, 1));
    return SafeTensors{"x", {}, {{"t", DType::f32, {1}, {bytes.begin(), bytes.end()}}}};
  };
  EXPECT_EQ(holding(1.5f).numbers("t"), std::vector<float>{1.5f});
  EXPECT_THROW(holding(std::numeric_limits<float>::infinity()).numbers("t"), FileError);
  EXPECT_THROW(holding(std::numeric_limits<float>::quiet_NaN()).numbers("t"), FileError);
  EXPECT_THROW((SafeTensors{"x", {}, examples}.numbers("b")), FileError);
  EXPECT_THROW((SafeTensors{"x", {}, examples}.numbers("nobody")), FileError);
}

}  // namespace
}  // namespace halftone
