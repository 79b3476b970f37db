#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace halftone::cuda {

class Driver;

/// An engine of cuDNN and how its knobs are set.
struct ConvolutionPlan {
  std::int64_t engine = 0;
  std::vector<std::pair<int, std::int64_t>> knobs;  ///< type, value
  bool tensor_cores = false;
  std::size_t workspace = 0;  ///< bytes
  bool operator==(const ConvolutionPlan&) const = default;
};

/// What was fastest, in a file. A damaged or absent file is an empty one; where it cannot be written nothing is kept.
class PlanCache {
 public:
  explicit PlanCache(std::filesystem::path file);
  /// Engine and knobs alone are known of what it returns.
  std::optional<ConvolutionPlan> find(const std::string& key) const;
  void store(const std::string& key, const ConvolutionPlan& plan) const;

 private:
  std::filesystem::path file_;
};

/// The one of `plans` that the cache has under `key`, else the fastest of the first few by `milliseconds`, which is
/// then stored. Plans that throw Failure are passed over; the first one is taken where all do.
std::size_t tuned(const PlanCache& cache, const std::string& key, std::span<const ConvolutionPlan> plans,
                  const std::function<double(const ConvolutionPlan&)>& milliseconds);

/// Milliseconds that `enqueue`'s work takes on the device, the host's share left out.
double milliseconds_of(Driver& driver, const std::function<void()>& enqueue);

}  // namespace halftone::cuda
