#include "kernels/cpu/storage.hpp"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cpu/columns.hpp"
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
template <class Format>
std::vector<typename Format::Code> codes() {
  using Code = typename Format::Code;
  std::vector<Code> all(65536);
  std::mt19937 random(1);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::uint32_t pattern = sizeof(Code) > 2 ? random() : static_cast<std::uint32_t>(i);
    std::memcpy(&all[i], &pattern, sizeof(Code));
    if constexpr (Format::bits < 8) all[i] &= (1 << Format::bits) - 1;
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
  using Code = typename Format::Code;
  const auto stored = codes<Format>();
  std::vector<float> decoded(stored.size());
  decoder(isa, Format::dtype)(stored.data(), decoded.data(), static_cast<std::int64_t>(stored.size()));
  for (std::size_t i = 0; i < stored.size(); ++i) ASSERT_EQ(bits(decoded[i]), bits(Format::decode(stored[i]))) << i;

  const auto numbers = values();
  std::vector<Code> encoded(numbers.size());
  for (std::size_t i = 0; i < numbers.size(); i += 64)  // short calls: a denormal number sends all of one the long way
    encoder(isa, Format::dtype)(numbers.data() + i, encoded.data() + i,
                                static_cast<std::int64_t>(std::min<std::size_t>(64, numbers.size() - i)));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const Code expected = Format::encode(numbers[i]);
    ASSERT_EQ(bytes_of(encoded[i]), bytes_of(expected)) << std::hex << bits(numbers[i]);
  }
}

TEST(Codes, HaveTheBitsOfTheScalarFunctions) {
  for (Isa isa : usable_isas())
    for (std::size_t i = 0; i < Formats::size; ++i)
      visit_format(static_cast<DType>(i), [isa](auto format) { check_format<decltype(format)>(isa); });
}

