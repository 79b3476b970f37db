#include "cli/plot.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace halftone::cli {
namespace {

constexpr double width = 720, right = 20, row_height = 26, axis_height = 44;

/// What the longest of the names beside a plot takes.
template <class Named>
double room_for(const std::vector<Named>& all, double least = 170) {
  std::size_t longest = 0;
  for (const Named& named : all) longest = std::max(longest, named.name.size());
  return std::clamp(6.8 * static_cast<double>(longest) + 20, least, 400.0);
}

/// An axis from `low` to `high` in data, from `begin` to `end` on the page.
struct Axis {
  double low, high, begin, end;
  bool logarithmic = false;

  double operator()(double x) const {
    const double share = logarithmic ? std::log(x / low) / std::log(high / low) : (x - low) / (high - low);
    return begin + share * (end - begin);
  }

  std::vector<double> ticks() const {
    std::vector<double> found;
    if (logarithmic) {
      const bool few = high / low < 1000;
      for (double power = std::pow(10, std::floor(std::log10(low))); power <= high; power *= 10)
        for (const double x : {power, 2 * power, 5 * power})
          if (x >= low * 0.9999 && x <= high * 1.0001 && (few || x == power)) found.push_back(x);
      return found;
    }
    const double raw = (high - low) / 5, power = std::pow(10, std::floor(std::log10(raw)));
    const double step = power * (raw / power < 1.5 ? 1 : raw / power < 3.5 ? 2 : raw / power < 7.5 ? 5 : 10);
    for (double x = std::ceil(low / step - 1e-9) * step; x <= high + 1e-9 * step; x += step)
      found.push_back(std::abs(x) < 1e-9 * step ? 0 : x);
    return found;
  }
};

std::string text(double x, double y, std::string_view anchor, std::string_view content, std::string_view more = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y, anchor, more,
                     escaped(content));
}

std::string svg(double height, std::string_view label, const std::string& content) {
  return fmt::format("<svg viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{}\">\n{}</svg>\n", width, height,
                     escaped(label), content);
}

std::string grid_below(const Axis& axis, double top, double bottom, std::string_view label) {
  std::string out;
  for (double x : axis.ticks()) {
    out += fmt::format("<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\"/>\n", axis(x),
                       top, bottom);
    out += text(axis(x), bottom + 16, "middle", fmt::format("{:g}", x));
  }
  return out + text((axis.begin + axis.end) / 2, bottom + 34, "middle", label);
}

/// From 0 to a little more than the largest of `values`.
Axis axis_from_zero(const std::vector<double>& values, double left) {
  double high = 0;
  for (double x : values)
    if (std::isfinite(x)) high = std::max(high, x);
  return {0, high > 0 ? 1.05 * high : 1, left, width - right};
}

}  // namespace

