// Trains one net in a number system of our own, each number in its own bits: own_number_system [FOLDER WITH MNIST]
#include <halftone/halftone.hpp>
#include <iostream>

namespace ht = halftone;

// One `Precision`: how each role is stored. A code that the library lacks is one struct in numeric/formats.hpp
// (docs/adding.md); every storage here may take it.
ht::Precision own_system() {
  const ht::Storage word = ht::Storage::fixed(2, 14, ht::Rounding::stochastic);  // 16 bits, updated without masters
  ht::RoleStorage storage;
  storage.activations = ht::Storage::blocks(ht::DType::e3m2, 16);           // 6 bits and a power of two for 16 numbers
  storage.activation_gradients = ht::Storage::blocks(ht::DType::e5m2, 64);  // 8 bits and one for 64
  storage.weights = storage.update = word;
  storage.weight_gradients = storage.optimizer_slots = ht::DType::bf16;
  return {"own", storage};
}

struct Result {
  double accuracy;
  ht::MemoryReport memory;
};

Result train(const ht::Loader& train, const ht::Loader& test, const ht::Precision& precision) {
  ht::Graph graph;
  const auto [images, labels] = ht::inputs(graph, train);
  const ht::Value logits = ht::gupta(images);
  ht::Trainer trainer(ht::cross_entropy(logits, labels),
                      {.precision = precision, .schedule = ht::Schedule::one_cycle(0.05f, 3 * train.batches())});
  for (int epoch = 0; epoch < 3; ++epoch) trainer.epoch(train);
  const Result result{trainer.evaluate(test, ht::accuracy(logits, labels)), trainer.memory()};
  std::cout << precision.name << ": accuracy " << result.accuracy << ", bytes of weights " << result.memory.weights
            << ", activations " << result.memory.activations << std::endl;
  return result;
}

int main(int argc, char** argv) try {
  const auto load = [&](ht::Split split, const ht::LoaderOptions& options) {
    return argc > 1 ? ht::mnist(argv[1], split, options) : ht::digits(split, options);
  };
  if (argc < 2) std::cout << "synthetic: digits that are drawn, not written\n";
  const ht::Loader data = load(ht::Split::train, {.batch = 50, .limit = 2000});
  const ht::Loader test = load(ht::Split::test, {.batch = 500, .limit = 1000});
  const Result f32 = train(data, test, ht::Precision::f32()), own = train(data, test, own_system());
  const bool smaller =
      2 * own.memory.weights <= f32.memory.weights + 1024 && 3 * own.memory.activations < f32.memory.activations;
  if (own.accuracy > 0.8 && smaller) return 0;
  std::cerr << "own: less accurate or larger than it should be\n";
  return 1;
} catch (const ht::Error& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
