#include "src/train/recipes/recipes.hpp"

namespace halftone::detail {

Recipe resnet20_recipe() {
  return {.name = "resnet20",
          .net = "resnet20",
          .data = "cifar10",
          .schedule = "one_cycle",
          .learning_rate = 0.2f,
          .nesterov = true,
          .epochs = 30,
          .crop = 4,
          .flip = true};
}

}  // namespace halftone::detail
