#include <cmath>
#include <limits>
#include <optional>

#include "halftone/ops/loss.hpp"
#include "kernels/cuda/constants.hpp"
#include "kernels/cuda/operands.hpp"
#include "kernels/cuda/table.hpp"

// A warp has a row of logits; losses leave a number a row, one block adds these up and looks at all labels.
namespace halftone::cuda {
namespace {

inline constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// A block that settles what many others have found.
struct OneBlock {
  static constexpr unsigned threads = 512;
  static constexpr unsigned warps = threads / warp_lanes;
};

/// The sum of terms(i) for i in [0, n) over the block, in a fixed order.
template <class T, class F>
HALFTONE_DEVICE T sum_over_block(std::int64_t n, T (&parts)[OneBlock::warps], F&& terms) {
  T sum = 0;
  for (std::int64_t i = thread_index(); i < n; i += OneBlock::threads) sum += terms(i);
  return block_sum<OneBlock::threads>(sum, parts);
}

struct Labels {
  const std::int32_t* of_row;
  std::int64_t rows, classes;
  std::optional<std::int32_t> ignored;
  const float* weights;  ///< of the classes; null: all 1
  double spread;         ///< what smoothing gives to all classes together
  StepState* state;

  struct Shared {
    double counts[OneBlock::warps];
    std::int64_t first_bad[OneBlock::warps];
  };

  HALFTONE_DEVICE bool has(std::int32_t label) const { return label >= 0 && label < classes; }
  HALFTONE_DEVICE bool ignores(std::int32_t label) const { return ignored.has_value() && label == *ignored; }

  /// What all targets of a label's row count for.
  HALFTONE_DEVICE double sum(std::int32_t label, double smoothing) const {
    return weights ? (1.0 - smoothing) * weight(label) + spread : 1.0;
  }
  HALFTONE_DEVICE double weight(std::int64_t label) const {
    return weights ? static_cast<double>(weights[label]) : 1.0;
  }

  /// By one whole block: what the labels that are not ignored count for, 1 where there are none; the first that is
  /// neither that nor a class is noted in the step's state.
  HALFTONE_DEVICE double count(Shared& shared) const {
    double counted = 0;
    std::int64_t bad = rows;
    for (std::int64_t row = thread_index(); row < rows; row += OneBlock::threads) {
      const std::int32_t label = of_row[row];
      if (ignores(label)) continue;
      counted += has(label) ? weight(label) : 1.0;
      if (!has(label) && row < bad) bad = row;
    }
    HALFTONE_UNROLL
    for (unsigned lanes = warp_lanes / 2; lanes > 0; lanes /= 2) {
      const std::int64_t other = shuffle_xor(bad, lanes);
      bad = other < bad ? other : bad;
    }
    if (lane_index() == 0) shared.first_bad[thread_index() / warp_lanes] = bad;
    counted = block_sum<OneBlock::threads>(counted, shared.counts);
    if (thread_index() == 0) {
      for (const std::int64_t first : shared.first_bad) bad = first < bad ? first : bad;
      if (bad < rows) {
        state->bad_row = static_cast<std::int32_t>(bad);
        state->bad_label = of_row[bad];
      }
    }
    return counted > 0 ? counted : 1;
  }
};

/// A row of logits, read by a warp.
template <class Format>
struct Row {
  const Source<Format>& x;
  std::int64_t first, n;

  struct Best {
    float value;
    std::int64_t place;
    HALFTONE_DEVICE void take(float other, std::int64_t at) {
      if (other > value || (other == value && at < place)) {
        value = other;
        place = at;
      }
    }
  };

  HALFTONE_DEVICE float operator[](std::int64_t i) const { return x[first + i]; }

  /// f(i) for the classes of this lane.
  template <class F>
  HALFTONE_DEVICE void for_own(F&& f) const {
    for (std::int64_t i = lane_index(); i < n; i += warp_lanes) f(i);
  }
  /// The first largest, as found by looking from the first on for one that is larger.
  HALFTONE_DEVICE Best largest() const {
    Best best{(*this)[0], 0};
    for_own([&](std::int64_t i) { best.take((*this)[i], i); });
    HALFTONE_UNROLL
    for (unsigned lanes = warp_lanes / 2; lanes > 0; lanes /= 2) {
      const float value = shuffle_xor(best.value, lanes);
      best.take(value, shuffle_xor(best.place, lanes));
    }
    return best;
  }
  HALFTONE_DEVICE float exponential(std::int64_t i, float largest) const { return math::exp((*this)[i] - largest); }
  /// Of exp(x - largest).
  HALFTONE_DEVICE double sum_of_exponentials(float largest) const {
    double sum = 0;
    for_own([&](std::int64_t i) { sum += static_cast<double>(exponential(i, largest)); });
    return warp_sum(sum);
  }
};

template <class Format>
struct Shares {
  static constexpr unsigned threads = 128;
  using Shared = NoShared;

