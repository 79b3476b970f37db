#include "halftone/nn/models.hpp"
#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/dense.hpp"
#include "halftone/ops/pointwise.hpp"
#include "halftone/ops/pool2d.hpp"

namespace halftone {

Value lenet5(Value images, int classes) {
  Value x = max_pool2d(relu(conv2d(images, 6, 5)), 2);
  x = max_pool2d(relu(conv2d(x, 16, 5, {.padding = 0})), 2);
  x = relu(dense(x, 120));
  x = relu(dense(x, 84));
  return dense(x, classes);
}

Value gupta(Value images, int classes) {
  Value x = max_pool2d(relu(conv2d(images, 8, 5, {.padding = 0})), 2);
  x = max_pool2d(relu(conv2d(x, 16, 5, {.padding = 0})), 2);
  return dense(relu(dense(x, 128)), classes);
}

Value mlp(Value images, int classes) {
  Value x = images;
  for (int layer = 0; layer < 3; ++layer) x = relu(dense(x, 512));
  return dense(x, classes);
}

}  // namespace halftone
