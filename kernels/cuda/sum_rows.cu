#include "kernels/cuda/columns.hpp"
#include "kernels/cuda/table.hpp"

namespace halftone::cuda {
namespace {

template <class Format, int numbers>
struct Plain {
  static constexpr int n = numbers, kinds = 1;

  Source<Format> x;

  HALFTONE_DEVICE const Plain& of(std::int64_t, std::int64_t) const { return *this; }
  HALFTONE_DEVICE void add(std::int64_t first, std::int64_t, double (&sums)[n]) const {
    float values[n];
    read(x, first, values);
    HALFTONE_UNROLL
    for (int i = 0; i < n; ++i) sums[i] += static_cast<double>(values[i]);
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
  const Columns columns(1, shape.rows(), shape.c, n);
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
