#include "src/train/recipes/recipes.hpp"

namespace halftone::detail {

Recipe resnet18_recipe() {
  return {.name = "resnet18",
          .net = "resnet18",
          .data = "cifar10",
          .schedule = "one_cycle",
          .learning_rate = 0.1f,
          .nesterov = true,
          .epochs = 30,
          .crop = 4,
          .cutout = 8,
          .flip = true};
}

}  // namespace halftone::detail
