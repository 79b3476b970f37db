#include "kernels/cpu/cost.hpp"

#include <algorithm>
#include <cmath>

namespace halftone::cpu {
namespace {

double parts(std::int64_t whole, std::int64_t part) { return static_cast<double>((whole + part - 1) / part); }

/// Images that share a weight. The real number must not count: an image alone gets what it gets among others.
constexpr std::int64_t images = 32;

/// A convolution as its kernels see it: sums over `terms` give `results`, numbers of vectors included. The weight
/// gradient is the data gradient's mirror: as many products.
struct Sizes {
  double lanes, terms, results, term_vectors, result_vectors, gathered_vectors, pixels, tiles, taps;
  double output_pixels, products;  // in the forward pass; what the definition multiplies
  bool apart;                      // the results of a sweep lie apart in memory

  Sizes(const ConvProblem& p, Direction direction, Isa isa) {
    const std::int64_t width = isa >= Isa::avx512 ? 16 : isa == Isa::avx2 ? 8 : 4;
    const bool turned = direction != Direction::forward, to_input = direction == Direction::d_input;
    const std::int64_t in = (turned ? p.k : p.c) / p.groups, out = (turned ? p.c : p.k) / p.groups;
    const std::int64_t rows = to_input ? p.h : p.p, cols = to_input ? p.w : p.q;
    lanes = static_cast<double>(width), terms = static_cast<double>(in), results = static_cast<double>(out);
    term_vectors = parts(in, width), result_vectors = parts(out, width);
    gathered_vectors = parts(p.r * p.s * p.c / p.groups, width);
    const std::int64_t n = direction == Direction::d_weight ? p.n : images;
    pixels = static_cast<double>(n * rows * cols * p.groups);
    tiles = static_cast<double>(n * p.groups) * parts(rows, 4) * parts(cols, 4);
    apart = to_input && p.stride_h * p.stride_w > 1;
    taps = static_cast<double>(p.r * p.s) / (to_input ? p.stride_h * p.stride_w : 1);
    output_pixels = static_cast<double>(n * p.p * p.q);
    products = output_pixels * static_cast<double>(p.r * p.s * p.c / p.groups * p.k);
  }
};

// Constants: fitted to what benchmarks/kernels measured for 1 to 512 channels, over the time that a vector's
// multiply-add takes at the measured peak. Narrower vectors than AVX-512's wait less for what lies between the
// products.

double direct_cost(const Sizes& s, Direction direction) {
  if (direction == Direction::d_weight) {  // the gathered input lies in the lanes, all taps side by side, or filters
    double products = s.terms * s.gathered_vectors;
    if (std::fmod(s.terms, s.lanes) == 0 && s.term_vectors > 1)
      products = std::min(products, s.taps * s.results * s.term_vectors);
    return s.pixels * (1.1 * products + 3 * s.gathered_vectors + 12 * s.term_vectors);
  }
  const double products = (s.apart ? 1.4 : 1.1) * s.taps * s.terms;
  if (s.results <= 8) return s.pixels * (products * s.results / s.lanes + 7 * s.terms + 8);  // pixels lie in the lanes
  return s.pixels *
         (products * s.result_vectors + 3 * s.taps * s.terms / s.lanes + (s.lanes < 16 ? 12 : 28) * s.result_vectors);
}

double col2im_cost(const ConvProblem& p, const Sizes& s) {
  const double vectors = parts(p.s * p.c, static_cast<std::int64_t>(s.lanes));
  const double multiplied = vectors + 0.9 * std::fmod(vectors, 2);  // the last one alone takes nearly as long as two
  const double rows = static_cast<double>(std::min(p.h, p.p * p.r)) / static_cast<double>(p.p);  // that a row adds to
  return s.output_pixels * (1.1 * static_cast<double>(p.r) * s.terms * multiplied + 30 * rows * vectors) +
         15 * s.pixels * s.results / s.lanes;
}

double winograd_cost(const Sizes& s, Direction direction) {
  constexpr double weight = 600, cut_rows = 400;  // of a vector, a tile
  const bool narrow = s.lanes < 16;
  const double product = narrow ? 1.1 : 1.3, transform = narrow ? 520 : 750;  // the latter of a vector
  const bool cut = direction != Direction::d_weight && s.results != s.result_vectors * s.lanes;
  const double tile = product * 36 * s.terms * s.result_vectors + transform * (s.term_vectors + s.result_vectors);
  return s.tiles * (tile + (cut ? cut_rows : 0)) + weight * s.terms * s.result_vectors;
}

/// The products' constants are the units' peaks, twice the multiply-adds' of AMD's dot products and 12 times of Intel's
/// tiles, less what loops lose; all else is cycles, measured with a dot product of integers in place of bf16's. AMD's
/// first cores begin one multiply-add a cycle.
double pairs_cost(const ConvProblem& p, const Sizes& s, Direction direction, Isa isa) {
  const bool tiles = isa == Isa::amx, of_weight = direction == Direction::d_weight;
  const double product = tiles ? 0.1 : 0.55, cycle = tiles ? 2 : 1;
  const double read = static_cast<double>(direction == Direction::d_input ? p.k : p.c), depth = s.taps * read;
  const double slices = std::ceil(depth / (read < 288 ? std::floor(288 / read) * read : 288));
  const double runs = p.dilation_w == 1 ? std::max(slices, static_cast<double>(p.r)) : s.taps;
  const double gather = (of_weight ? 25 : 35) * (1 + runs) + depth / 16;
  if (of_weight) {
    const double filters = tiles ? 16 * s.term_vectors : s.terms;
    const double others = gather + 3 * s.gathered_vectors + filters * (0.7 * slices + 0.08 * s.gathered_vectors);
    return s.pixels * (product * filters * s.gathered_vectors + cycle * others);
  }
  const double padded = tiles ? 32 * std::ceil(depth / 32) : depth;
  return s.pixels * (product * padded * s.result_vectors + cycle * (gather + 10 * s.result_vectors));
}

}  // namespace

const char* name_of(Way way) {
  constexpr const char* names[] = {"winograd", "pairs", "col2im", "implicit_gemm"};
  return names[static_cast<int>(way)];
}

double predicted_cost(Way way, const ConvProblem& problem, Direction direction, Isa isa) {
  const Sizes sizes(problem, direction, isa);
  if (way == Way::winograd) return winograd_cost(sizes, direction);
  if (way == Way::col2im) return col2im_cost(problem, sizes);
  return way == Way::pairs ? pairs_cost(problem, sizes, direction, isa) : direct_cost(sizes, direction);
}

double predicted_share(Way way, const ConvProblem& problem, Direction direction, Isa isa) {
  const Sizes s(problem, direction, isa);
  return s.products / s.lanes / predicted_cost(way, problem, direction, isa);
}

}  // namespace halftone::cpu
