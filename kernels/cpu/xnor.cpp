#define HWY_WANT_AVX3_DL  // has VPOPCNTDQ
#include "kernels/cpu/xnor.hpp"

#include <hwy/targets.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "kernels/cpu/activation.hpp"
#include "kernels/cpu/columns.hpp"
#include "kernels/cpu/storage.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/xnor.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using Words = hn::ScalableTag<std::uint64_t>;
using Sums = hn::Vec<Words>;

constexpr bool is_wide = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL;
constexpr std::int64_t lanes = hn::MaxLanes(Words());
constexpr int tile_pixels = is_wide ? 6 : 4, tile_vectors = is_wide ? 4 : 2;
constexpr std::int64_t most_in_bytes = 63;  // words whose counts, of at most 4 a byte, fit a byte

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
constexpr bool split = true;
using Bytes = hn::Repartition<std::uint8_t, Words>;

/// Sums of a word's bits; here byte by byte.
HWY_INLINE Sums add_count(Sums sum, Sums word) {
  alignas(16) static constexpr std::uint8_t of_half[16] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};
  const Bytes bytes;
  const auto counts = hn::TableLookupBytes(hn::LoadDup128(bytes, of_half), hn::BitCast(bytes, word));
  return hn::BitCast(Words(), hn::Add(hn::BitCast(bytes, sum), counts));
}
HWY_INLINE Sums settled(Sums sum) { return hn::SumsOf8(hn::BitCast(Bytes(), sum)); }
#else
constexpr bool split = false;

HWY_INLINE Sums add_count(Sums sum, Sums word) { return hn::Add(sum, hn::PopulationCount(word)); }
HWY_INLINE Sums settled(Sums sum) { return sum; }
#endif

template <int pixels, int vectors>
void count_tile(std::int64_t words, const std::uint64_t* HWY_RESTRICT signs, const std::uint64_t* HWY_RESTRICT panel,
                std::int32_t* HWY_RESTRICT counts, std::int64_t stride) {
  const Words d;
  Sums total[pixels][vectors];
  for (auto& row : total)
    for (Sums& sum : row) sum = hn::Zero(d);
  for (std::int64_t done = 0, some; done < words; done += some) {
    some = split ? std::min(most_in_bytes, words - done) : words;
    Sums sum[pixels][vectors];
#pragma GCC unroll 8
    for (int i = 0; i < pixels; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) sum[i][j] = hn::Zero(d);
    for (std::int64_t w = done; w < done + some; ++w, panel += vectors * lanes) {
      Sums filters[vectors];
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) filters[j] = hn::LoadU(d, panel + j * lanes);
#pragma GCC unroll 8
      for (int i = 0; i < pixels; ++i) {
        const Sums pixel = hn::Set(d, signs[i * words + w]);
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j) sum[i][j] = add_count(sum[i][j], hn::Xor(pixel, filters[j]));
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < pixels; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) total[i][j] = hn::Add(total[i][j], settled(sum[i][j]));
  }
  const hn::Rebind<std::uint32_t, Words> narrow;
  for (int i = 0; i < pixels; ++i)
    for (int j = 0; j < vectors; ++j)
      hn::StoreU(hn::TruncateTo(narrow, total[i][j]), narrow,
                 reinterpret_cast<std::uint32_t*>(counts + i * stride + j * lanes));
}

/// Tiles by pixels and vectors.
constexpr auto tiles = []<int... i>(std::integer_sequence<int, i...>) {
  return std::array{&count_tile<i / tile_vectors + 1, i % tile_vectors + 1>...};
}
(std::make_integer_sequence<int, tile_pixels * tile_vectors>());

void count(std::int64_t pixels, std::int64_t words, const std::uint64_t* signs, std::int64_t filters,
           const std::uint64_t* panel, std::int32_t* counts, std::int64_t stride) {
  for (std::int64_t done = 0, some; done < pixels; done += some) {
    some = std::min<std::int64_t>(tile_pixels, pixels - done);
    tiles[static_cast<std::size_t>((some - 1) * tile_vectors + filters / lanes - 1)](words, signs + done * words, panel,
                                                                                     counts + done * stride, stride);
  }
}

