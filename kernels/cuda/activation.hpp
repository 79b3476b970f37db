#pragma once
#include "halftone/numeric/pointwise.hpp"
#include "kernels/cuda/device.hpp"

namespace halftone::cuda {

/// An activation that may be absent.
struct Epilogue {
  Activation activation = {};
  bool present = false;

  Epilogue() = default;
  explicit Epilogue(const std::optional<Activation>& given)
      : activation(given.value_or(Activation{})), present(given.has_value()) {}

  template <int n>
  HALFTONE_DEVICE void apply(float (&x)[n]) const {
    if (!present) return;
    visit(Activations{}, activation, [&](const auto& f) {
      HALFTONE_UNROLL
      for (int i = 0; i < n; ++i) x[i] = f.value(x[i]);
    });
  }
  /// f(finish), where finish(x) does the same: in loops over many numbers the usual ones are without branches.
  template <class F>
  HALFTONE_DEVICE void with(const F& f) const {
    if (!present) {
      f([](auto&) {});
    } else if (const Relu* relu = std::get_if<Relu>(&activation)) {
      f([&](auto& x) {
        HALFTONE_UNROLL
        for (float& y : x) y = relu->value(y);
      });
    } else {
      f([&](auto& x) { apply(x); });
    }
  }
  HALFTONE_DEVICE float of(float x) const {
    float one[1] = {x};
    apply(one);
    return one[0];
  }
};

}  // namespace halftone::cuda