  Source<Format> x;
  Sink<Format> y;
  std::int64_t rows, n;

  HALFTONE_DEVICE void operator()(NoShared&) const {
    const std::int64_t number = warp_number<Shares>();
    if (number >= rows) return;
    const Row<Format> row{x, number * n, n};
    const float largest = row.largest().value;
    const auto inverse = static_cast<float>(1 / row.sum_of_exponentials(largest));
    row.for_own([&](std::int64_t i) { y.write(row.first + i, row.exponential(i, largest) * inverse); });
  }
};

template <class Format>
struct ShareGradients {
  static constexpr unsigned threads = 128;
  using Shared = NoShared;

  Source<Format> d_y, y;
  Sink<Format> d_x;
  std::int64_t rows, n;

  HALFTONE_DEVICE void operator()(NoShared&) const {
    const std::int64_t number = warp_number<ShareGradients>();
    if (number >= rows) return;
    const Row<Format> slopes{d_y, number * n, n}, shares{y, number * n, n};
    double sum = 0;
    shares.for_own([&](std::int64_t i) { sum += static_cast<double>(slopes[i]) * static_cast<double>(shares[i]); });
    const auto mean = static_cast<float>(warp_sum(sum));
    shares.for_own([&](std::int64_t i) { d_x.write(shares.first + i, shares[i] * (slopes[i] - mean)); });
  }
};

/// What kernels of a warp a row have in common.
template <class Format>
struct Rows {
  static constexpr unsigned threads = 128;
  using Shared = NoShared;

  Source<Format> x;
  Labels labels;

  HALFTONE_DEVICE Row<Format> row(std::int64_t number) const { return {x, number * labels.classes, labels.classes}; }
};

template <class Kernel>
void enqueue_rows(const Arguments& a, const Kernel& kernel) {
  enqueue(a, blocks_for<Kernel>(kernel.labels.rows * warp_lanes), kernel);
}

/// The class weights in device memory, if there are any.
struct WeightTable {
  std::vector<float> weights;
  Constants<float> table;
  double spread = 0;  ///< what smoothing gives to all classes together

  WeightTable(const Request& request, const CrossEntropyOptions& options)
      : weights(options.class_weights), table(request.device, std::max<std::size_t>(weights.size(), 1)) {
    for (const float weight : weights)
      spread += options.label_smoothing / static_cast<double>(weights.size()) * static_cast<double>(weight);
  }
  const float* data() const { return weights.empty() ? nullptr : table.data(); }
  std::function<void(const Arguments&)> prepare() const {
    if (weights.empty()) return {};
    return [*this](const Arguments&) { table.upload(weights); };
  }
};

Labels labels_of(const Operands& values, const Arguments& a, std::size_t logits,
                 const std::optional<std::int32_t>& ignored, const float* weights, double spread) {
  const Shape shape = values.inputs[logits].shape;
  return {a.in<std::int32_t>(logits + 1), shape.n, shape.c, ignored, weights, spread, a.state};
}

template <class Format>
struct RowLosses : Rows<Format> {
  float smoothing;
  double* losses;

  HALFTONE_DEVICE void operator()(NoShared&) const {
    const std::int64_t number = warp_number<RowLosses>();
    if (number >= this->labels.rows) return;
    const std::int32_t label = this->labels.of_row[number];
    double loss = this->labels.ignores(label) ? 0 : nan;
    if (this->labels.has(label)) {
      const auto row = this->row(number);
      const float largest = row.largest().value;
      const double share = static_cast<double>(smoothing), of_label = (1.0 - share) * this->labels.weight(label);
      double target = of_label * static_cast<double>(row[label] - largest);
      if (smoothing > 0) {
        double of_all = 0;
        row.for_own([&](std::int64_t i) { of_all += this->labels.weight(i) * static_cast<double>(row[i] - largest); });
        target += share * warp_sum(of_all) / static_cast<double>(row.n);
      }
      loss = this->labels.sum(label, share) * std::log(row.sum_of_exponentials(largest)) - target;
    }
    if (lane_index() == 0) losses[number] = loss;
  }
};

struct MeanLoss : OneBlock {
  struct Shared {
    Labels::Shared labels;
    double sums[warps];
  };
  Labels labels;
  const double* losses;
  Sink<Any> y;

