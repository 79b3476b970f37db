#include "kernels/cpu/cost.hpp"

namespace halftone::cpu {
namespace {

double parts(std::int64_t whole, std::int64_t part) { return static_cast<double>((whole + part - 1) / part); }

/// Images that share a weight. The real number must not count: an image alone gets what it gets among others.
constexpr std::int64_t images = 32;

/// A convolution as its kernels see it: sums over `terms` give `results`, numbers of vectors included. The weight
/// gradient is the data gradient's mirror: as many products.
struct Sizes {
  double lanes, terms, results, term_vectors, result_vectors, gathered_vectors, pixels, tiles, taps;

  Sizes(const ConvProblem& p, Direction direction, Isa isa) {
    const std::int64_t width = isa == Isa::avx512 ? 16 : isa == Isa::avx2 ? 8 : 4;
    const bool turned = direction != Direction::forward, to_input = direction == Direction::d_input;
    const std::int64_t in = (turned ? p.k : p.c) / p.groups, out = (turned ? p.c : p.k) / p.groups;
    const std::int64_t rows = to_input ? p.h : p.p, cols = to_input ? p.w : p.q;
    lanes = static_cast<double>(width), terms = static_cast<double>(in), results = static_cast<double>(out);
    term_vectors = parts(in, width), result_vectors = parts(out, width);
    gathered_vectors = parts(p.r * p.s * p.c / p.groups, width);
    const std::int64_t n = direction == Direction::d_weight ? p.n : images;
    pixels = static_cast<double>(n * rows * cols * p.groups);
    tiles = static_cast<double>(n * p.groups) * parts(rows, 4) * parts(cols, 4);
    taps = static_cast<double>(p.r * p.s);
  }
};

}  // namespace

// Constants: fitted to what benchmarks/kernels measured with AVX-512 for 1 to 512 channels, over the time that a
// multiply-add takes at the measured peak.

double direct_cost(const ConvProblem& problem, Direction direction, Isa isa) {
  const Sizes s(problem, direction, isa);
  if (direction == Direction::d_weight)  // the gathered input lies in the lanes, all taps side by side
    return s.pixels * (1.1 * s.terms * s.gathered_vectors + 3 * s.gathered_vectors + 12 * s.term_vectors);
  const double products = 1.1 * s.taps * s.terms;
  if (s.results <= 8) return s.pixels * (products * s.results / s.lanes + 7 * s.terms);  // pixels lie in the lanes
  return s.pixels * (products * s.result_vectors + 3 * s.taps * s.terms / s.lanes + 20 * s.result_vectors);
}

double winograd_cost(const ConvProblem& problem, Direction direction, Isa isa) {
  const Sizes s(problem, direction, isa);
  constexpr double weight = 600, transform = 750, cut_rows = 400;  // of a vector, a vector, a tile
  const bool cut = direction != Direction::d_weight && s.results != s.result_vectors * s.lanes;
  const double tile = 1.08 * 36 * s.terms * s.result_vectors + transform * (s.term_vectors + s.result_vectors);
  return s.tiles * (tile + (cut ? cut_rows : 0)) + weight * s.terms * s.result_vectors;
}

}  // namespace halftone::cpu
