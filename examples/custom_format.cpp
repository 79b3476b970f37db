// Trains one net with activations in formats of our own: custom_format [FOLDER WITH MNIST]
#include <cmath>
#include <halftone/halftone.hpp>
#include <iostream>

namespace ht = halftone;

// How a layer's results are to be stored.
using Store = std::function<ht::Value(ht::Value)>;

ht::Value net(ht::Value images, const Store& store) {
  ht::Value x = store(ht::max_pool2d(ht::relu(ht::conv2d(images, 8, 5)), 2));
  x = store(ht::max_pool2d(ht::relu(ht::conv2d(x, 16, 5)), 2));
  return ht::dense(x, 10, {.name = "head"});
}

// Any function of one number is a format: here the nearest power of the square root of two.
float logarithmic(float x) {
  const float nearest = std::exp2(std::round(2 * std::log2(std::abs(x))) / 2);
  return x == 0 ? 0 : std::copysign(nearest, x);
}

double train(const char* name, const ht::Loader& train, const ht::Loader& test, const Store& store,
             const ht::Precision& precision) {
  ht::Graph graph;
  const auto [images, labels] = ht::inputs(graph, train);
  const ht::Value logits = net(images, store);
  ht::Trainer trainer(ht::cross_entropy(logits, labels), {.device = ht::cpu_device(),
                                                          .precision = precision,
                                                          .schedule = ht::Schedule::one_cycle(0.05f, train.batches())});
  trainer.epoch(train);
  const double accuracy = trainer.evaluate(test, ht::accuracy(logits, labels));
  std::cout << name << "  accuracy " << accuracy << std::endl;
  return accuracy;
}

int main(int argc, char** argv) try {
  const auto load = [&](ht::Split split, const ht::LoaderOptions& options) {
    return argc > 1 ? ht::mnist(argv[1], split, options) : ht::digits(split, options);
  };
  if (argc < 2) std::cout << "No folder with MNIST was given: these are synthetic digits.\n";
  const ht::Loader data = load(ht::Split::train, {.batch = 100, .limit = 10000});
  const ht::Loader test = load(ht::Split::test, {.batch = 500});

  const Store as_is = [](ht::Value x) { return x; };
  train("f32                        ", data, test, as_is, ht::Precision::f32());
  train(
      "powers of sqrt(2)          ", data, test, [](ht::Value x) { return ht::quantize(x, logarithmic); },
      ht::Precision::f32());
  const ht::Grid fixed = ht::Grid::fixed(4, 4, ht::Rounding::stochastic);
  train(
      "8-bit fixed, stochastic    ", data, test, [&](ht::Value x) { return ht::quantize(x, fixed); },
      ht::Precision::f32());
  train("bf16, but the head in f32  ", data, test, as_is,
        ht::Precision::bf16().except("head", ht::RoleStorage::all(ht::DType::f32)));
} catch (const ht::Error& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
