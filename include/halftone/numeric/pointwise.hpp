#pragma once
#include <optional>
#include <string_view>

#include "halftone/numeric/math.hpp"
#include "halftone/numeric/type_list.hpp"

namespace halftone {

// An activation is a functor: `value(x)`, and its derivative `slope(v)`, where v is the output `value(x)` where
// `slope_from_output` says so (the input need not be kept then) and the input x elsewhere. A new one: write it here and
// name it in `Activations`.

struct Relu {
  static constexpr const char* name = "relu";
  static constexpr bool slope_from_output = true;
  HALFTONE_HD constexpr float value(float x) const { return math::select(x < 0.0f, 0.0f, x); }
  HALFTONE_HD constexpr float slope(float y) const { return math::select(y <= 0.0f, 0.0f, 1.0f); }
};

/// `negative_slope` must not be negative, since the output's sign has to tell the input's.
struct LeakyRelu {
  float negative_slope = 0.01f;

  static constexpr const char* name = "leaky_relu";
  static constexpr bool slope_from_output = true;
  HALFTONE_HD constexpr float value(float x) const { return x * math::select(x < 0.0f, negative_slope, 1.0f); }
  HALFTONE_HD constexpr float slope(float y) const { return math::select(y <= 0.0f, negative_slope, 1.0f); }
};

struct Sigmoid {
  static constexpr const char* name = "sigmoid";
  static constexpr bool slope_from_output = true;
  HALFTONE_HD constexpr float value(float x) const {
    const float below_one = math::exp(-math::abs(x));
    return math::select(x < 0.0f, below_one, 1.0f) / (1.0f + below_one);
  }
  HALFTONE_HD constexpr float slope(float y) const { return y * (1.0f - y); }
};

struct Tanh {
  static constexpr const char* name = "tanh";
  static constexpr bool slope_from_output = true;
  HALFTONE_HD constexpr float value(float x) const { return math::tanh(x); }
  HALFTONE_HD constexpr float slope(float y) const { return 1.0f - y * y; }
};

struct HardTanh {
  static constexpr const char* name = "hard_tanh";
  static constexpr bool slope_from_output = true;
  HALFTONE_HD constexpr float value(float x) const {
    return math::select(x < -1.0f, -1.0f, math::select(x > 1.0f, 1.0f, x));
  }
  HALFTONE_HD constexpr float slope(float y) const { return math::select(math::abs(y) >= 1.0f, 0.0f, 1.0f); }
};

struct Relu6 {
  static constexpr const char* name = "relu6";
  static constexpr bool slope_from_output = true;
  HALFTONE_HD constexpr float value(float x) const {
    return math::select(x < 0.0f, 0.0f, math::select(x > 6.0f, 6.0f, x));
  }
  HALFTONE_HD constexpr float slope(float y) const {
    return math::select(y <= 0.0f, 0.0f, math::select(y >= 6.0f, 0.0f, 1.0f));
  }
};

struct Silu {
  static constexpr const char* name = "silu";
  static constexpr bool slope_from_output = false;
  HALFTONE_HD constexpr float value(float x) const { return x * Sigmoid{}.value(x); }
  HALFTONE_HD constexpr float slope(float x) const {
    const float s = Sigmoid{}.value(x);
    return s * (1.0f + x * (1.0f - s));
  }
};

/// A straight line from 0 at -3 to 1 at 3.
struct HardSigmoid {
  static constexpr const char* name = "hard_sigmoid";
  static constexpr bool slope_from_output = true;
  HALFTONE_HD constexpr float value(float x) const {
    return math::select(x <= -3.0f, 0.0f, math::select(x >= 3.0f, 1.0f, x / 6.0f + 0.5f));
  }
  HALFTONE_HD constexpr float slope(float y) const {
    return math::select(y <= 0.0f, 0.0f, math::select(y >= 1.0f, 0.0f, 1.0f / 6.0f));
  }
};

/// x times its `HardSigmoid`.
struct HardSwish {
  static constexpr const char* name = "hard_swish";
  static constexpr bool slope_from_output = false;
  HALFTONE_HD constexpr float value(float x) const {
    return math::select(x <= -3.0f, 0.0f, x * HardSigmoid{}.value(x));
  }
  HALFTONE_HD constexpr float slope(float x) const {
    return math::select(x <= -3.0f, 0.0f, math::select(x >= 3.0f, 1.0f, x / 3.0f + 0.5f));
  }
};

/// x times the normal distribution function of x, through erf.
struct Gelu {
  static constexpr const char* name = "gelu";
  static constexpr bool slope_from_output = false;
  HALFTONE_HD constexpr float value(float x) const { return x * distribution(x); }
  HALFTONE_HD constexpr float slope(float x) const {
    constexpr float inverse_sqrt_2pi = 0.398942280f;
    return distribution(x) + x * (inverse_sqrt_2pi * math::exp(-0.5f * x * x));
  }

 private:
  HALFTONE_HD static constexpr float distribution(float x) { return 0.5f * (1.0f + math::erf(x * 0.707106781f)); }
};

/// The approximation of `Gelu` by tanh (Hendrycks and Gimpel 2016).
struct GeluTanh {
  static constexpr const char* name = "gelu_tanh";
  static constexpr bool slope_from_output = false;
  HALFTONE_HD constexpr float value(float x) const { return 0.5f * x * (1.0f + math::tanh(inner(x))); }
  HALFTONE_HD constexpr float slope(float x) const {
    const float t = math::tanh(inner(x));
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * scale * (1.0f + 3.0f * cubic * x * x);
  }

 private:
  static constexpr float scale = 0.797884561f, cubic = 0.044715f;  // scale: sqrt(2 / pi)
  HALFTONE_HD static constexpr float inner(float x) { return scale * (x + cubic * x * x * x); }
};

/// Every activation.
using Activations =
    TypeList<Relu, LeakyRelu, Gelu, GeluTanh, Silu, Sigmoid, Tanh, HardTanh, Relu6, HardSigmoid, HardSwish>;
using Activation = Activations::Variant;

inline std::optional<Activation> parse_activation(std::string_view name) { return find_type(Activations{}, name); }

inline const char* name_of(const Activation& activation) {
  return std::visit([](const auto& f) { return f.name; }, activation);
}

}  // namespace halftone