std::string escaped(std::string_view text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string line_plot(std::string_view x_label, std::string_view y_label, const std::vector<Curve>& curves,
                      bool logarithmic) {
  constexpr double top = 12, bottom = 300, infinity = std::numeric_limits<double>::infinity();
  const auto shown = [&](double y) { return std::isfinite(y) && (!logarithmic || y > 0); };
  Axis x{infinity, -infinity, 60, width - room_for(curves, 120) - 20}, y{infinity, -infinity, bottom, top, logarithmic};
  for (const Curve& curve : curves) {
    for (double v : curve.x) x.low = std::min(x.low, v), x.high = std::max(x.high, v);
    for (double v : curve.y)
      if (shown(v)) y.low = std::min(y.low, v), y.high = std::max(y.high, v);
  }
  if (!(x.low < x.high)) x.low = 0, x.high = std::max(1.0, std::isfinite(x.high) ? x.high : 1);
  if (y.low > y.high) y.low = 0.1, y.high = 1;
  if (!logarithmic) y.low = std::min(0.0, y.low);
  if (!(y.low < y.high)) y.high = y.low + std::max(1.0, std::abs(y.low));

  std::string out = grid_below(x, top, bottom, x_label);
  for (double tick : y.ticks()) {
    out += fmt::format("<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>\n", x.begin,
                       x.end, y(tick));
    out += text(x.begin - 6, y(tick) + 4, "end", fmt::format("{:g}", tick));
  }
  out += text(14, (top + bottom) / 2, "middle", y_label,
              fmt::format(" transform=\"rotate(-90 14 {:.1f})\"", (top + bottom) / 2));
  double label_at = top + 8;
  std::size_t labelled = std::numeric_limits<std::size_t>::max();
  for (const Curve& curve : curves) {
    std::string path;
    bool pen = false;
    for (std::size_t i = 0; i < curve.x.size(); ++i) {
      if (!shown(curve.y[i])) {
        pen = false;
        continue;
      }
      path += fmt::format("{}{:.1f} {:.1f}", pen ? "L" : "M", x(curve.x[i]), y(curve.y[i]));
      pen = true;
    }
    out += fmt::format("<path class=\"line s{}\" d=\"{}\"/>\n", curve.colour, path);
    if (curve.colour == labelled) continue;  // further seeds of the same
    labelled = curve.colour;
    out += fmt::format("<rect class=\"fill s{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"10\" height=\"10\"/>\n",
                       curve.colour, x.end + 12, label_at - 9);
    out += text(x.end + 27, label_at, "start", curve.name);
    label_at += 18;
  }
  return svg(bottom + axis_height, y_label, out);
}

std::string dot_plot(std::string_view x_label, const std::vector<DotRow>& rows) {
  constexpr double top = 8;
  const double left = room_for(rows), bottom = top + row_height * static_cast<double>(rows.size());
  std::vector<double> all;
  for (const DotRow& row : rows) all.insert(all.end(), row.values.begin(), row.values.end());
  const Axis x = axis_from_zero(all, left);
  std::string out = grid_below(x, top, bottom, x_label);
  double y = top + row_height / 2;
  for (const DotRow& row : rows) {
    out += text(left - 10, y + 4, "end", row.name);
    double mean = 0;
    for (double v : row.values) {
      mean += v / static_cast<double>(row.values.size());
      out += fmt::format("<circle class=\"fill s{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4.5\"/>\n", row.colour, x(v), y);
    }
    if (!row.values.empty())
      out += fmt::format("<line class=\"mark\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\"/>\n",
                         x(mean), y - 10, y + 10);
    y += row_height;
  }
  return svg(bottom + axis_height, x_label, out);
}

std::string bar_plot(std::string_view x_label, const std::vector<std::string>& parts, const std::vector<BarRow>& rows) {
  constexpr double top = 28;
  const double left = room_for(rows), bottom = top + row_height * static_cast<double>(rows.size());
  std::vector<double> all;
  for (const BarRow& row : rows) {
    double sum = 0;
    for (double v : row.parts) sum += v;
    all.push_back(sum);
  }
  const Axis x = axis_from_zero(all, left);
  std::string out = grid_below(x, top, bottom, x_label);
  double legend = left;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    out += fmt::format("<rect class=\"fill s{}\" x=\"{:.1f}\" y=\"6\" width=\"10\" height=\"10\"/>\n", i, legend);
    out += text(legend + 14, 15, "start", parts[i]);
    legend += 32 + 7 * static_cast<double>(parts[i].size());
  }
  double y = top + 4;
  for (const BarRow& row : rows) {
    out += text(left - 10, y + 14, "end", row.name);
    double sum = 0;
    for (std::size_t i = 0; i < row.parts.size(); ++i) {
      out += fmt::format("<rect class=\"fill s{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.0f}\"/>\n", i,
                         x(sum), y, x(sum + row.parts[i]) - x(sum), row_height - 8);
      sum += row.parts[i];
    }
    y += row_height;
  }
  return svg(bottom + axis_height, x_label, out);
}

std::string histogram_plot(std::string_view x_label, const std::vector<HistogramRow>& rows,
                           const std::vector<FormatSpan>& spans) {
  constexpr double span_height = 18, bar_row = 30, note_width = 92;
  const double left = std::max(room_for(rows), room_for(spans));
  const double top = span_height * static_cast<double>(spans.size()) + 8;
  const double bottom = top + bar_row * static_cast<double>(rows.size());
  int low = 0, high = 0;
  for (const HistogramRow& row : rows) {
    low = std::min(low, row.first);
    high = std::max(high, row.first + static_cast<int>(row.shares.size()));
  }
  const Axis x{static_cast<double>(low - 1), static_cast<double>(high + 1), left, width - note_width};
  std::string out = grid_below(x, top, bottom, x_label);
  double y = 4;
  std::size_t colour = 0;
  for (const FormatSpan& span : spans) {
    const double from = std::clamp<double>(span.low, x.low, x.high),
                 to = std::clamp<double>(span.high + 1, x.low, x.high);
    out += fmt::format("<rect class=\"fill span s{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.0f}\"/>\n",
                       colour, x(from), y, x(to) - x(from), span_height - 4);
    for (const double end : {static_cast<double>(span.low), span.high + 1.0})
      if (end > x.low && end < x.high)
        out += fmt::format(
            "<line class=\"line s{0}\" stroke-dasharray=\"3 3\" x1=\"{1:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" "
            "y2=\"{3:.1f}\"/>\n",
            colour, x(end), y, bottom);
    out += text(left - 10, y + 11, "end", span.name);
    y += span_height;
    ++colour;
  }
  y = top;
  for (const HistogramRow& row : rows) {
    out += text(left - 10, y + bar_row - 8, "end", row.name);
    out += text(width - note_width + 6, y + bar_row - 8, "start", row.note, " class=\"small\"");
    double most = 1e-30;
    for (double share : row.shares) most = std::max(most, share);
    const double one = x(1) - x(0);
    for (std::size_t i = 0; i < row.shares.size(); ++i) {
      if (row.shares[i] <= 0) continue;
      const double height = std::max(1.0, (bar_row - 5) * row.shares[i] / most);
      out += fmt::format("<rect class=\"bar\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>\n",
                         x(row.first + static_cast<double>(i)), y + bar_row - height, std::max(one - 0.5, 0.5), height);
    }
    y += bar_row;
  }
  return svg(bottom + axis_height, x_label, out);
}

}  // namespace halftone::cli
