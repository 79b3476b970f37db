#include "kernels/cuda/plan_cache.hpp"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "halftone/io/atomic_file.hpp"
#include "halftone/tensor/error.hpp"
#include "kernels/cuda/driver.hpp"

// The cache: {"format": 1, "plans": {key: [engine, [[knob, value], ...]]}}.
namespace halftone::cuda {
namespace {

namespace fs = std::filesystem;
using json = nlohmann::json;

constexpr int cache_format = 1;
constexpr std::uintmax_t most_cache_bytes = 64 << 20;

/// An object, empty where the file is no cache.
json entries_of(const fs::path& file) {
  std::error_code error;
  if (file.empty() || !fs::is_regular_file(file, error) || fs::file_size(file, error) > most_cache_bytes)
    return json::object();
  std::ifstream stream(file);
  const json content = json::parse(stream, nullptr, false);
  if (!content.is_object() || content.value("format", json()) != cache_format) return json::object();
  const auto plans = content.find("plans");
  return plans != content.end() && plans->is_object() ? *plans : json::object();
}

}  // namespace

PlanCache::PlanCache(fs::path file) : file_(std::move(file)) {}

std::optional<ConvolutionPlan> PlanCache::find(const std::string& key) const {
  const json entries = entries_of(file_);
  const auto entry = entries.find(key);
  if (entry == entries.end()) return std::nullopt;
  try {
    ConvolutionPlan plan;
    plan.engine = entry->at(0).get<std::int64_t>();
    plan.knobs = entry->at(1).get<decltype(plan.knobs)>();
    return plan;
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

void PlanCache::store(const std::string& key, const ConvolutionPlan& plan) const {
  if (file_.empty()) return;
  try {
    json entries = entries_of(file_);
    entries[key] = {plan.engine, plan.knobs};
    if (file_.has_parent_path()) make_folder(file_.parent_path());
    write_file(file_, json{{"format", cache_format}, {"plans", std::move(entries)}}.dump(1) + "\n");
  } catch (const FileError&) {  // it is only timed again
  } catch (const fs::filesystem_error&) {
  }
}

namespace {

constexpr std::size_t most_timed = 4;
constexpr int runs = 10, repeats = 3;  // a timing is the best of `repeats` averages

}  // namespace

std::size_t tuned(const PlanCache& cache, const std::string& key, std::span<const ConvolutionPlan> plans,
                  const std::function<double(const ConvolutionPlan&)>& milliseconds) {
  if (const auto kept = cache.find(key))
    for (std::size_t i = 0; i < plans.size(); ++i)
      if (plans[i].engine == kept->engine && plans[i].knobs == kept->knobs) return i;
  std::size_t best = 0;
  double least = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < std::min(plans.size(), most_timed); ++i) {
    try {
      const double time = milliseconds(plans[i]);
      if (time < least) least = time, best = i;
    } catch (const Failure&) {
    }
  }
  if (least < std::numeric_limits<double>::infinity()) cache.store(key, plans[best]);
  return best;
}

double milliseconds_of(Driver& driver, const std::function<void()>& enqueue) {
  enqueue();  // loads the kernels
  driver.synchronize();
  driver.begin_capture();
  try {
    for (int i = 0; i < runs; ++i) enqueue();
  } catch (...) {
    driver.end_capture();
    throw;
  }
  const std::shared_ptr<void> captured = driver.end_capture();
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    driver.replay(captured.get());
    driver.synchronize();
    best = std::min(best, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  return best / runs;
}

}  // namespace halftone::cuda
