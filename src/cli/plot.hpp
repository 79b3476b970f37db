#pragma once
#include <string>
#include <string_view>
#include <vector>

// Plots as inline SVG. Colours are the classes s0, s1, ... of the page that they stand in.
namespace halftone::cli {

/// Text that may stand in HTML.
std::string escaped(std::string_view text);

struct Curve {
  std::string name;
  std::size_t colour = 0;
  std::vector<double> x, y;  ///< numbers that are not finite break the line
};

/// Lines over one x axis; of a logarithmic y axis, numbers above 0 alone.
std::string line_plot(std::string_view x_label, std::string_view y_label, const std::vector<Curve>& curves,
                      bool logarithmic = false);

struct DotRow {
  std::string name;
  std::size_t colour = 0;
  std::vector<double> values;
};

/// A row a name, a dot a value and a line at their mean, on an axis that begins at 0.
std::string dot_plot(std::string_view x_label, const std::vector<DotRow>& rows);

struct BarRow {
  std::string name;
  std::vector<double> parts;  ///< coloured in their order
};

/// A row a name, its parts end to end.
std::string bar_plot(std::string_view x_label, const std::vector<std::string>& parts, const std::vector<BarRow>& rows);

/// How often each power of two occurs: `shares` from 2^first on.
struct HistogramRow {
  std::string name, note;
  int first = 0;
  std::vector<double> shares;
};

/// What a format can hold: from 2^low to below 2^(high + 1).
struct FormatSpan {
  std::string name;
  int low, high;
};

/// A row a name, bars on one axis of powers of two, each row by its own largest share; spans above, drawn through all
/// rows as lines at their ends where these are in sight.
std::string histogram_plot(std::string_view x_label, const std::vector<HistogramRow>& rows,
                           const std::vector<FormatSpan>& spans);

}  // namespace halftone::cli
