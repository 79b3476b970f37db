#include <fmt/format.h>

#include <algorithm>

#include "cli/classifier.hpp"
#include "cli/commands.hpp"
#include "cli/report.hpp"
#include "halftone/io/atomic_file.hpp"
#include "halftone/ops/softmax.hpp"

namespace halftone::cli {
namespace {

struct PredictSettings {
  ClassifierOptions net;
  std::string split = "test", out;
};

/// A line an image: index, label if it is known, predicted class, the probability of every class and, of a folder, the
/// file.
std::string csv_of(const Classifier& net, const std::vector<float>& shares,
                   const std::vector<std::int64_t>& predicted) {
  std::string text = "index,label,predicted";
  for (int label = 0; label < net.classes(); ++label) text += fmt::format(",p{}", label);
  if (!net.data().files.empty()) text += ",file";
  auto share = shares.begin();
  for (std::size_t i = 0; i < predicted.size(); ++i) {
    const std::int32_t label = net.data().labels[i];
    text += fmt::format("\n{},{},{}", i, label < 0 ? "" : std::to_string(label), predicted[i]);
    for (int label = 0; label < net.classes(); ++label) text += fmt::format(",{}", *share++);
    if (!net.data().files.empty()) text += "," + csv_field(net.data().files[i]);
  }
  return text + "\n";
}

/// Counts by true class (rows) and predicted class (columns).
void print_confusion(const Classifier& net, const std::vector<std::int64_t>& predicted) {
  const auto classes = static_cast<std::size_t>(net.classes());
  std::vector<std::vector<std::int64_t>> counts(classes, std::vector<std::int64_t>(classes));
  for (std::size_t i = 0; i < predicted.size(); ++i)
    ++counts[static_cast<std::size_t>(net.data().labels[i])][static_cast<std::size_t>(predicted[i])];
  std::size_t name_width = 4, width = std::to_string(classes - 1).size();
  for (std::size_t row = 0; row < classes; ++row) {
    name_width = std::max(name_width, net.name_of(static_cast<std::int64_t>(row)).size());
    for (const std::int64_t count : counts[row]) width = std::max(width, std::to_string(count).size());
  }
  fmt::print("{:<{}}   #", "true", name_width);
  for (std::size_t column = 0; column < classes; ++column) fmt::print(" {:>{}}", column, width);
  fmt::print("  <- predicted\n");
  for (std::size_t row = 0; row < classes; ++row) {
    fmt::print("{:<{}} {:>3}", net.name_of(static_cast<std::int64_t>(row)), name_width, row);
    for (const std::int64_t count : counts[row]) fmt::print(" {:>{}}", count, width);
    fmt::print("\n");
  }
}

/// How many images were taken for each class.
void print_counts(const Classifier& net, const std::vector<std::int64_t>& predicted) {
  for (std::int64_t label = 0; label < net.classes(); ++label)
    if (const auto count = std::ranges::count(predicted, label); count > 0)
      fmt::print("{:>8}  {}\n", count, net.name_of(label));
}

int predict(const PredictSettings& s) {
  check_outputs({{"--out", s.out}}, {{"--checkpoint", s.net.checkpoint}}, files_read("", s.net.data));
  const Classifier net(s.net, s.split == "train" ? Split::train : Split::test);
  const std::vector<float> shares = net(softmax);
  std::vector<std::int64_t> predicted;
  Score score;
  for (std::int64_t i = 0; i < net.data().size(); ++i) {
    const float* of_image = shares.data() + i * net.classes();
    predicted.push_back(first_largest(of_image, net.classes()));
    score.right += predicted.back() == net.data().labels[static_cast<std::size_t>(i)];
    ++score.images;
  }
  const std::string part = net.part(), images = net.data().whole ? part
                                                : part.empty()   ? s.split
                                                                 : s.split + ", " + part;
  fmt::print("{} on {} ({}) in {}, {} weights: {}, {} images\n", net.model().net->name, name_for_people(net.data()),
             images, net.precision(), net.weights(),
             net.labelled() ? fmt::format("error {:.2f} %", 100 * score.error()) : "no labels", score.images);
  (net.labelled() ? print_confusion : print_counts)(net, predicted);
  if (!s.out.empty()) write_file(s.out, csv_of(net, shares, predicted));
  return 0;
}

}  // namespace

void add_predict(CLI::App& app, Command& command) {
  CLI::App* sub = app.add_subcommand("predict", "what a checkpoint's net says of each image, and a confusion matrix");
  auto s = std::make_shared<PredictSettings>();
  s->net.reading.without_labels = true;
  s->net.add_to(*sub);
  sub->add_option("--split", s->split, "test or train")->check(CLI::IsMember({"test", "train"}))->capture_default_str();
  sub->add_option("--out", s->out, "CSV file: index,label,predicted and the probability of every class");
  sub->callback([s, &command] { command = [s] { return predict(*s); }; });
}

}  // namespace halftone::cli
