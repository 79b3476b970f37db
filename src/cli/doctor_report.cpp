#include "cli/doctor_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/page.hpp"
#include "cli/plot.hpp"

namespace halftone::cli {
namespace {

const std::vector<FormatSpan> spans = {{"f16", -24, 15},
                                       {"bf16", -133, 127},
                                       {"fixed:6.10", -10, 4},
                                       {"e4m3, scale 1", -9, 8},
                                       {"e5m2, scale 1", -16, 15}};

struct RolePlot {
  const char *role, *title, *says;
};
constexpr RolePlot plots[] = {
    {"activations", "Activations",
     "What layers hand forward. A format holds what lies within its span; what lies left of it becomes 0, which "
     "activations bear well, what lies right of it becomes infinity or is cut off, which they do not."},
    {"activation_gradients", "Gradients of activations",
     "What layers hand back, before any loss scale. This is what 16 bits lose first: where most of a row lies left of "
     "a "
     "format's span, the layers before it learn nothing. A loss scale moves all rows to the right together."},
    {"weight_gradients", "Gradients of weights", "As above, summed over the batch, so further to the right."},
    {"weights", "Weights", "Any format holds them; how finely is seen in the next plot."},
    {"update", "Updates",
     "What a step adds to the weights. Where a row lies more than 8 powers of two (bf16) or 11 (f16) left of the "
     "weights "
     "above, a weight of that format does not move without masters; the table tells how often."}};

std::string histograms(const Json& found) {
  std::string out;
  for (const auto& [role, title, says] : plots) {
    std::vector<HistogramRow> rows;
    for (const Json& node : found["nodes"])
      if (node["role"] == role) rows.push_back(histogram_row(node["node"], node));
    if (!rows.empty()) out += section(title, says, histogram_plot("magnitude, as a power of two", rows, spans));
  }
  return out;
}

std::string fidelity_table(const Json& found) {
  std::string out =
      "<h2>What was measured</h2>\n<p class=\"soft\">Single steps of each number system from where f32 stood, against "
      "the "
      "step of f32 on the same batch. Bad are: a gradient of which little arrives; a turn of more than some percent "
      "that "
      "all batches share, since it adds up; noise of several times the gradient's own energy; an update that is mostly "
      "lost; a loss that is a multiple of that of f32.</p>\n<div class=\"wide\"><table>\n<tr><th>number system</th>"
      "<th>loss scale</th><th>verdict</th><th>gradient that arrives</th><th>turned alike</th><th>noise</th>"
      "<th>update that is kept</th><th>loss after a rehearsal, times that of f32</th></tr>\n";
  for (const Json& s : found["systems"]) {
    const Json& g = s["gradients"];
    out += fmt::format(
        "<tr><td>{}</td><td>{}</td><td class=\"{}\">{}</td><td>{:.1f} %</td><td>{:.1f} %</td><td>{:.3g} "
        "%</td><td>{:.1f} "
        "%</td><td>{}</td></tr>\n",
        escaped(s["precision"].get<std::string>()), escaped(s["loss_scale"].get<std::string>()),
        s["verdict"].get<std::string>(), s["verdict"].get<std::string>(), 100 * g["arrives"].get<double>(),
        100 * g["systematic"].get<double>(), 100 * g["random"].get<double>(), 100 * s["updates_retained"].get<double>(),
        s["rehearsal"].is_null()           ? "not needed"
        : s["rehearsal"]["loss"].is_null() ? "no number"
                                           : fmt::format("{:.2f}", s["rehearsal"]["loss"].get<double>()));
  }
  return out + "</table></div>\n";
}

std::string layer_table(const Json& found) {
  std::string out =
      "<h2>Layer by layer</h2>\n<p class=\"soft\">The cheapest storage whose range holds 99 of 100 numbers, and of "
      "updates "
      "the share that would change nothing without masters.</p>\n<div class=\"wide\"><table>\n<tr><th>layer</th>"
      "<th>role</th><th>largest</th><th>zeros</th><th>lost in bf16</th><th>lost in f16</th><th>bears</th></tr>\n";
  for (const Json& node : found["nodes"]) {
    const auto lost = [&](const char* format) {
      return node.contains("lost") ? fmt::format("{:.1f} %", 100 * node["lost"][format].get<double>()) : "";
    };
    out += fmt::format(
        "<tr><td>{}</td><td>{}</td><td>{:.3g}</td><td>{:.1f} %</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
        escaped(node["node"].get<std::string>()), node["role"].get<std::string>(), node["largest"].get<double>(),
        100 * node["zeros"].get<double>(), lost("bf16"), lost("f16"), escaped(node["suggested"].get<std::string>()));
  }
  return out + "</table></div>\n";
}

std::string loss_plot(const Json& found) {
  Curve curve{"f32", 0, {}, {}};
  for (const Json& loss : found["loss"]) {
    curve.x.push_back(static_cast<double>(curve.x.size() + 1));
    curve.y.push_back(loss);
  }
  return section("Loss of the steps that were watched",
                 "It should have fallen: what was seen while a net learns nothing tells little about one that does.",
                 line_plot("step", "training loss", {curve}, true));
}

std::string scales_text(double lowest, double highest) {
  if (lowest == 0) return "No gradient was seen that is not 0.";
  const std::string text = fmt::format("Loss scales that are safe for f16: 2<sup>{}</sup> to 2<sup>{}</sup>. ",
                                       std::ilogb(lowest), std::ilogb(highest));
  if (lowest > highest) return text + "None is: f16 does not do for all gradients at once.";
  if (lowest > 1) return text + "Without one gradients are lost.";
  if (highest < 1) return text + "Without one gradients overflow.";
  return text + "So f16 works without one for these steps; gradients shrink as training goes on.";
}

}  // namespace

std::string doctor_page(const Json& found) {
  const std::string title =
      fmt::format("{} on {}: what its numbers bear", found["net"].get<std::string>(), found["data"].get<std::string>());
  const double lowest = found["loss_scale"]["lowest"], highest = found["loss_scale"]["highest"];
  std::string out = fmt::format(
      "<p class=\"soft\">{} steps in f32 with batches of {}, learning rate {:.6g}, stress {:g}, seed {}, {}. "
      "<em>Fine</em> "
      "foretells "
      "an error within noise of that of f32, <em>fails</em> at least twice its error or no learning, <em>risky</em> "
      "something "
      "between, or that the doctor cannot tell: <code>halftone study</code> can.</p>\n",
      found["steps"].get<int>(), found["batch"].get<int>(), found["learning_rate"].get<double>(),
      found["stress"].get<double>(), found["seed"].get<std::uint64_t>(), escaped(found["hardware"].get<std::string>()));
  out += synthetic_note(found) + verdict_list(found["systems"]);
  out += fmt::format(
      "<h2>What to do</h2>\n<p>The cheapest storage that was found fine:</p>\n<pre>halftone train --net {} --data {} "
      "{}</pre>\n"
      "<p>in C++:</p>\n<pre>{}</pre>\n<p>{}</p>\n",
      escaped(found["net"].get<std::string>()), escaped(found["data_option"].get<std::string>()),
      escaped(found["suggested"]["options"].get<std::string>()), escaped(found["suggested"]["code"].get<std::string>()),
      scales_text(lowest, highest));
  out += fidelity_table(found) + histograms(found) + layer_table(found) + loss_plot(found);
  return page(title, out, fmt::format("halftone {}; all figures: --json", found["version"].get<std::string>()));
}

}  // namespace halftone::cli
