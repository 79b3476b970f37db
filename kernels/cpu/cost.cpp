#include "kernels/cpu/cost.hpp"

namespace halftone::cpu {
namespace {

double parts(std::int64_t whole, std::int64_t part) { return static_cast<double>((whole + part - 1) / part); }

/// Images that share a weight. The real number must not count: an image alone gets what it gets among others.
constexpr std::int64_t images = 32;

/// A convolution as its kernels see it: sums over `terms` give `results`, numbers of vectors included. The weight
/// gradient is the data gradient's mirror: as many products.
struct Sizes {
  double terms, term_vectors, result_vectors, gathered_vectors, pixels, tiles, taps;

  Sizes(const ConvProblem& p, Direction direction, Isa isa) {
    const std::int64_t lanes = isa == Isa::avx512 ? 16 : isa == Isa::avx2 ? 8 : 4;
    const bool turned = direction != Direction::forward, to_input = direction == Direction::d_input;
    const std::int64_t in = (turned ? p.k : p.c) / p.groups, out = (turned ? p.c : p.k) / p.groups;
    const std::int64_t rows = to_input ? p.h : p.p, cols = to_input ? p.w : p.q;
    terms = static_cast<double>(in);
    term_vectors = parts(in, lanes), result_vectors = parts(out, lanes);
    gathered_vectors = parts(p.r * p.s * p.c / p.groups, lanes);
    const std::int64_t n = direction == Direction::d_weight ? p.n : images;
    pixels = static_cast<double>(n * rows * cols * p.groups);
    tiles = static_cast<double>(n * p.groups) * parts(rows, 4) * parts(cols, 4);
    taps = static_cast<double>(p.r * p.s);
  }
};

}  // namespace

// Constants: least squares over the shapes of benchmarks/kernels, where the multiply-adds alone would run at the
// measured peak.

double direct_cost(const ConvProblem& problem, Direction direction, Isa isa) {
  const Sizes s(problem, direction, isa);
  if (direction == Direction::d_weight)  // the gathered input lies in the lanes, all taps side by side
    return s.pixels * (1.1 * s.terms * s.gathered_vectors + 7 * s.gathered_vectors + 33 * s.term_vectors);
  return s.pixels * (1.1 * s.taps * s.terms * s.result_vectors + 7 * s.taps * s.term_vectors + 33 * s.result_vectors);
}

double winograd_cost(const ConvProblem& problem, Direction direction, Isa isa) {
  const Sizes s(problem, direction, isa);
  constexpr double weight = 600;  ///< to transform a vector's
  const double tile = 1.08 * 36 * s.terms * s.result_vectors + 700 * (s.term_vectors + s.result_vectors);
  return s.tiles * tile + weight * s.terms * s.result_vectors;
}

}  // namespace halftone::cpu
