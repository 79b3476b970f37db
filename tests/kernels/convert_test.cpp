#include "kernels/cpu/convert.hpp"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cpu/parallel.hpp"

namespace halftone::cpu {
namespace {

std::uint32_t bits(float x) { return std::bit_cast<std::uint32_t>(x); }

template <class T>
std::array<unsigned char, sizeof(T)> bytes_of(const T& x) {
  return std::bit_cast<std::array<unsigned char, sizeof(T)>>(x);
}

std::vector<Isa> usable_isas() {
  std::vector<Isa> isas;
  for (Isa isa : all_isas)
    if (supported(isa)) isas.push_back(isa);
  return isas;
}

/// Every code of a format of at most 16 bits, a sample of a wider one.
template <class Storage>
std::vector<Storage> codes() {
  std::vector<Storage> all(65536);
  std::mt19937 random(1);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::uint32_t pattern = sizeof(Storage) > 2 ? random() : static_cast<std::uint32_t>(i);
    std::memcpy(&all[i], &pattern, sizeof(Storage));
  }
  return all;
}

/// Every f32 with at most 16 significant leading bits, each with the neighbours that decide a rounding, and a random
/// sample.
std::vector<float> values() {
  std::vector<float> all;
  std::mt19937 random(2);
  for (std::uint32_t high = 0; high < 65536; ++high) {
    for (std::uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      all.push_back(std::bit_cast<float>(high << 16 | low));
    for (std::uint32_t bit = 0; bit < 16; ++bit) all.push_back(std::bit_cast<float>(high << 16 | 1u << bit | 1u));
    all.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(random())));
  }
  return all;
}

template <class Format>
void check_format(Isa isa) {
  SCOPED_TRACE(std::string(Format::name) + " " + name_of(isa));
  using Storage = typename Format::Storage;
  const auto stored = codes<Storage>();
  std::vector<float> decoded(stored.size());
  decoder(isa, Format::dtype)(stored.data(), decoded.data(), static_cast<std::int64_t>(stored.size()));
  for (std::size_t i = 0; i < stored.size(); ++i) ASSERT_EQ(bits(decoded[i]), bits(Format::decode(stored[i]))) << i;

  const auto numbers = values();
  std::vector<Storage> encoded(numbers.size());
  encoder(isa, Format::dtype)(numbers.data(), encoded.data(), static_cast<std::int64_t>(numbers.size()));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const Storage expected = Format::encode(numbers[i]);
    ASSERT_EQ(bytes_of(encoded[i]), bytes_of(expected)) << std::hex << bits(numbers[i]);
  }
}

TEST(Convert, EveryFormatHasTheBitsOfTheScalarFunctions) {
  for (Isa isa : usable_isas())
    for (std::size_t i = 0; i < Formats::size; ++i)
      visit_format(static_cast<DType>(i), [isa](auto format) { check_format<decltype(format)>(isa); });
}

TEST(Convert, WritesNothingBeyondTheCount) {
  for (Isa isa : usable_isas()) {
    for (DType dtype : {DType::f32, DType::f16, DType::bf16, DType::e4m3}) {
      for (std::size_t count = 0; count <= 67; ++count) {
        const std::vector<float> from(80, 1.5f);
        std::vector<float> to(80, -7.0f);
        std::vector<std::byte> stored(80 * sizeof(float), std::byte{0xab});
        encoder(isa, dtype)(from.data(), stored.data(), static_cast<std::int64_t>(count));
        for (std::size_t i = count * size_of(dtype); i < stored.size(); ++i) ASSERT_EQ(stored[i], std::byte{0xab});
        decoder(isa, dtype)(stored.data(), to.data(), static_cast<std::int64_t>(count));
        for (std::size_t i = 0; i < to.size(); ++i) ASSERT_EQ(to[i], i < count ? 1.5f : -7.0f);
      }
    }
  }
}

TEST(Isa, NamesAreParsed) {
  for (Isa isa : all_isas) EXPECT_EQ(parse_isa(name_of(isa)), isa);
  EXPECT_EQ(parse_isa("auto"), best_isa());
  EXPECT_EQ(parse_isa("sse9"), std::nullopt);
  EXPECT_TRUE(supported(best_isa()));
}

TEST(ParallelFor, RunsEveryTaskOnceWhateverTheThreads) {
  for (int threads : {1, 2, 3, 8}) {
    for (std::int64_t tasks : {0, 1, 2, 7, 64}) {
      std::vector<int> runs(static_cast<std::size_t>(tasks), 0), of_thread = runs;
      parallel_for(threads, tasks, [&](std::int64_t task) { ++runs[static_cast<std::size_t>(task)]; });
      parallel_for(threads, tasks,
                   [&](std::int64_t task, int thread) { of_thread[static_cast<std::size_t>(task)] = thread; });
      for (std::size_t i = 0; i < runs.size(); ++i) {
        EXPECT_EQ(runs[i], 1);
        EXPECT_LT(of_thread[i], threads);
      }
    }
  }
}

}  // namespace
}  // namespace halftone::cpu