TEST(Codes, AreWrittenUpToTheCount) {
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

TEST(Codes, AreMadeAlikeWhereTheLargestNumberIsFound) {
  const auto numbers = values();
  for (Isa isa : usable_isas())
    for (DType dtype : {DType::f16, DType::bf16}) {
      const EncodeFinding find = finding_encoder(isa, dtype);
      ASSERT_EQ(find != nullptr, isa != Isa::baseline);
      std::size_t count = 1;
      for (std::size_t i = 0; find && i + count <= numbers.size(); i += count, count = count % 67 + 1) {
        const auto run = static_cast<std::int64_t>(count);
        std::vector<std::uint16_t> expected(count + 1, 0xabab), found(count + 1, 0xabab);
        encoder(isa, dtype)(numbers.data() + i, expected.data(), run);
        float largest = 0;
        for (std::size_t j = i; j < i + count && !std::isnan(largest); ++j)
          largest = std::isnan(numbers[j]) ? numbers[j] : std::max(largest, std::abs(numbers[j]));
        const float given = find(numbers.data() + i, found.data(), run);
        ASSERT_EQ(found, expected) << name_of(isa) << " " << i;
        ASSERT_TRUE(given == largest || (std::isnan(given) && std::isnan(largest))) << name_of(isa) << " " << i;
      }
      if (find) {
        ASSERT_EQ(find(numbers.data(), nullptr, 0), 0);
      }
    }
}

TEST(Draw, GivesTheBitsOfAnyElements) {
  const RandomKey key{0x123456789abcULL, 0x100000007ULL, 5};
  for (Isa isa : usable_isas())
    for (std::int64_t first : {0, 1, 2, 3, 4, 1021, 4096})
      for (std::int64_t count : {0, 1, 3, 4, 5, 1023, 1024}) {
        std::vector<std::uint32_t> drawn(static_cast<std::size_t>(count) + 1, 0xabababab);
        drawer(isa)(key, first, count, drawn.data());
        for (std::int64_t i = 0; i < count; ++i)
          ASSERT_EQ(drawn[static_cast<std::size_t>(i)],
                    halftone::bits(key.seed, key.step, key.stream, static_cast<std::uint64_t>(first + i)));
        ASSERT_EQ(drawn.back(), 0xabababab);
      }
}

Storage with(Storage storage, Scaling scaling, int exponent = 0) {
  storage.scaling = scaling;
  storage.exponent = static_cast<std::int8_t>(exponent);
  return storage;
}

Storage other_overflow(Storage storage) {
  storage.overflow = storage.overflow == Overflow::saturate ? Overflow::infinity : Overflow::saturate;
  return storage;
}

TEST(Round, GivesTheGridsNumbers) {
  std::vector<float> x;
  for (float from = -12; from < 12; from += 0.37f) x.push_back(from);
  const RandomKey key{1, 2, 3};
  for (const Rounding rounding : {Rounding::nearest, Rounding::stochastic, Rounding::toward_zero})
    for (const Grid& grid : {Grid::floating(4, 3, rounding), Grid::fixed(4, 4, rounding), Grid::binary(rounding)})
      for (const Isa isa : usable_isas()) {
        std::vector<float> rounded(x.size());
        rounder(isa, grid)(grid, key, 0, std::ssize(x), x.data(), rounded.data());
        for (std::size_t i = 0; i < x.size(); ++i)
          EXPECT_EQ(rounded[i], grid(x[i], key.uniform(i))) << x[i] << " " << name_of(isa);
      }
}

/// Each code with each rounding and each kind of scale, codes of which some bits are used, blocks short and long.
std::vector<Storage> storages() {
  std::vector<Storage> all;
  for (Rounding rounding : {Rounding::nearest, Rounding::stochastic, Rounding::toward_zero}) {
    for (std::size_t i = 0; i < Formats::size; ++i) {
      const Storage storage(static_cast<DType>(i), rounding);
      all.push_back(storage);
      all.push_back(with(storage, Scaling::constant, -5));
      all.push_back(with(storage, Scaling::constant, 120));
      all.push_back(with(storage, Scaling::range));
    }
    for (int width : {2, 5, 12, 18, 30}) all.push_back(Storage::fixed(2, width - 2, rounding));
    all.push_back(other_overflow({DType::f16, rounding}));
  }
  for (DType code : {DType::e2m1, DType::e4m3, DType::sign, DType::f16})
    for (int block : {8, 32, 512, 2048}) all.push_back(Storage::blocks(code, block));
  for (Rounding rounding : {Rounding::nearest, Rounding::stochastic})
    for (int block : {16, 1024})
      all.push_back(with(Storage::nested_blocks(DType::e2m1, block, rounding), Scaling::range));
  const std::size_t count = all.size();
  for (std::size_t i = 0; i < count; ++i) {
    Storage storage = all[i];
    storage.noticed = true;
    all.push_back(storage);
  }
  return all;
}

/// Small, large, tiny, on and between grid points; some that are not finite where `special`.
std::vector<float> numbers(std::int64_t count, unsigned seed, bool special) {
  std::mt19937 random(seed);
  std::vector<float> all(static_cast<std::size_t>(count));
  for (float& x : all) {
    const float mantissa = static_cast<float>(static_cast<std::int32_t>(random())) * 0x1p-31f;
    const int kind = static_cast<int>(random() % 8);
    x = kind < 5    ? mantissa * 4
        : kind == 5 ? std::round(mantissa * 64) / 4
                    : std::ldexp(mantissa, kind == 6 ? 17 : -24);
    if (random() % 16 == 0) x = 0;
  }
  const float specials[] = {INFINITY, -INFINITY, NAN, -0.0f, 3e38f, -3e38f, 1e-45f};
  for (std::size_t i = 3; special && i < all.size(); i += 97) all[i] = specials[i / 97 % 7];
  return all;
}

std::string describe(const Storage& s) {
  return std::string(name_of(s.code)) + " rounding " + std::to_string(static_cast<int>(s.rounding)) + " scaling " +
         std::to_string(static_cast<int>(s.scaling)) + " 2^" + std::to_string(s.exponent) + " width " +
         std::to_string(s.width) + " block " + std::to_string(s.block) + (s.noticed ? " noticed" : "");
}

/// A stored tensor with all that it takes to write it.
struct Stored {
  TensorSpec spec;
  RangeState range{.scale = 0.25f, .next = 8};
  StepState state{};
  std::vector<std::byte> bytes;

  explicit Stored(const TensorSpec& spec) : spec(spec), bytes(spec.bytes() + 1, std::byte{0xab}) {
    state.seed = 0x123456789abcULL;
    state.steps = 77;
  }
  Memory memory() { return {bytes.data(), spec.storage.has_range() ? &range : nullptr, 9}; }
  RandomKey key() const { return {state.seed, 77, 9}; }
  std::int64_t count() const { return spec.shape.elements(); }
};

/// Runs that `granule` allows, of lengths around the chunk, in any order.
std::vector<std::pair<std::int64_t, std::int64_t>> runs(std::int64_t count, std::int64_t granule) {
  std::vector<std::pair<std::int64_t, std::int64_t>> all;
  const std::int64_t lengths[] = {1, 3, 1024, 7, 2500, 63};
  for (std::int64_t first = 0, i = 0; first < count; ++i) {
    const std::int64_t length = (lengths[i % 6] + granule - 1) / granule * granule;
    all.emplace_back(first, std::min(length, count - first));
    first += length;
  }
  std::shuffle(all.begin(), all.end(), std::mt19937(3));
  return all;
}

void expect_equal(const Noticed& a, const Noticed& b) {
  EXPECT_EQ(a.count, b.count);
  EXPECT_EQ(a.zeros, b.zeros);
  EXPECT_EQ(a.flushed, b.flushed);
  EXPECT_EQ(a.saturated, b.saturated);
  EXPECT_EQ(a.upper_half, b.upper_half);
  EXPECT_EQ(a.largest, b.largest);
}

/// What a plain storage gives is its code's own `encode`, elsewhere `write_numbers` is the definition.
void check_writing(Isa isa, const Storage& storage, bool special) {
  const TensorSpec spec{{1, 1, 1, 9001}, storage};
  const auto from = numbers(spec.shape.elements(), 5, special);
  Stored actual(spec), expected(spec);
  const Access access(isa, spec);
  const Memory memory = actual.memory();
  const Output output(access, {{}, {&memory, 1}, nullptr, &actual.state}, 0);
  for (const auto& [first, count] : runs(actual.count(), storage.granule())) output(first, count, from.data() + first);
  ThreadsCounts::settle();
  if (storage.plain()) {
    visit_format(storage.code, [&](auto format) {
      for (std::size_t i = 0; i < from.size(); ++i) {
        const auto code = format.encode(from[i]);
        std::memcpy(expected.bytes.data() + i * sizeof code, &code, sizeof code);
      }
    });
  } else {
    write_numbers(storage, expected.bytes.data(), expected.count(), 0, expected.count(), from.data(), expected.key(),
                  storage.has_range() ? expected.range.next : 1.0f,
                  storage.noticed ? &expected.range.noticed : nullptr);
  }
  for (std::size_t i = 0; i < actual.bytes.size(); ++i) ASSERT_EQ(actual.bytes[i], expected.bytes[i]) << "byte " << i;
  expect_equal(actual.range.noticed, expected.range.noticed);
  std::vector<float> again(from.size());
  output.read_back(0, actual.count(), again.data());
  for (std::int64_t i = 0; i < actual.count(); ++i) {
    const float number = read_number(storage, actual.bytes.data(), actual.count(), i, actual.range.next);
    ASSERT_TRUE(bits(again[static_cast<std::size_t>(i)]) == bits(number) || std::isnan(number)) << i;
  }
}

TEST(Storage, IsWrittenAsItIsDefined) {
  for (Isa isa : usable_isas())
    for (const Storage& storage : storages())
      for (bool special : {false, true}) {
        SCOPED_TRACE(describe(storage) + " " + name_of(isa) + (special ? ", not all finite" : ""));
        check_writing(isa, storage, special);
        if (HasFatalFailure()) return;
      }
}

/// The unit that encodes bf16 takes them for zeros.
TEST(Storage, DenormalNumbersAmongOthersAreEncoded) {
  std::vector<float> from(1000, 0.3f);
  for (std::size_t i = 7; i < from.size(); i += 90) from[i] = -0x1.8p-128f;
  for (Isa isa : usable_isas())
    for (const bool zeros : {false, true}) {
      from[500] = zeros ? 0.0f : 1.0f;
      Storage storage(DType::bf16);
      storage.noticed = true;
      const TensorSpec spec{{1, 1, 1, 1000}, storage};
      Stored stored(spec);
      const Access access(isa, spec);
      const Memory memory = stored.memory();
      Output(access, {{}, {&memory, 1}, nullptr, &stored.state}, 0)(0, 1000, from.data());
      for (std::size_t i = 0; i < from.size(); ++i)
        ASSERT_EQ(reinterpret_cast<const std::uint16_t*>(stored.bytes.data())[i], BF16::encode(from[i]))
            << i << " " << name_of(isa);
      EXPECT_EQ(stored.range.noticed.zeros, zeros);
      EXPECT_EQ(stored.range.noticed.flushed, 0);
    }
}

TEST(Storage, BadActivationsAreNotedWhereverTheyAre) {
  constexpr std::int64_t most = 40;
  constexpr float infinity = std::numeric_limits<float>::infinity();
  for (Isa isa : usable_isas())
    for (DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      const ValueSpec spec{{1, 1, 1, most}, dtype, Role::activation};
      const Access access(isa, spec);
      const auto is_bad = [&](const std::vector<float>& from) {
        Stored stored(spec.tensor());
        Memory memory = stored.memory();
        memory.node = 4;
        Output(access, {{}, {&memory, 1}, nullptr, &stored.state}, 0)(0, std::ssize(from), from.data());
        return stored.state.bad_node == 4;
      };
      for (std::size_t count = 0; count <= most; ++count) {
        std::vector<float> from(count, -65504.0f);
        EXPECT_FALSE(is_bad(from)) << name_of(isa);
        for (std::size_t i = 0; i < count; ++i)
          for (const float bad : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN(), 65520.0f}) {
            from[i] = bad;
            EXPECT_EQ(is_bad(from), bad != 65520.0f || dtype == DType::f16) << name_of(isa) << " " << bad << " " << i;
            from[i] = 1;
          }
      }
    }
}

