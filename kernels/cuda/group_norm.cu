#include "halftone/ops/norm.hpp"
#include "kernels/cuda/columns.hpp"
#include "kernels/cuda/table.hpp"

// A sample that is an image is normalised by columns, as batch norm does, with one set of coefficients per image. A
// sample that is a row is summed along its channels, a warp to each of its groups.
namespace halftone::cuda {
namespace {

/// `number` samples of `rows` rows of `c` channels in `groups` of `run`.
struct Samples {
  Samples(Shape shape, int the_groups, bool per_pixel)
      : number(per_pixel ? shape.rows() : shape.n),
        rows(per_pixel ? 1 : shape.h * shape.w),
        c(shape.c),
        groups(the_groups),
        run(c / groups),
        share(1 / static_cast<double>(rows * run)) {}
  std::int64_t number, rows, c, groups, run;
  double share;  ///< of one number of a group
  constexpr std::int64_t all_groups() const { return number * groups; }
};

/// One warp to a group of a sample.
struct WarpPerGroup {
  static constexpr unsigned threads = 256;
  using Shared = NoShared;
  template <class Kernel>
  static void start(const Arguments& a, const Samples& samples, const Kernel& kernel) {
    enqueue(a, blocks_for<Kernel>(samples.all_groups() * warp_lanes), kernel);
  }
};

/// Hands on the two sums of each column of a sample.
struct Keep {
  static constexpr int kinds = 1;
  std::int64_t sums;  ///< of a sample
  double* totals;
  HALFTONE_DEVICE void operator()(std::int64_t sample, std::int64_t i, const double (&sum)[1]) const {
    totals[sample * sums + i] = sum[0];
  }
};

/// From the columns' sums a group's statistics and the coefficients of `Normalize`.
struct Settle : WarpPerGroup {
  Samples s;
  Source<Any> x, gamma, beta;
  float epsilon;
  const double* totals;
  float *statistics, *coefficients;

  HALFTONE_DEVICE void operator()(Shared&) const {
    const std::int64_t number = warp_number<Settle>(), sample = number / s.groups, begin = number % s.groups * s.run;
    if (number >= s.all_groups()) return;
    const double* from = totals + sample * 2 * s.c;
    double sum = 0, squares = 0;
    for (std::int64_t j = begin + lane_index(); j < begin + s.run; j += warp_lanes) {
      sum += from[j];
      squares += from[s.c + j];
    }
    sum = warp_sum(sum);
    squares = warp_sum(squares);
    const Statistics found(x[sample * s.rows * s.c + begin], sum, squares, s.share, epsilon);
    if (lane_index() == 0) {
      statistics[2 * number] = found.mean;
      statistics[2 * number + 1] = found.inverse;
    }
    float* set = coefficients + sample * 3 * s.c;
    const double shift = found.lost * static_cast<double>(found.inverse);
    for (std::int64_t j = begin + lane_index(); j < begin + s.run; j += warp_lanes) {
      const float g = gamma[j];
      set[j] = found.mean;
      set[s.c + j] = g * found.inverse;
      set[2 * s.c + j] = static_cast<float>(static_cast<double>(beta[j]) - shift * static_cast<double>(g));
    }
  }
};

/// Both passes over a group of a row; y may lie over x.
template <class Format, int n>
struct NormalizeRows : WarpPerGroup {
  Samples s;
  Source<Format> x;
  Sink<Format> y;
  Source<Any> gamma, beta;
  float epsilon;
  float* statistics;

