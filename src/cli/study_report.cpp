#include "cli/study_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "cli/page.hpp"
#include "cli/plot.hpp"
#include "halftone/graph/precision.hpp"
#include "halftone/inspect/histogram.hpp"

namespace halftone::cli {
namespace {

std::string megabytes(const Json& bytes) { return fmt::format("{:.2f}", bytes.get<double>() / 1e6); }

std::string share(const Json& numerics, const char* key) {
  return numerics.contains(key) ? fmt::format("{:.2f} %", 100 * numerics[key].get<double>()) : "";
}

/// The mean over the seeds whose last loss was finite.
std::string loss_text(const Json& losses) {
  double sum = 0;
  int finite = 0;
  for (const Json& x : losses)
    if (x.is_number()) sum += x.get<double>(), ++finite;
  if (finite == 0) return "not finite";
  const std::string mean = fmt::format("{:.4f}", sum / finite);
  return finite == static_cast<int>(losses.size()) ? mean : fmt::format("{} ({} of {})", mean, finite, losses.size());
}

std::string table(const Json& study) {
  std::string out =
      "<div class=\"wide\"><table>\n<tr><th>number system</th><th>test error, %</th><th>training loss</th>"
      "<th>activations, MB</th><th>weights and masters, MB</th><th>images/s</th><th>skipped steps</th>"
      "<th>gradients that are 0</th><th>updates that change nothing</th></tr>\n";
  for (const Json& system : study["systems"]) {
    const Json &memory = system["memory"], &numerics = system["numerics"];
    out += fmt::format(
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.0f}</td><td>{}</td><td>{}</td><td>{}</"
        "td>"
        "</tr>\n",
        escaped(system["precision"].get<std::string>()), error_text(system), loss_text(system["train_loss"]),
        megabytes(memory["activations"]),
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

/// The spans of all storages that the study's number systems have.
std::vector<FormatSpan> spans_of(const Json& study) {
  std::vector<FormatSpan> spans;
  for (const Json& system : study["systems"]) {
    const RoleStorage roles = precision_by_name(system["precision"].get<std::string>()).storage;
    for (const auto& [role, member] : role_names) {
      const Storage& storage = roles.*member;
      const bool own_scale = storage.scaling != Scaling::none && storage.scaling != Scaling::constant;
      const std::string name = storage.scaling == Scaling::constant
                                   ? fmt::format("fixed:{}.{}", storage.width + storage.exponent, -storage.exponent)
                                   : name_of(storage.code) + std::string(own_scale ? ", moved by a scale" : "");
      const StorageRange range = range_of(storage, {});
      const auto known = [&](const FormatSpan& span) { return span.name == name; };
      if (storage.code != DType::f32 && std::none_of(spans.begin(), spans.end(), known))
        spans.push_back({name, range.lowest, range.highest});
    }
  }
  return spans;
}

std::string exponents(const Json& study) {
  static constexpr std::pair<const char*, const char*> names[] = {{"activations", "activations"},
                                                                  {"activation_gradients", "activation gradients"},
                                                                  {"weight_gradients", "weight gradients"},
                                                                  {"weights", "weights"},
                                                                  {"update", "updates of weights"}};
  std::vector<HistogramRow> rows;
  for (const auto& [role, name] : names)
    if (study["exponents"].contains(role)) rows.push_back(histogram_row(name, study["exponents"][role]));
  return section(
      "Where the numbers lie",
      "How often each power of two occurs in the first steps in f32, before anything is rounded, and what the "
      "formats hold. What lies left of a span becomes 0, what lies right of it is cut off or infinite: bad where it "
      "is much of a row. A loss scale moves both rows of gradients to the right.",
      histogram_plot("magnitude, as a power of two", rows, spans_of(study)));
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
  std::string out = fmt::format(
      "<p class=\"soft\">{} epochs, {} seed{} each, {}. {} is what the others are held against: "
      "<em>fine</em> means "
      "no further from it than its own seeds are from each other, <em>fails</em> at least twice its error or no "
      "learning, "
      "<em>risky</em> between the two or not to be told from so few seeds.</p>\n",
      study["epochs"].get<std::int64_t>(), study["seeds"].size(), study["seeds"].size() == 1 ? "" : "s",
      escaped(study["hardware"].get<std::string>()), escaped(study["reference"].get<std::string>()));
  out += synthetic_note(study) + verdict_list(study["systems"]) + "<h2>In numbers</h2>\n" + table(study);

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
  out += section(
      "Test error",
      "A dot is one seed, the bar their mean. Rows whose dots mix with the reference's are as good; a row far to the "
      "right has lost accuracy or has not learned at all.",
      dot_plot("test error, %", errors));
  out += section(
      "Training loss",
      "Means over stretches of steps, a line a seed. Lines that lie on each other are good; one that stays above, "
      "rises or ends early is not.",
      line_plot("step", "training loss", curves(study, "step", "loss"), true));
  out += exponents(study);
  std::vector<Curve> scales = curves(study, "step", "scale");
  std::erase_if(scales, [](const Curve& curve) {
    return std::all_of(curve.y.begin(), curve.y.end(), [](double scale) { return scale == 1; });
  });
  if (!scales.empty())
    out += section(
        "Loss scale",
        "What gradients were multiplied with to stay within their format. Drops are steps that overflowed and were "
        "skipped: a few at the beginning are as it should be, a scale that keeps falling is not.",
        line_plot("step", "loss scale", scales, true));
  out +=
      section("Memory",
              "Bytes that a training step holds, by what they are for. Shorter is better; masters are what f32 copies "
              "of narrow "
              "weights cost.",
              bar_plot("MB", parts, memory));
  return page(title, out,
              fmt::format("halftone {}; all figures: study.json, runs.csv", study["version"].get<std::string>()));
}

}  // namespace halftone::cli
