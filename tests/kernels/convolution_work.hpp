#pragma once
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <functional>
#include <list>
#include <new>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu/convolution.hpp"

// Convolutions to run with one launch or another.
namespace halftone::cpu {

/// Those whose f32 code differs.
inline std::vector<Isa> usable_isas() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512})
    if (supported(isa)) isas.push_back(isa);
  return isas;
}

inline std::vector<PairUnit> usable_units() {
  std::vector<PairUnit> units;
  for (PairUnit unit : all_pair_units)
    if (supported(unit)) units.push_back(unit);
  return units;
}

/// Memory between two guard zones, filled with a pattern that is NaN in every format.
class Guarded {
 public:
  explicit Guarded(std::size_t bytes) : bytes_(bytes), memory_(bytes + 2 * zone, pattern) {}
  void* data() { return memory_.data() + zone; }
  std::vector<std::byte> content() const { return {memory_.begin() + zone, memory_.end() - zone}; }
  void expect_intact() const {
    for (std::size_t i = 0; i < zone; ++i) {
      ASSERT_EQ(memory_[i], pattern) << "before";
      ASSERT_EQ(memory_[zone + bytes_ + i], pattern) << "behind";
    }
  }

 private:
  static constexpr std::size_t zone = 192;
  static constexpr std::byte pattern{0xff};
  std::size_t bytes_;
  std::vector<std::byte> memory_;
};

/// A tensor that can only be read, right before memory that cannot be touched at all.
class ReadOnly {
 public:
  ReadOnly(const Storage& storage, const std::vector<float>& values) {
    const std::size_t bytes = storage.bytes(std::ssize(values)), page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t readable = (bytes + page - 1) / page * page;
    size_ = readable + page;
    pages_ = static_cast<std::byte*>(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (pages_ == MAP_FAILED) throw std::bad_alloc();
    data_ = pages_ + readable - bytes;
    write_numbers(storage, data_, std::ssize(values), 0, std::ssize(values), values.data());
    mprotect(pages_, readable, PROT_READ);
    mprotect(pages_ + readable, page, PROT_NONE);
  }
  ~ReadOnly() { munmap(pages_, size_); }
  ReadOnly(const ReadOnly&) = delete;
  ReadOnly& operator=(const ReadOnly&) = delete;
  const std::byte* data() const { return data_; }

 private:
  std::byte *pages_, *data_;
  std::size_t size_;
};

inline std::vector<float> read(const Storage& storage, std::size_t count, const std::vector<std::byte>& stored) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i)
    values[i] = read_number(storage, stored.data(), static_cast<std::int64_t>(count), static_cast<std::int64_t>(i));
  return values;
}

inline void write(const Storage& storage, const std::vector<float>& values, Guarded& to) {
  write_numbers(storage, static_cast<std::byte*>(to.data()), std::ssize(values), 0, std::ssize(values), values.data());
}

inline std::int64_t out_size(std::int64_t in, std::int64_t taps, int stride, int pad, int dilation) {
  return (in + 2 * pad - dilation * (taps - 1) - 1) / stride + 1;
}

inline ConvProblem sized(ConvProblem c) {
  c.p = out_size(c.h, c.r, c.stride_h, c.pad_h, c.dilation_h);
  c.q = out_size(c.w, c.s, c.stride_w, c.pad_w, c.dilation_w);
  return c;
}

inline ConvProblem dense(std::int64_t n, std::int64_t c, std::int64_t k) { return {.n = n, .c = c, .k = k}; }

inline constexpr Direction directions[] = {Direction::forward, Direction::d_input, Direction::d_weight};

/// The operands of a direction and the length of its sums.
struct Sizes {
  std::int64_t left, right, result, terms;
};

inline Sizes sizes(const ConvProblem& c, Direction direction) {
  const std::int64_t x = c.n * c.h * c.w * c.c, y = c.n * c.p * c.q * c.k, w = c.k * c.r * c.s * (c.c / c.groups);
  switch (direction) {
    case Direction::forward:
      return {x, w, y, c.r * c.s * c.c / c.groups};
    case Direction::d_input:
      return {y, w, x, c.r * c.s * c.k / c.groups};
    case Direction::d_weight:
      break;
  }
  return {x, y, w, c.n * c.p * c.q};
}