  HALFTONE_DEVICE void operator()(Shared&) const {
    const std::int64_t number = warp_number<NormalizeRows>(), begin = number * s.run;
    if (number >= s.all_groups()) return;
    const int run = static_cast<int>(s.run), own = static_cast<int>(lane_index()) * n,
              channel = static_cast<int>(number % s.groups) * run;
    const float shift = x[begin];
    double sum = 0, squares = 0;
    for (int i = own; i < run; i += static_cast<int>(warp_lanes) * n) {
      float values[n];
      read(x, begin + i, values);
      HALFTONE_UNROLL
      for (int k = 0; k < n; ++k) {
        const double shifted = static_cast<double>(values[k]) - static_cast<double>(shift);
        sum += shifted;
        squares += shifted * shifted;
      }
    }
    sum = warp_sum(sum);
    squares = warp_sum(squares);
    const Statistics found(shift, sum, squares, s.share, epsilon);
    if (lane_index() == 0) {
      statistics[2 * number] = found.mean;
      statistics[2 * number + 1] = found.inverse;
    }
    const float lost = static_cast<float>(found.lost * static_cast<double>(found.inverse));
    sync_warp();  // all have read the shift, which y may lie over
    for (int i = own; i < run; i += static_cast<int>(warp_lanes) * n) {
      float values[n], g[n], b[n];
      read(x, begin + i, values);
      read(gamma, channel + i, g);
      read(beta, channel + i, b);
      HALFTONE_UNROLL
      for (int k = 0; k < n; ++k) values[k] = g[k] * (found.inverse * (values[k] - found.mean) - lost) + b[k];
      write(y, begin + i, values);
    }
  }
};

template <class Format, int n>
Launch images_forward(const Request& request, const Samples& s) {
  constexpr int few = summed_columns<n>;
  const Columns summed(s.number, s.rows, s.c, few, Columns::few_blocks);
  const Columns columns(s.number, s.rows, s.c, n, Columns::many_blocks);
  std::size_t bytes = 0;
  const Array<double> partials(summed.all_parts() * 2 * s.c, bytes), totals(s.number * 2 * s.c, bytes);
  const Array<float> coefficients(s.number * 3 * s.c, bytes);
  const auto run = [=, operands = Operands(request),
                    epsilon = request.attributes<GroupNorm>().epsilon](const Arguments& a) {
    const auto x = operands.in<Format>(a, 0);
    sum_columns(a, summed, Moments<Format, few>{x, s.rows * s.c, s.run}, partials(a), Keep{2 * s.c, totals(a)});
    Settle::start(a, s,
                  Settle{{},
                         s,
                         operands.in(a, 0),
                         operands.in(a, 1),
                         operands.in(a, 2),
                         epsilon,
                         totals(a),
                         a.out<float>(1),
                         coefficients(a)});
    enqueue(a, columns.blocks(),
            Normalize<Format, n>{columns, x, operands.out<Format>(a, 0), coefficients(a), Epilogue()});
  };
  return {.run = run, .workspace = bytes, .overwrites = same_places(request.inputs[0], request.outputs[0]) ? 0 : -1};
}

template <class Format, int n>
Launch rows_forward(const Request& request, const Samples& s) {
  const auto run = [=, operands = Operands(request),
                    epsilon = request.attributes<GroupNorm>().epsilon](const Arguments& a) {
    using Kernel = NormalizeRows<Format, n>;
    Kernel::start(a, s,
                  Kernel{{},
                         s,
                         operands.in<Format>(a, 0),
                         operands.out<Format>(a, 0),
                         operands.in(a, 1),
                         operands.in(a, 2),
                         epsilon,
                         a.out<float>(1)});
  };
  return {.run = run, .overwrites = same_places(request.inputs[0], request.outputs[0]) ? 0 : -1};
}

/// Stores sums [2, c], those of d_y first.
struct ParameterGradients {
  static constexpr int kinds = 1;
  std::int64_t c;
  Sink<Any> d_gamma, d_beta;
  HALFTONE_DEVICE void operator()(std::int64_t, std::int64_t i, const double (&sum)[1]) const {
    const Sink<Any>& to = i < c ? d_beta : d_gamma;
    to.write(i < c ? i : i - c, static_cast<float>(sum[0]));
  }
};

/// From the columns' sums the coefficients of `InputGradient`; the sums become what the parameters' gradients are made
/// of.
struct SettleGradient : WarpPerGroup {
  Samples s;
  Source<Any> gamma;
  const float* statistics;
  double* totals;
  float* coefficients;

