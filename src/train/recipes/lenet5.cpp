#include "src/train/recipes/recipes.hpp"

namespace halftone::detail {

Recipe lenet5_recipe() {
  return {.name = "lenet5", .net = "lenet5", .data = "mnist", .schedule = "one_cycle", .learning_rate = 0.1f};
}

}  // namespace halftone::detail
