// Says what a trained net sees: classify CHECKPOINT [IMAGE.png|jpg ...]
// Without an image it takes ten drawn digits. Make a checkpoint by `halftone train --recipe lenet5 --data digits --out
// DIR`.
#include <algorithm>
#include <halftone/halftone.hpp>
#include <iostream>

namespace ht = halftone;

namespace {

void print(const std::string& what, const ht::ModelDescription& model, const float* probabilities) {
  const auto best = std::max_element(probabilities, probabilities + model.classes) - probabilities;
  const auto& names = model.class_names;
  std::cout << what << ": " << (names.empty() ? std::to_string(best) : names[static_cast<std::size_t>(best)]) << ", "
            << 100 * probabilities[best] << " %\n";
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 2) throw ht::Error("usage: classify CHECKPOINT [IMAGE.png|jpg ...]");
  const ht::ModelDescription model = ht::read_model_description(argv[1]);
  if (model.dtype != ht::DType::u8) throw ht::Error("this net's images are not made of bytes");
  ht::Predictor predict(argv[1], {.batch = 16});
  for (int i = 2; i < argc; ++i) {
    const auto pixels = ht::read_image(argv[i], model.image);
    print(argv[i], model, predict(std::as_bytes(std::span(pixels))).data());
  }
  if (argc > 2) return 0;

  const ht::Dataset digits = ht::rendered_digits(ht::Split::test, 10);
  const std::vector<float> probabilities = predict(digits.pixels);
  for (std::size_t i = 0; i < digits.labels.size(); ++i)
    print("a drawn " + std::to_string(digits.labels[i]), model,
          probabilities.data() + i * static_cast<std::size_t>(model.classes));
} catch (const ht::Error& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