  HALFTONE_DEVICE void operator()(Shared&) const {
    const std::int64_t number = warp_number<SettleGradient>(), sample = number / s.groups,
                       begin = number % s.groups * s.run;
    if (number >= s.all_groups()) return;
    const float mean = statistics[2 * number];
    const double inverse = static_cast<double>(statistics[2 * number + 1]);
    double *sum = totals + sample * 2 * s.c, *product = sum + s.c;  // with x - mean
    double a = 0, b = 0;
    for (std::int64_t j = begin + lane_index(); j < begin + s.run; j += warp_lanes) {
      const double g = static_cast<double>(gamma[j]);
      a += g * sum[j];
      b += g * product[j];
      product[j] *= inverse;
    }
    a = warp_sum(a);
    b = warp_sum(b);
    float* set = coefficients + sample * 4 * s.c;
    const auto slope = static_cast<float>(-inverse * inverse * inverse * b * s.share),
               offset = static_cast<float>(-inverse * a * s.share);
    for (std::int64_t j = begin + lane_index(); j < begin + s.run; j += warp_lanes) {
      set[j] = mean;
      set[s.c + j] = static_cast<float>(static_cast<double>(gamma[j]) * inverse);
      set[2 * s.c + j] = slope;
      set[3 * s.c + j] = offset;
    }
  }
};

template <class Format, int n>
Launch images_backward(const Request& request, const Samples& s) {
  constexpr int few = summed_columns<n>;
  const Columns summed(s.number, s.rows, s.c, few, Columns::few_blocks);
  const Columns columns(s.number, s.rows, s.c, n, Columns::many_blocks);
  std::size_t bytes = 0;
  const Array<double> partials(summed.all_parts() * 2 * s.c, bytes), totals(s.number * 2 * s.c, bytes);
  const Array<float> coefficients(s.number * 4 * s.c, bytes);
  const auto run = [=, operands = Operands(request)](const Arguments& a) {
    const auto d_y = operands.in<Format>(a, 0), x = operands.in<Format>(a, 1);
    const auto* statistics = a.in<float>(3);
    const Grouped mean{statistics, s.groups, s.run, 2};
    sum_columns(a, summed, GradientTerms<Format, few>{d_y, x, mean}, partials(a), Keep{2 * s.c, totals(a)});
    SettleGradient::start(a, s, SettleGradient{{}, s, operands.in(a, 2), statistics, totals(a), coefficients(a)});
    fold(a, 1, s.number, 2 * s.c, totals(a), ParameterGradients{s.c, operands.out(a, 1), operands.out(a, 2)});
    enqueue(a, columns.blocks(),
            InputGradient<Format, n>{columns, d_y, x, operands.out<Format>(a, 0), coefficients(a)});
  };
  return {.run = run, .workspace = bytes, .overwrites = same_places(request.inputs[0], request.outputs[0]) ? 0 : -1};
}

/// d_y and d_y x^ of samples that are rows.
template <class Format, int numbers>
struct RowTerms {
  static constexpr int n = numbers, kinds = 2, inputs = 2;
  using Sum = SumOfFew<Format>;

  Source<Format> d_y, x;
  Grouped mean, inverse;

  HALFTONE_DEVICE void read_row(std::int64_t first, float (&values)[2][n]) const {
    read(d_y, first, values[0]);
    read(x, first, values[1]);
  }
  struct Of {
    const RowTerms& terms;
    std::int64_t channel;
    HALFTONE_DEVICE void add(const float (&values)[2][n], std::int64_t row, Sum (&sums)[2 * n]) const {
      const auto& [d, x] = values;
      const float mean = terms.mean(row, channel), inverse = terms.inverse(row, channel);
      HALFTONE_UNROLL
      for (int i = 0; i < n; ++i) {
        sums[i] += static_cast<Sum>(d[i]);
        sums[n + i] += static_cast<Sum>(d[i] * (inverse * (x[i] - mean)));
      }
    }
  };
  HALFTONE_DEVICE Of of(std::int64_t, std::int64_t channel) const { return {*this, channel}; }
};

/// Both passes over a group of a row, x^ = inverse (x - mean): the means a of gamma d_y and b of gamma d_y x^, then
/// d_x = inverse (gamma d_y - (a + b x^)); d_x may lie over d_y.
template <class Format, int n>
struct InputGradientOfRows : WarpPerGroup {
  Samples s;
  Source<Format> d_y, x;
  Source<Any> gamma;
  const float* statistics;
  Sink<Format> d_x;