  HALFTONE_DEVICE void operator()(Shared& shared) const {
    const double sum = sum_over_block(labels.rows, shared.sums, [&](std::int64_t row) { return losses[row]; });
    const double counted = labels.count(shared.labels);
    if (thread_index() == 0) y.write(0, static_cast<float>(sum / counted));
  }
};

template <class Format>
Launch cross_entropy_forward(const Request& request) {
  const auto options = request.attributes<SoftmaxCrossEntropy>().options;
  std::size_t bytes = 0;
  const Array<double> losses(request.inputs[0].shape.n, bytes);
  const WeightTable weights(request, options);
  const auto run = [=, operands = Operands(request)](const Arguments& a) {
    const Labels labels = labels_of(operands, a, 0, options.ignore_label, weights.data(), weights.spread);
    enqueue_rows(a, RowLosses<Format>{{operands.in<Format>(a, 0), labels}, options.label_smoothing, losses(a)});
    enqueue(a, 1, MeanLoss{{}, labels, losses(a), operands.out(a, 0)});
  };
  return {.run = run, .workspace = bytes, .prepare = weights.prepare()};
}

/// What the slopes of a row are multiplied by.
struct GradientFactor : OneBlock {
  using Shared = Labels::Shared;
  Labels labels;
  Source<Any> d_loss;
  float* factor;

  HALFTONE_DEVICE void operator()(Shared& shared) const {
    const double counted = labels.count(shared);
    if (thread_index() == 0) *factor = d_loss[0] / static_cast<float>(counted);
  }
};

template <class Format>
struct RowGradients : Rows<Format> {
  Sink<Format> d_x;
  float smoothing, background;
  const float* factor;

  HALFTONE_DEVICE void operator()(NoShared&) const {
    const std::int64_t number = warp_number<RowGradients>();
    if (number >= this->labels.rows) return;
    const std::int32_t label = this->labels.of_row[number];
    const auto row = this->row(number);
    if (!this->labels.has(label)) {
      const float all = this->labels.ignores(label) ? 0.0f : static_cast<float>(nan);
      row.for_own([&](std::int64_t i) { d_x.write(row.first + i, all); });
      return;
    }
    const float largest = row.largest().value, scale = *factor;
    const double sum = row.sum_of_exponentials(largest), smoothed = static_cast<double>(smoothing);
    const double all = this->labels.sum(label, smoothed), of_label = (1.0 - smoothed) * this->labels.weight(label);
    const auto inverse = static_cast<float>(all / sum);
    row.for_own([&](std::int64_t i) {
      const float e = row.exponential(i, largest);
      const float share = i == label ? static_cast<float>(all * static_cast<double>(e) / sum - of_label) : e * inverse;
      d_x.write(row.first + i, (share - background * static_cast<float>(this->labels.weight(i))) * scale);
    });
  }
};

template <class Format>
Launch cross_entropy_backward(const Request& request) {
  const auto options = request.attributes<SoftmaxCrossEntropyGradient>().options;
  const float background = options.label_smoothing / static_cast<float>(request.inputs[1].shape.c);
  std::size_t bytes = 0;
  const Array<float> factor(1, bytes);
  const WeightTable weights(request, options);
  const auto run = [=, operands = Operands(request)](const Arguments& a) {
    const Labels labels = labels_of(operands, a, 1, options.ignore_label, weights.data(), weights.spread);
    enqueue(a, 1, GradientFactor{{}, labels, operands.in(a, 0), factor(a)});
    enqueue_rows(a, RowGradients<Format>{{operands.in<Format>(a, 1), labels},
                                         operands.out<Format>(a, 0),
                                         options.label_smoothing,
                                         background,
                                         factor(a)});
  };
  return {.run = run, .workspace = bytes, .prepare = weights.prepare()};
}

template <class Format>
struct Hits : Rows<Format> {
  std::int32_t* hits;

