#include "cli/trace.hpp"

#include <fmt/format.h>

#include <cmath>
#include <iterator>

#include "halftone/io/atomic_file.hpp"

namespace halftone::cli {
namespace {

std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string result = "\"";
  for (const char c : text) result += c == '"' ? std::string("\"\"") : std::string(1, c);
  return result + "\"";
}

/// Shortest digits that give the number back; NaN without the sign that it may have.
std::string number(float x) { return std::isnan(x) ? "nan" : fmt::format("{}", x); }

}  // namespace

Trace::Trace(std::filesystem::path file)
    : file_(std::move(file)), text_("step,loss,scale,skipped,reason,gradient_norm,learning_rate\n") {}

void Trace::add(const StepReport& step) {
  if (file_.empty() || !step.complete) return;
  fmt::format_to(std::back_inserter(text_), "{},{},{},{},{},{},{}\n", step.attempt, number(step.step_loss),
                 double{step.scale}, step.skipped ? 1 : 0, quoted(step.reason), number(step.gradient_norm),
                 number(step.learning_rate));
}

void Trace::write() const {
  if (!file_.empty()) write_file(file_, text_);
}

}  // namespace halftone::cli
