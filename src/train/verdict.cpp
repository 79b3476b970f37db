#include "halftone/train/verdict.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "halftone/tensor/error.hpp"

namespace halftone {
namespace {

/// Student's t that 97.5 % lie below, for 1 to 30 degrees of freedom.
constexpr double quantiles[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                                2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
                                2.080,  2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042};

double quantile(double freedom) {
  const auto whole = static_cast<std::size_t>(std::max(freedom, 1.0));  // rounded down: the wider interval
  return whole <= std::size(quantiles) ? quantiles[whole - 1] : 1.96;
}

/// Half of the 95 % interval of a difference of means.
double interval_of(const Spread& a, std::size_t of_a, const Spread& b, std::size_t of_b) {
  if (of_a < 2 || of_b < 2) return std::numeric_limits<double>::infinity();
  const double m = static_cast<double>(of_a), n = static_cast<double>(of_b);
  const double va = a.deviation * a.deviation / m, vb = b.deviation * b.deviation / n;
  if (va + vb == 0) return 0;
  const double freedom = (va + vb) * (va + vb) / (va * va / (m - 1) + vb * vb / (n - 1));
  return quantile(freedom) * std::sqrt(va + vb);
}

std::string percent(const Spread& spread, std::size_t seeds) {
  return seeds > 1 ? fmt::format("{:.2f} ± {:.2f} %", 100 * spread.mean, 100 * spread.deviation)
                   : fmt::format("{:.2f} %", 100 * spread.mean);
}

}  // namespace

const char* name_of(Verdict verdict) {
  return verdict == Verdict::fine ? "fine" : verdict == Verdict::risky ? "risky" : "fails";
}

Spread spread_of(std::span<const double> numbers) {
  if (numbers.empty()) return {};
  const double count = static_cast<double>(numbers.size());
  Spread spread;
  for (double x : numbers) spread.mean += x / count;
  for (double x : numbers) spread.deviation += (x - spread.mean) * (x - spread.mean);
  spread.deviation = numbers.size() > 1 ? std::sqrt(spread.deviation / (count - 1)) : 0;
  return spread;
}

Comparison compare(std::span<const double> errors, std::span<const double> reference, double chance) {
  if (errors.empty() || reference.empty()) fail("compare: no runs");
  const Spread own = spread_of(errors), other = spread_of(reference);
  Comparison result{Verdict::risky,
                    own.mean,
                    own.deviation,
                    own.mean - other.mean,
                    interval_of(own, errors.size(), other, reference.size()),
                    {}};
  const std::string against =
      fmt::format("{} against {}", percent(own, errors.size()), percent(other, reference.size()));
  const auto stuck = std::count_if(errors.begin(), errors.end(), [&](double x) { return !(x < chance / 2); });
  const bool reference_learns = other.mean < chance / 2;
  // Noise is what one seed of the reference does, or a tenth of its error where seeds happen to agree.
  const double noise = std::max(other.deviation, 0.1 * other.mean);
  const bool one_seed = errors.size() < 2 || reference.size() < 2;
  const bool proved = result.difference > result.interval;
  const bool twice = result.difference > 0 && own.mean >= 2 * other.mean;
  if (!reference_learns) {
    result.reason = fmt::format("nothing can be told: the reference itself does not learn ({})", against);
  } else if (stuck > 0) {
    result.verdict = Verdict::fails;
    result.reason = fmt::format("{} of {} runs do not learn ({})", stuck, errors.size(), against);
  } else if (twice && (proved || (one_seed && other.mean > 0))) {
    result.verdict = Verdict::fails;
    result.reason = other.mean > 0 ? fmt::format("{:.1f} times the error ({})", own.mean / other.mean, against)
                                   : fmt::format("errors where the reference makes none ({})", against);
  } else if (one_seed) {
    result.reason = fmt::format("one seed cannot tell ({})", against);
  } else if (result.difference <= noise && !twice) {
    result.verdict = Verdict::fine;
    result.reason = fmt::format("as good within what seeds do ({})", against);
  } else if (proved) {
    result.reason =
        fmt::format("worse by {:.2f} points, more than seeds differ ({})", 100 * result.difference, against);
  } else {
    result.reason = fmt::format("too few seeds to tell: the difference is {:.2f} ± {:.2f} points ({})",
                                100 * result.difference, 100 * result.interval, against);
  }
  return result;
}

}  // namespace halftone