  HALFTONE_DEVICE void operator()(NoShared&) const {
    const std::int64_t number = warp_number<Hits>();
    if (number >= this->labels.rows) return;
    const std::int64_t place = this->row(number).largest().place;
    if (lane_index() == 0) hits[number] = place == this->labels.of_row[number];
  }
};

struct ShareOfHits : OneBlock {
  struct Shared {
    std::int64_t counts[warps];
  };
  std::int64_t rows;
  const std::int32_t* hits;
  Sink<Any> y;

  HALFTONE_DEVICE void operator()(Shared& shared) const {
    const std::int64_t count = sum_over_block(rows, shared.counts, [&](std::int64_t row) { return hits[row]; });
    if (thread_index() == 0) y.write(0, static_cast<float>(static_cast<double>(count) / static_cast<double>(rows)));
  }
};

template <class Format>
Launch accuracy_of(const Request& request) {
  const std::int64_t rows = request.inputs[0].shape.n;
  std::size_t bytes = 0;
  const Array<std::int32_t> hits(rows, bytes);
  const auto run = [=, operands = Operands(request)](const Arguments& a) {
    enqueue_rows(a, Hits<Format>{{operands.in<Format>(a, 0), labels_of(operands, a, 0, {}, nullptr, 0)}, hits(a)});
    enqueue(a, 1, ShareOfHits{{}, rows, hits(a), operands.out(a, 0)});
  };
  return {.run = run, .workspace = bytes};
}

/// Losses of two tensors' numbers at one place, and `times` their slopes by the first.
struct Squared {
  static constexpr double times = 2;
  HALFTONE_DEVICE static float loss(float x, float t) { return (x - t) * (x - t); }
  HALFTONE_DEVICE static float slope(float x, float t) { return x - t; }
};

struct Logistic {
  static constexpr double times = 1;
  HALFTONE_DEVICE static float loss(float x, float t) {
    const float above = math::select(x > 0.0f, x, 0.0f), rest = math::log1p(math::exp(-math::abs(x)));
    return above - x * t + math::select(x == x, rest, x);
  }
  HALFTONE_DEVICE static float slope(float x, float t) { return Sigmoid{}.value(x) - t; }
};

/// A part of the sum of losses; threads walk through the tensors side by side.
template <class Loss, class Format>
struct SumOfPairs {
  static constexpr unsigned threads = 256;
  static constexpr int n = std::is_same_v<Format, Any> ? 1 : pack;
  struct Shared {
    double sums[threads / warp_lanes];
  };

  Source<Format> x, target;
  std::int64_t count;
  double* partials;

  static std::int64_t blocks(std::int64_t count) {
    return std::min<std::int64_t>(blocks_for<SumOfPairs>(count, 4 * pack), 1024);
  }

  HALFTONE_DEVICE static void add(double& sum, float a, float b) { sum += static_cast<double>(Loss::loss(a, b)); }

  HALFTONE_DEVICE void operator()(Shared& shared) const {
    const std::int64_t step = static_cast<std::int64_t>(block_count()) * threads * n;
    double sum = 0;
    for (std::int64_t first = thread_number<SumOfPairs>() * n; first < count; first += step) {
      if (first + n <= count) {
        float a[n], b[n];
        read(x, first, a);
        read(target, first, b);
        HALFTONE_UNROLL
        for (int i = 0; i < n; ++i) add(sum, a[i], b[i]);
      } else {
        for (std::int64_t i = first; i < count; ++i) add(sum, x[i], target[i]);
      }
    }
    sum = block_sum<threads>(sum, shared.sums);
    if (thread_index() == 0) partials[block_index()] = sum;
  }
};

struct MeanOfPartials : OneBlock {
  struct Shared {
    double sums[warps];
  };
  std::int64_t parts, count;
  const double* partials;
  Sink<Any> y;

  HALFTONE_DEVICE void operator()(Shared& shared) const {
    const double sum = sum_over_block(parts, shared.sums, [&](std::int64_t i) { return partials[i]; });
    if (thread_index() == 0) y.write(0, static_cast<float>(sum / static_cast<double>(count)));
  }
};

template <class Loss, class Format>
Launch mean_over_pairs(const Request& request) {
  using Kernel = SumOfPairs<Loss, Format>;
  const std::int64_t count = request.inputs[0].shape.elements(), parts = Kernel::blocks(count);
  std::size_t bytes = 0;
  const Array<double> partials(parts, bytes);
  const auto run = [=, operands = Operands(request)](const Arguments& a) {
    enqueue(a, parts, Kernel{operands.in<Format>(a, 0), operands.in<Format>(a, 1), count, partials(a)});
    enqueue(a, 1, MeanOfPartials{{}, parts, count, partials(a), operands.out(a, 0)});
  };
  return {.run = run, .workspace = bytes};
}

template <class Loss, class Format>
struct SlopesOfPairs {
  static constexpr unsigned threads = 256;
  using Shared = NoShared;

