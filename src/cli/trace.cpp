#include "cli/trace.hpp"

#include <fmt/format.h>

#include <cmath>
#include <fstream>

#include "cli/report.hpp"
#include "halftone/io/atomic_file.hpp"
#include "halftone/tensor/text.hpp"

namespace halftone::cli {
namespace {

constexpr const char* head = "step,loss,scale,skipped,reason,gradient_norm,learning_rate";

/// Shortest digits that give the number back; NaN without the sign that it may have.
std::string number(float x) { return std::isnan(x) ? "nan" : fmt::format("{}", x); }

}  // namespace

Trace::Trace(std::filesystem::path file) : file_(std::move(file)), text_(fmt::format("{}\n", head)) {}

void Trace::resume(std::int64_t steps) {
  if (std::error_code ignored; !std::filesystem::is_regular_file(file_, ignored)) return;
  std::ifstream in(file_, std::ios::binary);
  std::string row;
  if (!std::getline(in, row) || row != head) return;
  while (std::getline(in, row) && parse_number(row.substr(0, row.find(','))).value_or(HUGE_VAL) <= steps)
    text_ += row + '\n';
}

void Trace::add(const StepReport& step) {
  if (file_.empty() || !step.complete) return;
  text_ +=
      fmt::format("{},{},{},{},{},{},{}\n", step.attempt, number(step.step_loss), double{step.scale},
                  step.skipped ? 1 : 0, csv_field(step.reason), number(step.gradient_norm), number(step.learning_rate));
}

void Trace::write() const {
  if (!file_.empty()) write_file(file_, text_);
}

}  // namespace halftone::cli
