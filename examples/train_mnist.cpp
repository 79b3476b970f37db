// Trains LeNet-5 in f16: train_mnist [FOLDER WITH MNIST] [EPOCHS]
#include <cstdlib>
#include <halftone/halftone.hpp>
#include <iostream>

namespace ht = halftone;

int main(int argc, char** argv) try {
  const int epochs = argc > 2 ? std::atoi(argv[2]) : 3;
  const auto load = [&](ht::Split split, const ht::LoaderOptions& options) {
    return argc > 1 ? ht::mnist(argv[1], split, options) : ht::digits(split, options);
  };
  if (argc < 2) std::cout << "No folder with MNIST was given: these are synthetic digits.\n";
  const ht::Loader train = load(ht::Split::train, {.batch = 128});
  const ht::Loader test = load(ht::Split::test, {.batch = 500});

  ht::Graph graph;
  const auto [images, labels] = ht::inputs(graph, train);
  const ht::Value logits = ht::lenet5(images);
  const ht::Value accuracy = ht::accuracy(logits, labels);
  ht::Trainer trainer(ht::cross_entropy(logits, labels),
                      {.precision = ht::Precision::f16(),
                       .optimizer = ht::Sgd{.momentum = 0.9f, .weight_decay = 5e-4f},
                       .schedule = ht::Schedule::one_cycle(0.1f, epochs * train.batches())});
  for (int epoch = 0; epoch < epochs; ++epoch)
    std::cout << trainer.epoch(train) << "  accuracy " << trainer.evaluate(test, accuracy) << std::endl;
  trainer.save("mnist_checkpoint");
} catch (const ht::Error& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