TEST(Columns, TermsAreAddedRowByRow) {
  std::mt19937 random(9);
  std::uniform_real_distribution<float> uniform(-1, 1);
  const auto numbers_of = [&](std::int64_t count) {
    std::vector<float> some(static_cast<std::size_t>(count));
    for (float& x : some) x = uniform(random);
    return some;
  };
  for (Isa isa : usable_isas())
    for (const std::int64_t width : {1, 3, 7, 16, 17, 35, 64, 257})
      for (const std::int64_t count : {width - 1, width, 3 * width + width / 2, 9 * width}) {
        const auto x = numbers_of(count), d = numbers_of(count), shift = numbers_of(width);
        const std::vector<double> begun(static_cast<std::size_t>(2 * width), 0.1);
        const auto check = [&](int kinds, auto loop, auto term) {
          std::vector<double> expected(begun.begin(), begun.begin() + kinds * width), sums = expected;
          for (std::int64_t i = 0; i < count; ++i)
            for (int k = 0; k < kinds; ++k)
              expected[static_cast<std::size_t>(k * width + i % width)] +=
                  term(k, static_cast<std::size_t>(i), static_cast<std::size_t>(i % width));
          loop(sums.data());
          EXPECT_EQ(sums, expected) << name_of(isa) << " " << width << " " << count;
        };
        const ColumnLoops& loops = column_loops(isa);
        check(
            1, [&](double* sums) { loops.sum(x.data(), count, width, sums); },
            [&](int, std::size_t i, std::size_t) { return static_cast<double>(x[i]); });
        check(
            2, [&](double* sums) { loops.moments(x.data(), shift.data(), count, width, sums); },
            [&](int k, std::size_t i, std::size_t j) {
              const double shifted = static_cast<double>(x[i]) - static_cast<double>(shift[j]);
              return k == 0 ? shifted : shifted * shifted;
            });
        check(
            2, [&](double* sums) { loops.gradient_sums(d.data(), x.data(), shift.data(), count, width, sums); },
            [&](int k, std::size_t i, std::size_t j) {
              return static_cast<double>(k == 0 ? d[i] : d[i] * (x[i] - shift[j]));
            });
      }
}