  HALFTONE_DEVICE void operator()(Shared&) const {
    const std::int64_t number = warp_number<InputGradientOfRows>(), begin = number * s.run;
    if (number >= s.all_groups()) return;
    const int run = static_cast<int>(s.run), own = static_cast<int>(lane_index()) * n,
              channel = static_cast<int>(number % s.groups) * run;
    const float mean = statistics[2 * number], inverse = statistics[2 * number + 1];
    double sum = 0, product = 0;
    for (int i = own; i < run; i += static_cast<int>(warp_lanes) * n) {
      float d[n], values[n], g[n];
      read(d_y, begin + i, d);
      read(x, begin + i, values);
      read(gamma, channel + i, g);
      HALFTONE_UNROLL
      for (int k = 0; k < n; ++k) {
        sum += static_cast<double>(g[k] * d[k]);
        product += static_cast<double>(g[k] * d[k] * (inverse * (values[k] - mean)));
      }
    }
    const auto a = static_cast<float>(warp_sum(sum) * s.share), b = static_cast<float>(warp_sum(product) * s.share);
    for (int i = own; i < run; i += static_cast<int>(warp_lanes) * n) {
      float d[n], values[n], g[n];
      read(d_y, begin + i, d);
      read(x, begin + i, values);
      read(gamma, channel + i, g);
      HALFTONE_UNROLL
      for (int k = 0; k < n; ++k) d[k] = inverse * (g[k] * d[k] - (a + b * (inverse * (values[k] - mean))));
      write(d_x, begin + i, d);
    }
  }
};

template <class Format, int n>
Launch rows_backward(const Request& request, const Samples& s) {
  constexpr int few = summed_columns<n>;
  const Columns summed(1, s.number, s.c, few, Columns::few_blocks);
  std::size_t bytes = 0;
  const Array<double> partials(summed.all_parts() * 2 * s.c, bytes);
  const auto run = [=, operands = Operands(request)](const Arguments& a) {
    const auto d_y = operands.in<Format>(a, 0), x = operands.in<Format>(a, 1);
    const auto* statistics = a.in<float>(3);
    const RowTerms<Format, few> terms{d_y, x, {statistics, s.groups, s.run, 2}, {statistics + 1, s.groups, s.run, 2}};
    sum_columns(a, summed, terms, partials(a), ParameterGradients{s.c, operands.out(a, 1), operands.out(a, 2)});
    using Kernel = InputGradientOfRows<Format, n>;
    Kernel::start(a, s, Kernel{{}, s, d_y, x, operands.in(a, 2), statistics, operands.out<Format>(a, 0)});
  };
  return {.run = run, .workspace = bytes, .overwrites = same_places(request.inputs[0], request.outputs[0]) ? 0 : -1};
}

}  // namespace

Launch group_norm(const Request& request) {
  const auto& op = request.attributes<GroupNorm>();
  const Samples s(request.inputs[0].shape, op.groups, op.per_pixel);
  return with_pack({&request.inputs[0], &request.outputs[0]}, (s.rows == 1 ? s.run : s.c) % pack == 0,
                   [&](auto format, auto n) {
                     using Format = decltype(format);
                     return s.rows == 1 ? rows_forward<Format, n>(request, s) : images_forward<Format, n>(request, s);
                   });
}

Launch group_norm_gradient(const Request& request) {
  const auto& op = request.attributes<GroupNormGradient>();
  const Samples s(request.inputs[1].shape, op.groups, op.per_pixel);
  return with_pack({&request.inputs[0], &request.inputs[1], &request.outputs[0]},
                   (s.rows == 1 ? s.run : s.c) % pack == 0, [&](auto format, auto n) {
                     using Format = decltype(format);
                     return s.rows == 1 ? rows_backward<Format, n>(request, s) : images_backward<Format, n>(request, s);
                   });
}

}  // namespace halftone::cuda