void finish(const std::int32_t* HWY_RESTRICT counts, std::int32_t signs, const float* HWY_RESTRICT bias,
            std::int64_t filters, float* HWY_RESTRICT y) {
#pragma omp simd
  for (std::int64_t k = 0; k < filters; ++k) y[k] = static_cast<float>(signs - 2 * counts[k]) + bias[k];
}

void compare(const std::int32_t* HWY_RESTRICT counts, std::int32_t signs, const std::int32_t* HWY_RESTRICT direction,
             const std::int32_t* HWY_RESTRICT threshold, std::int64_t filters, std::uint8_t* HWY_RESTRICT bits) {
  constexpr hn::CappedTag<std::int32_t, 8> d;
  constexpr std::int64_t step = hn::MaxLanes(d);
  for (std::int64_t k = 0; k < filters; k += 8, ++bits) {
    *bits = 0;
    for (std::int64_t i = 0; i < 8; i += step) {
      const auto differing = hn::LoadU(d, counts + k + i);
      const auto sum = hn::Sub(hn::Set(d, signs), hn::Add(differing, differing));
      const auto one = hn::Mul(sum, hn::LoadU(d, direction + k + i));
      std::uint8_t some[8] = {};
      hn::StoreMaskBits(d, hn::Not(hn::Lt(one, hn::LoadU(d, threshold + k + i))), some);
      *bits = static_cast<std::uint8_t>(*bits | some[0] << i);
    }
  }
}

