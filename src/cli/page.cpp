#include "cli/page.hpp"

#include <fmt/format.h>

#include <algorithm>

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
.advice {{ color: var(--soft); }} pre {{ background: var(--card); border-radius: 6px; padding: .6rem .8rem; white-space: pre-wrap; }}
ul.verdicts li {{ background: var(--card); border-radius: 6px; padding: .5rem .8rem; margin: .4rem 0; }}
.fine, .reference {{ color: var(--good); }} .risky {{ color: var(--fair); }} .fails {{ color: var(--bad); }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }}
th {{ white-space: normal; vertical-align: bottom; }} th:first-child, td:first-child {{ text-align: left; }}
svg {{ width: 100%; height: auto; }} svg text {{ fill: var(--ink); font: 12px system-ui, sans-serif; }} svg text.small {{ font-size: 10px; fill: var(--soft); }}
.grid {{ stroke: var(--line); }} .line {{ fill: none; stroke-width: 1.6; opacity: .85; }} .mark {{ stroke: var(--ink); stroke-width: 2; }}
.bar {{ fill: var(--soft); }} .span {{ opacity: .28; }}
{colours}code {{ background: var(--card); padding: .1rem .3rem; border-radius: 4px; }}
</style></head><body>
)";

std::string colours() {
  std::string out;
  for (int i = 0; i < 10; ++i)
    out += fmt::format(".line.s{0} {{ stroke: var(--c{0}); }} .fill.s{0} {{ fill: var(--c{0}); }}\n", i);
  return out;
}

}  // namespace

std::string page(std::string_view title, std::string_view content, std::string_view foot) {
  return fmt::format(fmt::runtime(head), fmt::arg("title", escaped(title)), fmt::arg("colours", colours())) +
         fmt::format("<h1>{}</h1>\n{}<p class=\"soft\">{}</p>\n</body></html>\n", escaped(title), content,
                     escaped(foot));
}

std::string section(std::string_view title, std::string_view says, const std::string& svg) {
  return fmt::format("<h2>{}</h2>\n<p class=\"soft\">{}</p>\n{}", title, says, svg);
}

std::string verdict_list(const Json& systems) {
  std::string out = "<ul class=\"verdicts\">\n";
  for (const Json& system : systems) {
    const std::string verdict = system["verdict"], scale = system.value("loss_scale", ""),
                      advice = system.value("advice", "");
    out += fmt::format("<li><strong>{}{}: <span class=\"{}\">{}</span></strong> &ndash; {}{}</li>\n",
                       escaped(system["precision"].get<std::string>()),
                       scale.empty() || scale == "none" ? "" : ", loss scale " + escaped(scale), verdict, verdict,
                       escaped(system["reason"].get<std::string>()),
                       advice.empty() ? "" : fmt::format("<br><span class=\"advice\">{}</span>", escaped(advice)));
  }
  return out + "</ul>\n";
}

std::string synthetic_note(const Json& report) {
  return report["synthetic"].get<bool>()
             ? "<p><strong>The data is synthetic: drawn, not written by people.</strong></p>\n"
             : "";
}

HistogramRow histogram_row(const std::string& name, const Json& seen) {
  HistogramRow row{name, fmt::format("{:.0f} % zeros", 100 * seen["zeros"].get<double>()), 0, {}};
  const Json& exponents = seen["exponents"];
  if (exponents.empty()) return row;
  int low = 1000, high = -1000;
  double all = 0;
  for (const auto& [exponent, count] : exponents.items()) {
    low = std::min(low, std::stoi(exponent)), high = std::max(high, std::stoi(exponent));
    all += count.get<double>();
  }
  row.first = low;
  row.shares.assign(static_cast<std::size_t>(high - low + 1), 0);
  for (const auto& [exponent, count] : exponents.items())
    row.shares[static_cast<std::size_t>(std::stoi(exponent) - low)] = count.get<double>() / all;
  while (row.shares.front() < 1e-6) row.shares.erase(row.shares.begin()), ++row.first;
  return row;
}

}  // namespace halftone::cli
