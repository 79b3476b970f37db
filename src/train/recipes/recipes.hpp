#pragma once
#include "halftone/train/recipe.hpp"

namespace halftone::detail {

Recipe lenet5_recipe();
Recipe resnet20_recipe();
Recipe resnet18_recipe();

}  // namespace halftone::detail
