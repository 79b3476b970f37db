#include "halftone/train/whiten.hpp"

#include <fmt/format.h>

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>

#include "halftone/ops/initializers.hpp"

namespace halftone {
namespace {

/// Image `i` of the data, normalised per channel.
std::vector<float> image_of(const Dataset& data, std::int64_t i) {
  const auto channels = static_cast<std::size_t>(data.image.c);
  std::vector<float> image(static_cast<std::size_t>(data.image.elements()));
  for (std::size_t k = 0; k < image.size(); ++k) {
    const float x = data.dtype == DType::u8 ? static_cast<float>(std::to_integer<int>(data.at(i)[k])) / 255
                                            : reinterpret_cast<const float*>(data.at(i))[k];
    image[k] = (x - data.mean[k % channels]) / data.stddev[k % channels];
  }
  return image;
}

/// The mean of p p' over all patches p, in the order (r, s, c).
Eigen::MatrixXd second_moments(const Dataset& data, std::int64_t images, const Shape& patch) {
  const std::int64_t size = patch.features(), h = data.image.h, w = data.image.w, run = patch.w * patch.c;
  Eigen::MatrixXf patches(size, (h - patch.h + 1) * (w - patch.w + 1));
  Eigen::MatrixXd sum = Eigen::MatrixXd::Zero(size, size);
  for (std::int64_t i = 0; i < images; ++i) {
    const std::vector<float> image = image_of(data, i);
    std::int64_t column = 0;
    for (std::int64_t y = 0; y + patch.h <= h; ++y)
      for (std::int64_t x = 0; x + patch.w <= w; ++x, ++column)
        for (std::int64_t r = 0; r < patch.h; ++r)
          std::copy_n(image.data() + ((y + r) * w + x) * patch.c, run, patches.col(column).data() + r * run);
    sum += (patches * patches.transpose()).cast<double>();
  }
  return sum / static_cast<double>(images * patches.cols());
}

}  // namespace

void whiten(Graph graph, const std::string& weight, const Dataset& data, std::int64_t images, float epsilon) {
  const auto found = std::find_if(graph->parameters.begin(), graph->parameters.end(),
                                  [&](const ParameterInfo& p) { return p.name == weight; });
  if (found == graph->parameters.end()) fail(fmt::format("whiten: there is no parameter {}", weight));
  const Shape shape = graph.info(found->value).spec.shape;
  const std::int64_t size = shape.features();
  if (shape.n != 2 * size || shape.c != data.image.c || shape.h > data.image.h || shape.w > data.image.w)
    fail(fmt::format("whiten: {} is {}, not twice as many filters as numbers in a patch of {}", weight,
                     to_string(shape), data.name));
  images = std::min(images, data.size());
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(second_moments(data, images, shape));
  std::vector<float> filters(static_cast<std::size_t>(2 * size * size));
  for (std::int64_t k = 0; k < size; ++k) {
    const std::int64_t from = size - 1 - k;  // eigenvalues rise
    const double factor = 1 / std::sqrt(solver.eigenvalues()[from] + double{epsilon});
    for (std::int64_t i = 0; i < size; ++i) {
      const auto x = static_cast<float>(solver.eigenvectors()(i, from) * factor);
      filters[static_cast<std::size_t>(k * size + i)] = x;
      filters[static_cast<std::size_t>((size + k) * size + i)] = -x;
    }
  }
  found->initializer = numbers(std::move(filters));
  found->trainable = false;
}

}  // namespace halftone
