#pragma once
#include <span>
#include <string>

namespace halftone {

/// Whether a number system does for a net: within what seeds do to the one it is held against; at least twice its error
/// or no convergence; or between, or not to be told from so few seeds.
enum class Verdict { fine, risky, fails };

const char* name_of(Verdict verdict);

/// What several seeds of a run say of another's.
struct Comparison {
  Verdict verdict;
  double mean, deviation;  ///< of the errors; the deviation of one run is 0
  double difference;       ///< of the means, positive where `errors` are larger
  double interval;         ///< half of the 95 % interval of the difference (Welch 1947); infinite for one seed
  std::string reason;      ///< one sentence
};

/// Mean and standard deviation (of a sample) of numbers; 0 and 0 of none.
struct Spread {
  double mean = 0, deviation = 0;
};
Spread spread_of(std::span<const double> numbers);

/// Holds the errors of runs, shares between 0 and 1, against a reference's; `chance` is the error of guessing. Throws
/// Error where either is empty.
Comparison compare(std::span<const double> errors, std::span<const double> reference, double chance);

}  // namespace halftone
