#include "cli/study_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "cli/plot.hpp"

namespace halftone::cli {
namespace {

constexpr const char* head = R"(<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --back: #fff; --ink: #1d2330; --soft: #5b6475; --line: #dde1e8; --card: #f6f7f9;
  --good: #18794e; --fair: #9a6700; --bad: #c0362c;
  --c0: #3b6fd4; --c1: #d9792b; --c2: #2f9e6e; --c3: #b5489b; --c4: #7a6ff0; --c5: #c9a227; --c6: #2aa5b8; --c7: #8a5a44;
  --c8: #6b7a8f; --c9: #e0567a; }}
@media (prefers-color-scheme: dark) {{ :root {{ --back: #14171d; --ink: #e7eaf0; --soft: #9aa4b5; --line: #2c323d;
  --card: #1c2028; --good: #4cc38a; --fair: #e2a336; --bad: #ff7a6e; --c0: #7aa2f7; --c1: #f0a060; --c2: #5fcf9f;
  --c3: #dd7fc6; --c4: #a79dff; --c5: #e5c558; --c6: #62cfe0; --c7: #c79a83; --c8: #9fb0c6; --c9: #ff8fac; }} }}
body {{ background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin-top: 2.2rem; }}
p.soft, td.soft {{ color: var(--soft); }}
ul.verdicts {{ list-style: none; padding: 0; }}
ul.verdicts li {{ background: var(--card); border-radius: 6px; padding: .5rem .8rem; margin: .4rem 0; }}
.fine, .reference {{ color: var(--good); }} .risky {{ color: var(--fair); }} .fails {{ color: var(--bad); }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }}
th {{ white-space: normal; vertical-align: bottom; }} th:first-child, td:first-child {{ text-align: left; }}
svg {{ width: 100%; height: auto; }} svg text {{ fill: var(--ink); font: 12px system-ui, sans-serif; }}
.grid {{ stroke: var(--line); }} .line {{ fill: none; stroke-width: 1.6; opacity: .85; }} .mark {{ stroke: var(--ink); stroke-width: 2; }}
{colours}code {{ background: var(--card); padding: .1rem .3rem; border-radius: 4px; }}
</style></head><body>
)";

std::string colours() {
  std::string out;
  for (int i = 0; i < 10; ++i)
    out += fmt::format(".line.s{0} {{ stroke: var(--c{0}); }} .fill.s{0} {{ fill: var(--c{0}); }}\n", i);
  return out;
}

std::string megabytes(const Json& bytes) { return fmt::format("{:.2f}", bytes.get<double>() / 1e6); }

std::string share(const Json& numerics, const char* key) {
  return numerics.contains(key) ? fmt::format("{:.2f} %", 100 * numerics[key].get<double>()) : "";
}

std::string verdicts(const Json& study) {
  std::string out = "<ul class=\"verdicts\">\n";
  for (const Json& system : study["systems"])
    out += fmt::format("<li><strong>{}: <span class=\"{}\">{}</span></strong> &ndash; {}</li>\n",
                       escaped(system["precision"].get<std::string>()), system["verdict"].get<std::string>(),
                       system["verdict"].get<std::string>(), escaped(system["reason"].get<std::string>()));
  return out + "</ul>\n";
}

std::string table(const Json& study) {
  std::string out =
      "<div class=\"wide\"><table>\n<tr><th>number system</th><th>test error, %</th><th>training loss</th>"
      "<th>activations, MB</th><th>weights and masters, MB</th><th>images/s</th><th>skipped steps</th>"
      "<th>gradients that are 0</th><th>updates that change nothing</th></tr>\n";
  for (const Json& system : study["systems"]) {
    const Json &memory = system["memory"], &numerics = system["numerics"];
    double loss = 0;
    for (const Json& x : system["train_loss"])
      loss += (x.is_number() ? x.get<double>() : 0) / static_cast<double>(system["train_loss"].size());
    out += fmt::format(
        "<tr><td>{}</td><td>{}</td><td>{:.4f}</td><td>{}</td><td>{}</td><td>{:.0f}</td><td>{}</td><td>{}</td><td>{}</"
        "td>"
        "</tr>\n",
        escaped(system["precision"].get<std::string>()), error_text(system), loss, megabytes(memory["activations"]),
        megabytes(Json(memory["weights"].get<double>() + memory["masters"].get<double>())),
        system["images_per_second"].get<double>(),
        numerics.contains("skipped_steps") ? fmt::format("{:.4g}", numerics["skipped_steps"].get<double>()) : "",
        share(numerics, "zero_weight_gradients"), share(numerics, "unchanged_weights"));
  }
  return out + "</table></div>\n";
}

std::vector<Curve> curves(const Json& study, const char* x, const char* y) {
  std::vector<Curve> found;
  std::size_t colour = 0;
  for (const Json& system : study["systems"]) {
    for (const Json& run : system["curves"]) {
      Curve curve{system["precision"], colour % 10, {}, {}};
      for (std::size_t i = 0; i < run[x].size(); ++i) {
        curve.x.push_back(run[x][i]);
        curve.y.push_back(run[y][i].is_number() ? run[y][i].get<double>() : std::numeric_limits<double>::quiet_NaN());
      }
      found.push_back(std::move(curve));
    }
    ++colour;
  }
  return found;
}

std::string plot(std::string_view title, std::string_view says, const std::string& svg) {
  return fmt::format("<h2>{}</h2>\n<p class=\"soft\">{}</p>\n{}", title, says, svg);
}

}  // namespace

std::string error_text(const Json& system) {
  const double mean = system["mean"], deviation = system["deviation"];
  return system["test_error"].size() > 1 ? fmt::format("{:.2f} ± {:.2f}", 100 * mean, 100 * deviation)
                                         : fmt::format("{:.2f}", 100 * mean);
}

std::string study_page(const Json& study) {
  const std::string title = fmt::format("{} on {}: which number system will do?", study["net"].get<std::string>(),
                                        study["data"].get<std::string>());
  std::string out = fmt::format(fmt::runtime(head), fmt::arg("title", escaped(title)), fmt::arg("colours", colours()));
  out += fmt::format(
      "<h1>{}</h1>\n<p class=\"soft\">{} epochs, {} seed{} each, {}. {} is what the others are held against: "
      "<em>fine</em> means "
      "no further from it than seeds are from each other, <em>fails</em> at least twice its error or no learning, "
      "<em>risky</em> between the two or not to be told from so few seeds.</p>\n",
      escaped(title), study["epochs"].get<std::int64_t>(), study["seeds"].size(), study["seeds"].size() == 1 ? "" : "s",
      escaped(study["hardware"].get<std::string>()), escaped(study["reference"].get<std::string>()));
  if (study["synthetic"].get<bool>())
    out += "<p><strong>The data is synthetic: drawn, not written by people.</strong></p>\n";
  out += verdicts(study) + "<h2>In numbers</h2>\n" + table(study);

  std::vector<DotRow> errors;
  std::vector<BarRow> memory;
  const std::vector<std::string> parts = {"weights", "masters", "gradients", "optimizer", "activations", "workspace"};
  for (const Json& system : study["systems"]) {
    DotRow row{system["precision"], errors.size() % 10, {}};
    for (const Json& x : system["test_error"]) row.values.push_back(100 * x.get<double>());
    errors.push_back(std::move(row));
    BarRow bars{system["precision"], {}};
    for (const std::string& part : parts) bars.parts.push_back(system["memory"][part].get<double>() / 1e6);
    memory.push_back(std::move(bars));
  }
  out += plot(
      "Test error",
      "A dot is one seed, the bar their mean. Rows whose dots mix with the reference's are as good; a row far to the "
      "right has lost accuracy or has not learned at all.",
      dot_plot("test error, %", errors));
  out +=
      plot("Training loss",
           "Means over stretches of steps, a line a seed. Lines that lie on each other are good; one that stays above, "
           "rises or ends early is not.",
           line_plot("step", "training loss", curves(study, "step", "loss"), true));
  std::vector<Curve> scales = curves(study, "step", "scale");
  std::erase_if(scales, [](const Curve& curve) {
    return std::all_of(curve.y.begin(), curve.y.end(), [](double scale) { return scale == 1; });
  });
  if (!scales.empty())
    out += plot(
        "Loss scale",
        "What gradients were multiplied with to stay within their format. Drops are steps that overflowed and were "
        "skipped: a few at the beginning are as it should be, a scale that keeps falling is not.",
        line_plot("step", "loss scale", scales, true));
  out += plot("Memory",
              "Bytes that a training step holds, by what they are for. Shorter is better; masters are what f32 copies "
              "of narrow "
              "weights cost.",
              bar_plot("MB", parts, memory));
  return out + fmt::format("<p class=\"soft\">halftone {}; all figures: study.json, runs.csv</p>\n</body></html>\n",
                           study["version"].get<std::string>());
}

}  // namespace halftone::cli
