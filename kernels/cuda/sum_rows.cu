#include "kernels/cuda/columns.hpp"
#include "kernels/cuda/table.hpp"

namespace halftone::cuda {
namespace {

template <class Format, int numbers>
struct Plain {
  static constexpr int n = numbers, kinds = 1, inputs = 1;
  using Sum = SumOfFew<Format>;

  Source<Format> x;

  HALFTONE_DEVICE void read_row(std::int64_t first, float (&values)[1][n]) const { read(x, first, values[0]); }
  HALFTONE_DEVICE const Plain& of(std::int64_t, std::int64_t) const { return *this; }
  HALFTONE_DEVICE void add(const float (&values)[1][n], std::int64_t, Sum (&sums)[n]) const {
    HALFTONE_UNROLL
    for (int i = 0; i < n; ++i) sums[i] += static_cast<Sum>(values[0][i]);
  }
};

struct Store {
  static constexpr int kinds = 1;
  Sink<Any> y;
  HALFTONE_DEVICE void operator()(std::int64_t, std::int64_t j, const double (&sums)[1]) const {
    y.write(j, static_cast<float>(sums[0]));
  }
};

template <class Format, int n>
Launch make(const Request& request) {
  const Shape shape = request.inputs[0].shape;
  const Columns columns(1, shape.rows(), shape.c, n, Columns::few_blocks);
  std::size_t bytes = 0;
  const Array<double> partials(columns.all_parts() * shape.c, bytes);
  const auto run = [=, operands = Operands(request)](const Arguments& a) {
    sum_columns(a, columns, Plain<Format, n>{operands.in<Format>(a, 0)}, partials(a), Store{operands.out(a, 0)});
  };
  return {.run = run, .workspace = bytes};
}

}  // namespace

Launch sum_rows(const Request& request) {
  return with_pack({&request.inputs[0]}, request.inputs[0].shape.c % pack == 0,
                   [&](auto format, auto n) { return make<decltype(format), n>(request); });
}

}  // namespace halftone::cuda