/// One direction with all operands stored alike; forward adds a bias and a relu.
struct Work {
  ConvProblem problem;
  Direction direction;
  Storage storage;
  std::vector<float> left, right, bias;

  Convolution convolution(const Storage& result) const {
    Convolution c{problem,
                  direction,
                  {{spec(left, storage), spec(right, storage)}, {{1, 1, 1, sizes(problem, direction).result}, result}}};
    if (direction == Direction::forward) c.operands.inputs.push_back(spec(bias, storage)), c.activation = Relu{};
    return c;
  }

  /// What a launch of this convolution writes.
  std::vector<std::byte> run(const Launch& launch, const Storage& result) const {
    const std::vector<float>* values[] = {&left, &right, &bias};
    std::list<ReadOnly> tensors;
    std::vector<Memory> inputs;
    const std::size_t count = direction == Direction::forward ? 3 : 2;
    for (std::size_t i = 0; i < count; ++i)
      inputs.push_back({const_cast<std::byte*>(tensors.emplace_back(storage, *values[i]).data())});
    Guarded to(result.bytes(sizes(problem, direction).result)), workspace(launch.workspace);
    StepState state;
    const Memory output{to.data(), nullptr, 7};
    launch.run({inputs, {&output, 1}, workspace.data(), &state});
    workspace.expect_intact();
    to.expect_intact();
    return to.content();
  }

  std::vector<float> exact() const {
    return read(DType::f32, result_count(), run(reference(convolution(DType::f32)), DType::f32));
  }
  std::vector<std::byte> engine(Isa isa, int threads) const {
    return run(implicit_gemm(convolution(storage), isa, threads), storage);
  }
  /// By what it adds to d_input, in data gradients that this can do; else nothing.
  std::optional<std::vector<std::byte>> in_columns(Isa isa, int threads, const Storage& result) const {
    const Convolution c = convolution(result);
    if (!decline_col2im(c).empty()) return std::nullopt;
    return run(col2im(c, isa, threads), result);
  }
  std::vector<std::byte> in_pairs(PairUnit unit, int threads) const {
    return run(pairs(convolution(storage), unit, best_isa(), threads), storage);
  }
  /// With the numbers as they are stored.
  Work rounded() const {
    Work work{problem, direction, DType::f32, left, right, bias};
    for (auto* values : {&work.left, &work.right, &work.bias}) {
      std::vector<std::byte> bytes(storage.bytes(std::ssize(*values)));
      write_numbers(storage, bytes.data(), std::ssize(*values), 0, std::ssize(*values), values->data());
      *values = read(storage, values->size(), bytes);
    }
    return work;
  }
  std::size_t result_count() const { return static_cast<std::size_t>(sizes(problem, direction).result); }

 private:
  static ValueSpec spec(const std::vector<float>& values, const Storage& storage) {
    return {{1, 1, 1, std::ssize(values)}, storage};
  }
};

inline Work make_work(const ConvProblem& problem, Direction direction, const Storage& storage,
                      const std::function<float()>& number) {
  const Sizes size = sizes(problem, direction);
  Work work{problem, direction, storage, {}, {}, {}};
  for (auto [values, count] : {std::pair{&work.left, size.left}, {&work.right, size.right}, {&work.bias, problem.k}}) {
    values->resize(static_cast<std::size_t>(count));
    for (float& x : *values) x = number();
  }
  return work;
}

inline std::vector<std::byte> stored(const Storage& storage, const std::vector<float>& values) {
  Guarded to(storage.bytes(std::ssize(values)));
  write(storage, values, to);
  return to.content();
}

inline std::string describe(const Work& work, const std::string& how) {
  std::ostringstream text;
  const ConvProblem& c = work.problem;
  text << how << ' ' << name_of(work.storage.code) << " direction " << static_cast<int>(work.direction);
  for (std::int64_t x : {c.n, c.h, c.w, c.c, c.k, c.r, c.s, c.p, c.q}) text << ' ' << x;
  return text.str();
}
inline std::string describe(const Work& work, Isa isa) { return describe(work, std::string(name_of(isa))); }
inline std::string describe(const Work& work, PairUnit unit) {
  return describe(work, "unit " + std::to_string(static_cast<int>(unit)));
}

}  // namespace halftone::cpu
