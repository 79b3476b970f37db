#include "halftone/ops/initializers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "halftone/numeric/philox.hpp"

namespace halftone {
namespace {

constexpr std::uint64_t birth =
    ~std::uint64_t{0};  // the step that initial values are drawn in, which no training reaches

float draw(std::uint64_t seed, std::uint32_t stream, std::uint64_t i) { return uniform(seed, birth, stream, i); }

}  // namespace

Initializer uniform(float bound) {
  return [bound](std::span<float> values, std::uint64_t seed, std::uint32_t stream) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = bound * (2 * draw(seed, stream, i) - 1);
  };
}

Initializer normal(float stddev) {
  return [stddev](std::span<float> values, std::uint64_t seed, std::uint32_t stream) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float radius = std::sqrt(-2 * std::log(1 - draw(seed, stream, 2 * i)));
      values[i] = stddev * radius * std::cos(6.2831853f * draw(seed, stream, 2 * i + 1));
    }
  };
}

Initializer constant(float value) {
  return [value](std::span<float> values, std::uint64_t, std::uint32_t) {
    std::fill(values.begin(), values.end(), value);
  };
}

Initializer identity_first(Shape shape, Initializer others) {
  return [shape, others = std::move(others)](std::span<float> values, std::uint64_t seed, std::uint32_t stream) {
    if (static_cast<std::int64_t>(values.size()) != shape.elements())
      fail(fmt::format("identity_first of {} was given for {} numbers", to_string(shape), values.size()));
    others(values, seed, stream);
    const std::int64_t first = std::min(shape.n, shape.c), middle = (shape.h / 2 * shape.w + shape.w / 2) * shape.c;
    std::fill_n(values.begin(), first * shape.features(), 0.0f);
    for (std::int64_t k = 0; k < first; ++k) values[static_cast<std::size_t>(k * shape.features() + middle + k)] = 1;
  };
}

Initializer numbers(std::vector<float> given) {
  return [given = std::move(given)](std::span<float> values, std::uint64_t, std::uint32_t) {
    if (given.size() != values.size())
      fail(fmt::format("{} initial values were given for {}", given.size(), values.size()));
    std::copy(given.begin(), given.end(), values.begin());
  };
}

}  // namespace halftone