  Source<Any> d_loss;
  Source<Format> x, target;
  Sink<Format> d_x;
  std::int64_t count;

  HALFTONE_DEVICE void operator()(Shared&) const {
    const std::int64_t first = thread_number<SlopesOfPairs>() * pack;
    if (first >= count) return;
    const auto factor = static_cast<float>(Loss::times * static_cast<double>(d_loss[0]) / static_cast<double>(count));
    if (first + pack <= count) {
      float a[pack], b[pack];
      x.read(first, a);
      target.read(first, b);
      HALFTONE_UNROLL
      for (int i = 0; i < pack; ++i) a[i] = Loss::slope(a[i], b[i]) * factor;
      d_x.write(first, a);
    } else {
      for (std::int64_t i = first; i < count; ++i) d_x.write(i, Loss::slope(x[i], target[i]) * factor);
    }
  }
};

template <class Loss, class Format>
Launch gradient_of_pairs(const Request& request) {
  using Kernel = SlopesOfPairs<Loss, Format>;
  const std::int64_t count = request.inputs[1].shape.elements();
  return {.run = [=, operands = Operands(request)](const Arguments& a) {
    enqueue(a, blocks_for<Kernel>(count, pack),
            Kernel{operands.in(a, 0), operands.in<Format>(a, 1), operands.in<Format>(a, 2), operands.out<Format>(a, 0),
                   count});
  }};
}

}  // namespace

Launch softmax(const Request& request) {
  return with_format({&request.inputs[0], &request.outputs[0]}, [&](auto format) -> Launch {
    using Format = decltype(format);
    using Kernel = Shares<Format>;
    const std::int64_t rows = request.inputs[0].shape.rows(), n = request.inputs[0].shape.c;
    return {.run = [=, operands = Operands(request)](const Arguments& a) {
      enqueue(a, blocks_for<Kernel>(rows * warp_lanes),
              Kernel{operands.in<Format>(a, 0), operands.out<Format>(a, 0), rows, n});
    }};
  });
}

Launch softmax_gradient(const Request& request) {
  return with_format({&request.inputs[0], &request.inputs[1], &request.outputs[0]}, [&](auto format) -> Launch {
    using Format = decltype(format);
    using Kernel = ShareGradients<Format>;
    const std::int64_t rows = request.inputs[1].shape.rows(), n = request.inputs[1].shape.c;
    return {.run = [=, operands = Operands(request)](const Arguments& a) {
      enqueue(a, blocks_for<Kernel>(rows * warp_lanes),
              Kernel{operands.in<Format>(a, 0), operands.in<Format>(a, 1), operands.out<Format>(a, 0), rows, n});
    }};
  });
}

Launch softmax_cross_entropy(const Request& request) {
  return with_format({&request.inputs[0]},
                     [&](auto format) { return cross_entropy_forward<decltype(format)>(request); });
}

Launch softmax_cross_entropy_gradient(const Request& request) {
  return with_format({&request.inputs[1], &request.outputs[0]},
                     [&](auto format) { return cross_entropy_backward<decltype(format)>(request); });
}

Launch accuracy(const Request& request) {
  return with_format({&request.inputs[0]}, [&](auto format) { return accuracy_of<decltype(format)>(request); });
}

namespace {

template <class Loss>
Launch pairs_forward(const Request& request) {
  return with_format({&request.inputs[0], &request.inputs[1]},
                     [&](auto format) { return mean_over_pairs<Loss, decltype(format)>(request); });
}

template <class Loss>
Launch pairs_backward(const Request& request) {
  return with_format({&request.inputs[1], &request.inputs[2], &request.outputs[0]},
                     [&](auto format) { return gradient_of_pairs<Loss, decltype(format)>(request); });
}

}  // namespace

Launch mean_squared_error(const Request& request) { return pairs_forward<Squared>(request); }
Launch mean_squared_error_gradient(const Request& request) { return pairs_backward<Squared>(request); }
Launch binary_cross_entropy(const Request& request) { return pairs_forward<Logistic>(request); }
Launch binary_cross_entropy_gradient(const Request& request) { return pairs_backward<Logistic>(request); }

}  // namespace halftone::cuda
