#include "kernels/cpu/cost.hpp"

namespace halftone::cpu {
namespace {

double parts(std::int64_t whole, std::int64_t part) { return static_cast<double>((whole + part - 1) / part); }

/// A convolution as its kernels see it: sums over `terms` give `results`, numbers of vectors included.
struct Sizes {
  double terms, results, term_vectors, result_vectors, pixels, tiles, taps;

  Sizes(const ConvProblem& p, Direction direction, Isa isa) {
    const std::int64_t lanes = isa == Isa::avx512 ? 16 : isa == Isa::avx2 ? 8 : 4;
    const bool turned = direction == Direction::d_input;
    const std::int64_t in = (turned ? p.k : p.c) / p.groups, out = (turned ? p.c : p.k) / p.groups;
    const std::int64_t rows = turned ? p.h : p.p, cols = turned ? p.w : p.q;
    terms = static_cast<double>(in), results = static_cast<double>(out);
    term_vectors = parts(in, lanes), result_vectors = parts(out, lanes);
    pixels = static_cast<double>(p.n * rows * cols * p.groups);
    tiles = static_cast<double>(p.n * p.groups) * parts(rows, 4) * parts(cols, 4);
    taps = static_cast<double>(p.r * p.s);
  }
};

}  // namespace

// Constants: least squares over the shapes of benchmarks/kernels, where the multiply-adds alone would run at the
// measured peak.

double direct_cost(const ConvProblem& problem, Direction direction, Isa isa) {
  const Sizes s(problem, direction, isa);
  return s.pixels * (1.1 * s.taps * s.terms * s.result_vectors + 7 * s.taps * s.term_vectors + 33 * s.result_vectors);
}

double winograd_cost(const ConvProblem& problem, Direction direction, Isa isa) {
  const Sizes s(problem, direction, isa);
  return s.tiles * (1.08 * 36 * s.terms * s.result_vectors + 700 * (s.term_vectors + s.result_vectors)) +
         600 * s.terms * s.result_vectors;
}

}  // namespace halftone::cpu
