// What stands behind options of the program: number systems, loss scales, schedules, names. What is taken is used.
#include <cmath>

#include "cli/options.hpp"
#include "halftone/graph/precision.hpp"
#include "halftone/nn/models.hpp"
#include "halftone/numeric/schedule.hpp"
#include "halftone/train/recipe.hpp"
#include "tests/fuzz/input.hpp"

using namespace halftone;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  FuzzedDataProvider input(bytes, size);
  const int what = input.ConsumeIntegralInRange(0, 4);
  Recipe recipe;
  recipe.epochs = input.ConsumeIntegralInRange<std::int64_t>(1, 1000000);
  recipe.warmup = input.ConsumeBool() ? input.ConsumeIntegralInRange(0, 1000000) : 0;
  const double steps = input.ConsumeIntegralInRange(1, 1000000);
  const std::string text = input.ConsumeRemainingBytesAsString();
  fuzz::answered([&] {
    if (what == 0) {
      const Precision precision = precision_by_name(text);
      fuzz::expect(!precision.name.empty() && !precision.loss_scale.fault());
    } else if (what == 1) {
      fuzz::expect(!cli::parse_loss_scale(text).fault());
    } else if (what == 2) {
      recipe.schedule = text;
      const Schedule schedule = schedule_of(recipe, steps);
      if (schedule.fault()) return;
      for (std::int64_t step = 0; step <= schedule.total + 1; step += schedule.total / 16 + 1) {
        const float rate = schedule.at(step);
        fuzz::expect(std::isfinite(rate) && rate >= 0);
      }
    } else if (what == 3) {
      recipe.optimizer = text;
      update_rule_of(recipe);
    } else {
      fuzz::answered([&] { net_by_name(text); });
      recipe_by_name(text);
    }
  });
  return 0;
}