TEST(Storage, RunsMayLieApart) {
  constexpr std::int64_t runs = 30, length = 13, step = 20;
  const auto from = numbers(runs * length, 8, true);
  for (Isa isa : usable_isas())
    for (const Storage& storage : storages()) {
      if (storage.granule() > 1) continue;
      SCOPED_TRACE(describe(storage) + " " + name_of(isa));
      const TensorSpec spec{{1, 1, runs, step}, storage};
      Stored at_once(spec), one_by_one(spec);
      const Access access(isa, spec);
      const auto store = [&](Stored& to, auto with) {
        const Memory memory = to.memory();
        with(Output(access, {{}, {&memory, 1}, nullptr, &to.state}, 0));
      };
      store(at_once, [&](const Output& output) { output(0, step, runs, length, from.data()); });
      store(one_by_one, [&](const Output& output) {
        for (std::int64_t i = 0; i < runs; ++i) output(i * step, length, from.data() + i * length);
      });
      EXPECT_EQ(at_once.bytes, one_by_one.bytes);
      expect_equal(at_once.range.noticed, one_by_one.range.noticed);
    }
}

/// Any bytes; a NaN times a NaN may have the bits of either.
void check_reading(Isa isa, const Storage& storage) {
  Stored stored({{1, 1, 1, 5003}, storage});
  std::mt19937 random(7);
  for (std::byte& byte : stored.bytes) byte = static_cast<std::byte>(random());
  const Access access(isa, stored.spec);
  const Input input(access, stored.memory());
  std::vector<float> buffer(3000, -7.0f);
  for (std::int64_t first : {0, 1, 5, 8, 1000, 2003})
    for (std::int64_t count : {0, 1, 2, 7, 9, 31, 1024, 1031, 3000}) {
      const float* read = input(first, count, buffer.data());
      for (std::int64_t i = 0; i < count; ++i) {
        const float expected = read_number(storage, stored.bytes.data(), stored.count(), first + i,
                                           storage.has_range() ? stored.range.scale : 1.0f);
        ASSERT_TRUE(bits(read[i]) == bits(expected) || (std::isnan(read[i]) && std::isnan(expected)))
            << first << " + " << i << ": " << read[i] << ", not " << expected;
      }
      for (std::size_t i = static_cast<std::size_t>(count); i < buffer.size() && !access.f32; ++i)
        ASSERT_EQ(std::exchange(buffer[i], -7.0f), -7.0f) << "behind " << count;
      std::fill(buffer.begin(), buffer.end(), -7.0f);
    }
}

