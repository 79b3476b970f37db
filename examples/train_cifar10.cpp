// Trains a residual net in f16: train_cifar10 [FOLDER WITH CIFAR-10] [EPOCHS]
#include <cstdlib>
#include <halftone/halftone.hpp>
#include <iostream>

namespace ht = halftone;

// A layer is a function; calling it adds nodes to the graph.
ht::Value block(ht::Value x, int channels, int stride) {
  ht::Value y = ht::relu(ht::batch_norm(ht::conv2d(x, channels, 3, {.stride = stride, .bias = false})));
  y = ht::batch_norm(ht::conv2d(y, channels, 3, {.bias = false}));
  if (stride != 1 || x.channels() != channels)
    x = ht::batch_norm(ht::conv2d(x, channels, 1, {.stride = stride, .bias = false}));
  return ht::relu(y + x);
}

int main(int argc, char** argv) try {
  const int epochs = argc > 2 ? std::atoi(argv[2]) : 10;
  const auto load = [&](ht::Split split, const ht::LoaderOptions& options) {
    return argc > 1 ? ht::cifar10(argv[1], split, options) : ht::digits(split, options);
  };
  if (argc < 2) std::cout << "No folder with CIFAR-10 was given: these are synthetic digits.\n";
  const ht::Loader train = load(ht::Split::train, {.batch = 128, .crop = 4, .flip = argc > 1});
  const ht::Loader test = load(ht::Split::test, {.batch = 500});

  ht::Graph graph;
  const auto [images, labels] = ht::inputs(graph, train);
  ht::Value x = ht::relu(ht::batch_norm(ht::conv2d(images, 16, 3, {.bias = false})));
  for (int channels : {16, 32, 64}) x = block(x, channels, channels == 16 ? 1 : 2);
  const ht::Value logits = ht::dense(ht::global_avg_pool(x), 10);
  const ht::Value accuracy = ht::accuracy(logits, labels);

  ht::Trainer trainer(ht::cross_entropy(logits, labels),
                      {.precision = ht::Precision::f16(),
                       .optimizer = ht::Sgd{.momentum = 0.9f, .weight_decay = 5e-4f, .nesterov = true},
                       .schedule = ht::Schedule::one_cycle(0.2f, epochs * train.batches())});
  for (int epoch = 0; epoch < epochs; ++epoch)
    std::cout << trainer.epoch(train) << "  accuracy " << trainer.evaluate(test, accuracy) << std::endl;
  trainer.save("cifar10_checkpoint");
} catch (const ht::Error& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
