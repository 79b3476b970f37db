// Squeeze-and-excitation by channel and by pixel (Roy et al. 2018) out of library functions and one operation of our
// own: custom_layer [FOLDER WITH MNIST]
#include <algorithm>
#include <halftone/halftone.hpp>
#include <iostream>

namespace ht = halftone;

// Each pixel of x [n, h, w, c] times its own factor [n, h, w, 1].
ht::Value scale_pixels(ht::Value x, ht::Value factors) {
  const auto each = [](const ht::Shape& s, auto body) {
    for (std::int64_t pixel = 0; pixel < s.rows(); ++pixel)
      for (std::int64_t c = 0; c < s.c; ++c)
        body(static_cast<std::size_t>(pixel * s.c + c), static_cast<std::size_t>(pixel));
  };
  ht::CustomOptions options{.name = "scale_pixels"};
  options.forward = [each](auto in, auto out) {
    each(in[0].shape, [&](auto i, auto f) { out[0].values[i] = in[0].values[i] * in[1].values[f]; });
  };
  options.backward = [each](auto in, auto out) {  // in: x, factors, y, d_y; out: d_x, d_factors
    std::fill(out[1].values.begin(), out[1].values.end(), 0.0f);
    each(in[0].shape, [&](auto i, auto f) {
      out[0].values[i] = in[3].values[i] * in[1].values[f];
      out[1].values[f] += in[3].values[i] * in[0].values[i];
    });
  };
  return ht::custom({x, factors}, options);
}

ht::Value squeeze_excite(ht::Value x, int reduction) {
  const ht::Scope scope(ht::graph_of(x), "squeeze_excite");
  const ht::Value squeezed = ht::relu(ht::dense(ht::global_avg_pool(x), x.channels() / reduction));
  const ht::Value channels = ht::sigmoid(ht::dense(squeezed, x.channels()));
  const ht::Value pixels = ht::sigmoid(ht::conv2d(x, 1, 1));
  return ht::scale_channels(x, channels) + scale_pixels(x, pixels);
}

int main(int argc, char** argv) try {
  const auto load = [&](ht::Split split, const ht::LoaderOptions& options) {
    return argc > 1 ? ht::mnist(argv[1], split, options) : ht::digits(split, options);
  };
  if (argc < 2) std::cout << "No folder with MNIST was given: these are synthetic digits.\n";
  const ht::Loader train = load(ht::Split::train, {.batch = 100, .limit = 10000});
  const ht::Loader test = load(ht::Split::test, {.batch = 500});

  ht::Graph graph;
  const auto [images, labels] = ht::inputs(graph, train);
  ht::Value x = ht::max_pool2d(ht::relu(ht::conv2d(images, 16, 5)), 2);
  x = squeeze_excite(x, 4);
  x = ht::max_pool2d(ht::relu(ht::conv2d(x, 32, 3)), 2);
  const ht::Value logits = ht::dense(x, 10);
  ht::Trainer trainer(ht::cross_entropy(logits, labels),
                      {.device = ht::cpu_device(),
                       .precision = ht::Precision::bf16(),
                       .schedule = ht::Schedule::one_cycle(0.1f, 2 * train.batches())});
  for (int epoch = 0; epoch < 2; ++epoch)
    std::cout << trainer.epoch(train) << "  accuracy " << trainer.evaluate(test, ht::accuracy(logits, labels))
              << std::endl;
} catch (const ht::Error& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
