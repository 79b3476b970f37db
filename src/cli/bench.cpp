#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <optional>

#include "cli/bench_model.hpp"
#include "cli/commands.hpp"
#include "cli/options.hpp"
#include "cli/report.hpp"

namespace halftone::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct BenchSettings {
  DeviceOptions device;
  std::string net, precision = "f32", json, profile;
  std::int64_t batch = 128;
  double seconds = 10;
  bool inference = false;
};

double seconds_since(Clock::time_point began) { return std::chrono::duration<double>(Clock::now() - began).count(); }

template <class Step>
std::vector<double> step_times(Step&& step, const Device& device, double seconds) {
  constexpr std::size_t fewest = 5;
  const auto timed = [&] {
    const auto began = Clock::now();
    step();
    device.backend().synchronize();
    return seconds_since(began);
  };
  for (int i = 0; i < 3; ++i) timed();
  std::vector<double> times;
  for (const auto began = Clock::now(); seconds_since(began) < seconds || times.size() < fewest;)
    times.push_back(timed());
  return times;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

struct Share {
  double seconds = 0, operations = 0, bytes = 0;
  int nodes = 0;
};

/// Of all tensors that a node reads and writes, each once.
double bytes_of(const Graph& graph, const Node& node) {
  std::size_t bytes = 0;
  for (const std::vector<int>* ids : {&node.inputs, &node.outputs})
    for (const int id : *ids) bytes += graph.info(id).spec.tensor().bytes();
  return static_cast<double>(bytes);
}

/// Seconds by kernel or by node, the largest first; the fastest of a few runs counts.
std::vector<std::pair<std::string, Share>> profile(const Plan& plan, bool by_node) {
  std::vector<double> best = plan.profile();
  for (int i = 0; i < 4; ++i) {
    const std::vector<double> again = plan.profile();
    for (std::size_t n = 0; n < best.size(); ++n) best[n] = std::min(best[n], again[n]);
  }
  std::map<std::string, Share> shares;
  for (std::size_t n = 0; n < best.size(); ++n) {
    const Plan::Report& report = plan.kernels()[n];
    Share& share = shares[by_node ? fmt::format("{}  {}", report.kernel, report.node) : report.kernel];
    const Node& node = plan.graph()->nodes[report.number];
    share.seconds += best[n];
    share.operations += node.op->operations(plan.graph().specs(node.inputs), plan.graph().specs(node.outputs));
    share.bytes += bytes_of(plan.graph(), node);
    ++share.nodes;
  }
  std::vector<std::pair<std::string, Share>> sorted(shares.begin(), shares.end());
  std::ranges::stable_sort(sorted, std::greater(), [](const auto& named) { return named.second.seconds; });
  return sorted;
}

/// `peak`: that the machine reaches, 0 where that is not known.
Json show_profile(const Plan& plan, bool by_node, double peak) {
  const auto shares = profile(plan, by_node);
  double total = 0;
  for (const auto& [name, share] : shares) total += share.seconds;
  Json json = Json::array();
  for (const auto& [name, share] : shares) {
    const double rate = share.operations / share.seconds;
    fmt::print("{:9.3f} ms {:5.1f} % {:>15} {:>12} {:6.1f} GB/s  {}{}\n", 1e3 * share.seconds,
               100 * share.seconds / total, rate > 0 ? fmt::format("{:.1f} GFLOP/s", 1e-9 * rate) : "",
               rate > 0 && peak > 0 ? fmt::format("{:.0f} % of peak", 100 * rate / peak) : "",
               1e-9 * share.bytes / share.seconds, name,
               share.nodes > 1 ? fmt::format("  ({} nodes)", share.nodes) : "");
    json.push_back({{"name", name},
                    {"nodes", share.nodes},
                    {"seconds", share.seconds},
                    {"operations", share.operations},
                    {"bytes", share.bytes},
                    {"share_of_peak", nullptr}});
    if (rate > 0 && peak > 0) json.back()["share_of_peak"] = rate / peak;
  }
  return json;
}

int bench(const BenchSettings& s) {
  check_outputs({{"--json", s.json}});
  const Device device = s.device.open();
  std::optional<BenchModel> model;
  std::optional<BenchPredictor> predictor;
  std::vector<double> times;
  if (s.inference) {
    predictor.emplace(s.net, s.precision, s.batch, device);
    times = step_times([&] { predictor->predict(predictor->batch.images); }, device, s.seconds);
  } else {
    model.emplace(s.net, s.precision, s.batch, device);
    times = step_times([&] { model->trainer.step(model->batch); }, device, s.seconds);
  }
  const double step = median(times), rate = static_cast<double>(s.batch) / step;
  fmt::print("{} in {}, {}batch {}, {}: {:.0f} images/s, {:.3f} ms a step (median of {})\n", s.net, s.precision,
             s.inference ? "inference, " : "", s.batch, device.backend().description(), rate, 1e3 * step, times.size());
  Json json = {{"net", s.net},
               {"data", "random"},
               {"device", device.backend().name()},
               {"hardware", device.backend().description()},
               {"precision", s.precision},
               {"batch", s.batch},
               {"inference", s.inference},
               {"parameters", parameter_count(model ? model->graph : predictor->graph)},
               {"steps", times.size()},
               {"seconds_per_step", step},
               {"images_per_second", rate},
               {"memory", to_json(model ? model->trainer.memory() : predictor->predict.memory())}};
  if (!s.profile.empty()) {
    const double peak = device.backend().multiply_add_peak();
    if (peak > 0) fmt::print("f32 multiply-add peak now: {:.1f} GFLOP/s\n", 1e-9 * peak);
    json["multiply_add_peak"] = peak;
    json["profile"] = show_profile(model->trainer.plan(), s.profile == "nodes", peak);
  }
  write_json(s.json, json);
  return 0;
}

}  // namespace

void add_bench(CLI::App& app, Command& command) {
  CLI::App* sub =
      app.add_subcommand("bench", "measures images per second, in training or inference, on a fixed random batch");
  auto s = std::make_shared<BenchSettings>();
  sub->add_option("--net", s->net, "the net to train, FILE.onnx or one that `halftone info` lists")->required();
  sub->add_option("--precision", s->precision, "the number system")->capture_default_str();
  sub->add_option("--batch", s->batch, "images a step")->check(whole(1, 1e9))->capture_default_str();
  sub->add_option("--seconds", s->seconds, "how long to measure")->check(within(0, 1e6))->capture_default_str();
  CLI::Option* inference = sub->add_flag("--inference", s->inference, "evaluates the net instead of training it");
  sub->add_option("--profile", s->profile,
                  "where the time goes, by `kernels` or `nodes`: operations as a layer is\n"
                  "defined (minimal filtering takes fewer), bytes of all its tensors")
      ->check(CLI::IsMember({"kernels", "nodes"}))
      ->excludes(inference);
  sub->add_option("--json", s->json, "JSON file with the results");
  s->device.add_to(*sub);
  sub->callback([s, &command] { command = [s] { return bench(*s); }; });
}

}  // namespace halftone::cli