constexpr XnorLoops loops = {split, lanes, tile_vectors* lanes, count, finish, compare};

}  // namespace
}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {
namespace {

/// Signs [first, first + count) of a tensor, at most 64.
std::uint64_t signs_at(std::span<const std::byte> data, std::int64_t first, std::int64_t count) {
  const auto at = static_cast<std::size_t>(first / 8);
  const int shift = static_cast<int>(first % 8);
  std::uint64_t word = 0;
  if (at + 8 <= data.size()) {
    std::memcpy(&word, data.data() + at, 8);
  } else {
    std::memcpy(&word, data.data() + at, data.size() - at);
  }
  word >>= shift;
  if (shift + count > 64) word |= std::to_integer<std::uint64_t>(data[at + 8]) << (64 - shift);
  return count < 64 ? word & ((std::uint64_t{1} << count) - 1) : word;
}

/// Copies them to where bits from `place` on are 0.
void copy_signs(std::span<const std::byte> data, std::int64_t first, std::int64_t count, std::uint64_t* to,
                std::int64_t place) {
  for (std::int64_t done = 0, some; done < count; done += some, place += some) {
    some = std::min<std::int64_t>(64, count - done);
    const std::uint64_t word = signs_at(data, first + done, some);
    to[place / 64] |= word << place % 64;
    if (place % 64 + some > 64) to[place / 64 + 1] |= word >> (64 - place % 64);
  }
}

/// Whether an output of this extent, at its first or last place, has taps outside the input.
bool leaves(std::int64_t in, std::int64_t out, std::int64_t taps, int stride, int padding, int dilation) {
  return padding > 0 || (out - 1) * stride - padding + (taps - 1) * dilation >= in;
}

class Xnor {
 public:
  Xnor(const Convolution& convolution, const XnorLoops& loops, Isa isa, int threads, std::optional<NormFactor> norm,
       bool rising)
      : problem_(convolution.problem),
        loops_(loops),
        threads_(threads),
        activation_(convolution.activation),
        activate_(activation_ ? activation_loop(isa, *activation_) : nullptr),
        norm_(normalizer(isa, {})),
        norm_factor_(norm),
        rising_(rising),
        has_bias_(convolution.operands.inputs.size() > (norm ? 6 : 2)),
        output_(isa, convolution.operands.output),
        channels_(problem_.c / problem_.groups),
        filters_(problem_.k / problem_.groups),
        padded_((filters_ + loops.lanes - 1) / loops.lanes * loops.lanes),
        depth_(problem_.r * problem_.s * channels_),
        words_((depth_ + 63) / 64 * (loops.split ? 2 : 1)),
        block_(std::clamp<std::int64_t>((1 << 16) / std::max(padded_, 2 * words_), 12, 96) / 12 * 12),
        leaves_input_(
            leaves(problem_.h, problem_.p, problem_.r, problem_.stride_h, problem_.pad_h, problem_.dilation_h) ||
            leaves(problem_.w, problem_.q, problem_.s, problem_.stride_w, problem_.pad_w, problem_.dilation_w)),
        input_bytes_(convolution.operands.inputs[0].tensor().bytes()),
        weight_bytes_(convolution.operands.inputs[1].tensor().bytes()),
        panels_(words_ * padded_, problem_.groups, bytes_),
        ones_(padded_, leaves_input_ ? problem_.groups * problem_.r * problem_.s : 0, bytes_),
        vectors_(padded_ * problem_.groups, norm ? 5 : 1, bytes_),
        thresholds_(padded_ * problem_.groups, norm ? 2 : 0, bytes_),
        signs_(block_ * words_, threads, bytes_),
        counts_(block_ * padded_, threads, bytes_),
        rows_(padded_, threads, bytes_) {
    for (std::size_t i = 2; i < convolution.operands.inputs.size(); ++i)
      accesses_.emplace_back(isa, convolution.operands.inputs[i]);
  }

  std::size_t workspace() const { return bytes_; }

  void operator()(const Arguments& a) const {
    pack(a);
    read_vectors(a);
    const Output output(output_, a, 0);
    const std::int64_t pixels = problem_.n * problem_.p * problem_.q;
    parallel_for(threads_, (pixels + block_ - 1) / block_, [&](std::int64_t task, int thread) {
      const std::int64_t first = task * block_, count = std::min(block_, pixels - first);
      for (std::int64_t group = 0; group < problem_.groups; ++group) multiply(a, output, first, count, group, thread);
    });
  }

 private:
  enum { bias, mean, factor, offset, variance };  // of vectors_
  enum { direction, threshold };                  // of thresholds_

  std::int64_t taps() const { return problem_.r * problem_.s; }

  /// words [words_]: signs as `copy` gives them, split where the loops want it.
  template <class F>
  void gather(std::uint64_t* words, F&& copy) const {
    std::fill_n(words, words_, 0);
    copy(words);
    if (!loops_.split) return;
    constexpr std::uint64_t halves = 0x0f0f0f0f0f0f0f0f;
    for (std::int64_t w = words_ / 2; w-- > 0;) {
      const std::uint64_t whole = words[w];
      words[2 * w] = whole & halves;
      words[2 * w + 1] = whole >> 4 & halves;
    }
  }

  /// Panels of filters, side by side, and what each tap has of ones.
  void pack(const Arguments& a) const {
    const std::span weight(a.in<std::byte>(1), weight_bytes_);
    const std::int64_t panels = (padded_ + loops_.panel - 1) / loops_.panel;
    parallel_for(threads_, problem_.groups * panels, [&](std::int64_t task, int thread) {
      const std::int64_t group = task / panels, col = task % panels * loops_.panel;
      const std::int64_t width = std::min(loops_.panel, padded_ - col);
      std::uint64_t *panel = panels_(a.workspace, group) + col * words_, *words = signs_(a.workspace, thread);
      for (std::int64_t j = 0; j < width; ++j) {
        const std::int64_t filter = group * filters_ + col + j;
        const bool exists = col + j < filters_;
        gather(words, [&](std::uint64_t* to) {
          if (exists) copy_signs(weight, filter * depth_, depth_, to, 0);
        });
        for (std::int64_t w = 0; w < words_; ++w) panel[w * width + j] = words[w];
        for (std::int64_t tap = 0; leaves_input_ && tap < taps(); ++tap) {
          std::int32_t& ones = ones_(a.workspace, group * taps() + tap)[col + j];
          ones = 0;
          for (std::int64_t c = 0; exists && c < channels_; c += 64)
            ones += std::popcount(
                signs_at(weight, filter * depth_ + tap * channels_ + c, std::min<std::int64_t>(64, channels_ - c)));
        }
      }
    });
  }

  /// The vector of `accesses_` i, [groups, padded_].
  void read(const Arguments& a, std::size_t i, float* to) const {
    const Input input(accesses_[i], a.inputs[i + 2]);
    for (std::int64_t group = 0; group < problem_.groups; ++group)
      input.copy(group * filters_, filters_, to + group * padded_);
  }

  void read_vectors(const Arguments& a) const {
    const std::int64_t count = problem_.groups * padded_;
    const auto vector = [&](int i) { return vectors_(a.workspace, i); };
    std::fill_n(vector(bias), count, 0.0f);
    if (has_bias_) read(a, 0, vector(bias));
    if (!norm_factor_) return;
    std::size_t order = has_bias_ ? 1 : 0;
    for (const int i : {mean, factor, offset}) std::fill_n(vector(i), count, 0.0f);
    std::fill_n(vector(variance), count, 1.0f);
    for (const int i : {factor, offset, mean, variance}) read(a, order++, vector(i));
    for (std::int64_t k = 0; k < count; ++k)
      vector(factor)[k] = (*norm_factor_)(vector(factor)[k], vector(variance)[k]);
    fold(a, count);
  }

  /// Finds for which sums the norm is not below 0: direction s >= threshold. By bisection of all thresholds at a time:
  /// what rounding makes of a sum still does not fall where the sum grows.
  void fold(const Arguments& a, std::int64_t count) const {
    const auto vector = [&](int i) { return vectors_(a.workspace, i); };
    auto *directions = thresholds_(a.workspace, direction), *least = thresholds_(a.workspace, threshold);
    const auto most = static_cast<std::int32_t>(depth_);
    float* x = vector(variance);
    for (std::int64_t k = 0; k < count; ++k) {
      directions[k] = vector(factor)[k] >= 0 ? 1 : -1;
      least[k] = -most;
    }
    for (std::int32_t left = 2 * most + 1, step; left > 0; left -= step) {
      step = (left + 1) / 2;
      for (std::int64_t k = 0; k < count; ++k)
        x[k] = static_cast<float>(directions[k] * (least[k] + step - 1)) + vector(bias)[k];
      norm_(x, vector(mean), vector(factor), vector(offset), count, count, x, Activation{});
      for (std::int64_t k = 0; k < count; ++k) least[k] += x[k] >= 0 ? 0 : step;
    }
    for (std::int64_t k = 0; rising_ && k < count; ++k)
      if (directions[k] < 0) directions[k] = 1, least[k] = 1 - least[k];
  }

  /// Calls f(tap, taps, place in the input's image) for the taps of a pixel in the input, as many at a time as lie side
  /// by side, and g(tap) for all others.
  template <class F, class G>
  void for_taps(std::int64_t i, std::int64_t j, F&& f, G&& g) const {
    const ConvProblem& p = problem_;
    const std::int64_t x0 = j * p.stride_w - p.pad_w, most = p.dilation_w == 1 && p.groups == 1 ? p.s : 1;
    for (std::int64_t r = 0; r < p.r; ++r) {
      const std::int64_t y = i * p.stride_h - p.pad_h + r * p.dilation_h;
      for (std::int64_t s = 0; s < p.s;) {
        const std::int64_t x = x0 + s * p.dilation_w;
        if (y < 0 || y >= p.h || x < 0 || x >= p.w) {
          g(r * p.s + s++);
          continue;
        }
        const std::int64_t run = std::min({most, p.s - s, p.w - x});
        f(r * p.s + s, run, y * p.w + x);
        s += run;
      }
    }
  }

  void multiply(const Arguments& a, const Output& output, std::int64_t first, std::int64_t count, std::int64_t group,
                int thread) const {
    const ConvProblem& p = problem_;
    const std::span input(a.in<std::byte>(0), input_bytes_);
    std::uint64_t* signs = signs_(a.workspace, thread);
    const auto place = [&](std::int64_t pixel) {
      return std::array{pixel / (p.p * p.q), pixel / p.q % p.p, pixel % p.q};
    };
    for (std::int64_t k = 0; k < count; ++k)
      gather(signs + k * words_, [&](std::uint64_t* to) {
        const auto [n, i, j] = place(first + k);
        const std::int64_t image = n * p.h * p.w;
        for_taps(
            i, j,
            [&](std::int64_t tap, std::int64_t run, std::int64_t at) {
              copy_signs(input, (image + at) * p.c + group * channels_, run * channels_, to, tap * channels_);
            },
            [](std::int64_t) {});
      });
    std::int32_t* counts = counts_(a.workspace, thread);
    for (std::int64_t col = 0; col < padded_; col += loops_.panel)
      loops_.count(count, words_, signs, std::min(loops_.panel, padded_ - col),
                   panels_(a.workspace, group) + col * words_, counts + col, padded_);
    for (std::int64_t k = 0; k < count; ++k, counts += padded_) {
      std::int64_t absent = 0;
      if (leaves_input_) {
        const auto [n, i, j] = place(first + k);
        for_taps(
            i, j, [](std::int64_t, std::int64_t, std::int64_t) {},
            [&](std::int64_t tap) {
              const std::int32_t* ones = ones_(a.workspace, group * taps() + tap);
              for (std::int64_t f = 0; f < filters_; ++f) counts[f] -= ones[f];
              absent += channels_;
            });
      }
      store(a, output, (first + k) * p.k + group * filters_, group * padded_, counts,
            static_cast<std::int32_t>(depth_ - absent), rows_(a.workspace, thread));
    }
  }

  void store(const Arguments& a, const Output& output, std::int64_t first, std::int64_t vectors,
             const std::int32_t* counts, std::int32_t signs, float* row) const {
    if (norm_factor_) {
      loops_.compare(counts, signs, thresholds_(a.workspace, direction) + vectors,
                     thresholds_(a.workspace, threshold) + vectors, filters_, a.out<std::uint8_t>(0) + first / 8);
      return;
    }
    float* y = output.place(first, row);
    loops_.finish(counts, signs, vectors_(a.workspace, bias) + vectors, filters_, y);
    if (activation_) activate_(*activation_, y, y, filters_);
    output(first, filters_, y);
  }

  ConvProblem problem_;
  XnorLoops loops_;
  int threads_;
  std::optional<Activation> activation_;
  ActivationLoop activate_;
  Normalize norm_;
  std::optional<NormFactor> norm_factor_;
  bool rising_, has_bias_;
  Access output_;
  std::vector<Access> accesses_;              // of the inputs from the third on
  std::int64_t channels_, filters_, padded_;  // of a group; filters rounded up to whole vectors
  std::int64_t depth_, words_, block_;        // signs of a sum, the words they take, pixels of a task
  bool leaves_input_;
  std::size_t input_bytes_, weight_bytes_, bytes_ = 0;
  Arrays<std::uint64_t> panels_;
  Arrays<std::int32_t> ones_;  // of each tap
  Arrays<float> vectors_;
  Arrays<std::int32_t> thresholds_;
  Arrays<std::uint64_t> signs_;  // of a block's pixels
  Arrays<std::int32_t> counts_;
  Arrays<float> rows_;
};

}  // namespace

bool counts_bits() { return (hwy::SupportedTargets() & HWY_TARGETS & HWY_AVX3_DL) != 0; }

const XnorLoops& xnor_loops(Isa isa, [[maybe_unused]] bool counting) {
#if HWY_TARGETS & HWY_AVX3_DL
  if (isa >= Isa::avx512 && counting) return N_AVX3_DL::loops;
#endif
  return HALFTONE_PER_ISA(isa, loops);
}

Launch xnor(const Convolution& convolution, const XnorLoops& loops, Isa isa, int threads,
            std::optional<NormFactor> norm, bool rising) {
  const Xnor run(convolution, loops, isa, threads, norm, rising);
  return {run, run.workspace()};
}

Launch xnor(const Convolution& convolution, Isa isa, int threads) {
  return xnor(convolution, xnor_loops(isa), isa, threads);
}

std::string decline_xnor(const Convolution& convolution) {
  const auto& inputs = convolution.operands.inputs;
  for (std::size_t i = 0; i < 2; ++i)
    if (inputs[i].storage.code != DType::sign || inputs[i].storage.scaling != Scaling::none) return "not signs alone";
  if (convolution.problem.r * convolution.problem.s * inputs[1].shape.c > 1 << 24) return "sums in f32 are not exact";
  return {};
}

}  // namespace halftone::cpu
#endif