TEST(Storage, IsReadAsItIsDefined) {
  for (Isa isa : usable_isas())
    for (const Storage& storage : storages()) {
      SCOPED_TRACE(describe(storage) + " " + name_of(isa));
      check_reading(isa, storage);
      if (HasFatalFailure()) return;
    }
}

TEST(Storage, NoticesTheSameWhateverTheThreads) {
  Storage storage = Storage::fixed(3, 5, Rounding::stochastic);
  storage.noticed = true;
  const TensorSpec spec{{1, 1, 100, 999}, storage};
  const auto from = numbers(spec.shape.elements(), 6, false);
  Stored one(spec), three(spec);
  const Access access(best_isa(), spec);
  for (const auto& [stored, threads] : {std::pair{&one, 1}, {&three, 3}}) {
    const Memory memory = stored->memory();
    const Output output(access, {{}, {&memory, 1}, nullptr, &stored->state}, 0);
    parallel_for(threads, 100, [&](std::int64_t row) { output(row * 999, 999, from.data() + row * 999); });
  }
  EXPECT_EQ(one.bytes, three.bytes);
  expect_equal(one.range.noticed, three.range.noticed);
  EXPECT_EQ(one.range.noticed.count, spec.shape.elements());
  EXPECT_GT(one.range.noticed.saturated, 0);
  EXPECT_GT(one.range.noticed.flushed, 0);
}

TEST(Isa, NamesAreParsed) {
  for (Isa isa : all_isas) EXPECT_EQ(parse_isa(name_of(isa)), isa);
  EXPECT_EQ(parse_isa("auto"), best_isa());
  EXPECT_EQ(parse_isa("sse9"), std::nullopt);
  EXPECT_TRUE(supported(best_isa()));
}

TEST(ParallelFor, RunsEveryTaskOnceWhateverTheThreads) {
  for (int threads : {1, 2, 70, 3, 8}) {
    for (std::int64_t tasks : {0, 1, 2, 7, 64, 1000}) {
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
