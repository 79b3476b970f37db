#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/classifier.hpp"
#include "cli/commands.hpp"
#include "cli/report.hpp"
#include "halftone/ops/pointwise.hpp"

namespace halftone::cli {
namespace {

struct EvalSettings {
  ClassifierOptions net;
  std::string json;
};

/// What the logits of all images come to.
struct Results {
  Score all = {}, top5 = {};
  std::vector<Score> by_class = {};
  double loss = 0;  // mean
};

/// -log softmax(x)[label].
double cross_entropy_of(const float* x, std::int64_t n, std::int32_t label) {
  const double largest = *std::max_element(x, x + n);
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += std::exp(x[i] - largest);
  return std::log(sum) - (x[label] - largest);
}

/// How many classes come before `label`: those with more, and the equal ones of lower number.
std::int64_t rank_of(const float* x, std::int64_t n, std::int32_t label) {
  std::int64_t before = 0;
  for (std::int64_t i = 0; i < n; ++i) before += x[i] > x[label] || (x[i] == x[label] && i < label);
  return before;
}

Results results_of(const Classifier& net) {
  const std::int64_t classes = net.classes();
  const std::vector<float> logits = net([](Value x) { return cast(x, DType::f32); });  // as they are stored
  Results results{.by_class = std::vector<Score>(static_cast<std::size_t>(classes))};
  for (std::int64_t i = 0; i < net.data().size(); ++i) {
    const float* x = logits.data() + i * classes;
    const std::int32_t label = net.data().labels[static_cast<std::size_t>(i)];
    results.loss += cross_entropy_of(x, classes, label) / static_cast<double>(net.data().size());
    const bool hit = first_largest(x, classes) == label;
    for (Score* score : {&results.all, &results.by_class[static_cast<std::size_t>(label)]})
      score->right += hit, ++score->images;
    results.top5.right += rank_of(x, classes, label) < 5, ++results.top5.images;
  }
  return results;
}

Json by_class(const Classifier& net, const std::vector<Score>& scores) {
  Json all = Json::array();
  for (std::size_t label = 0; label < scores.size(); ++label) {
    Json one = {{"class", net.name_of(static_cast<std::int64_t>(label))},
                {"images", scores[label].images},
                {"accuracy", nullptr}};
    if (scores[label].images > 0) one["accuracy"] = scores[label].accuracy();
    all.push_back(one);
  }
  return all;
}

int evaluate(const EvalSettings& s) {
  check_outputs({{"--json", s.json}}, {{"--checkpoint", s.net.checkpoint}}, files_read("", s.net.data));
  const Classifier net(s.net, Split::test);
  const Results test = results_of(net);
  const std::string part = net.part();
  fmt::print("{} on {}{} in {}, {} weights: {} {:.2f} %, loss {:.4f}, {} images\n", net.model().net->name,
             name_for_people(net.data()), part.empty() ? "" : " (" + part + ")", net.precision(), net.weights(),
             net.data().whole ? "error" : "test error", 100 * test.all.error(), test.loss, test.all.images);
  write_json(s.json, {{"net", net.model().net->name},
                      {"data", net.data().name},
                      {"synthetic", net.data().synthetic},
                      {"device", net.device_name()},
                      {"precision", net.precision()},
                      {"weights", net.weights()},
                      {"split", net.data().whole ? "all" : "test"},
                      {"validation", net.data().validation},
                      {"images", test.all.images},
                      {"test_loss", test.loss},
                      {"test_accuracy", test.all.accuracy()},
                      {"test_error", test.all.error()},
                      {"top5_accuracy", test.top5.accuracy()},
                      {"by_class", by_class(net, test.by_class)}});
  return 0;
}

}  // namespace

void add_eval(CLI::App& app, Command& command) {
  CLI::App* sub = app.add_subcommand("eval", "evaluates a checkpoint on a test set");
  auto s = std::make_shared<EvalSettings>();
  s->net.add_to(*sub);
  sub->add_option("--json", s->json, "JSON file with the results, also by class");
  sub->callback([s, &command] { command = [s] { return evaluate(*s); }; });
}

}  // namespace halftone::cli
