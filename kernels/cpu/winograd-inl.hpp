// Included once per instruction set, inside HWY_NAMESPACE files only; hence no #pragma once.
#if defined(HALFTONE_WINOGRAD_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef HALFTONE_WINOGRAD_INL
#undef HALFTONE_WINOGRAD_INL
#else
#define HALFTONE_WINOGRAD_INL
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/gather.hpp"
#include "kernels/cpu/load-inl.hpp"
#include "kernels/cpu/microkernel-inl.hpp"
#include "kernels/cpu/storage.hpp"

// The transforms of F(4, 3) along one axis at the points 0, +-p, +-q and infinity: result = A' [(G filter) x (B'
// input)], and for the filter's gradient G' [(A gradient) x (B' input)] (the construction: Blahut 2010, section 5). All
// constants of A and B are exact in f32.
HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {

using Vector = hn::Vec<Vectors>;

constexpr double winograd_p = 0.625, winograd_q = 1.5;

HWY_INLINE Vector times(double factor, Vector x) { return hn::Mul(hn::Set(Vectors(), static_cast<float>(factor)), x); }
HWY_INLINE Vector add_times(double factor, Vector x, Vector sum) {
  return hn::MulAdd(hn::Set(Vectors(), static_cast<float>(factor)), x, sum);
}
HWY_INLINE Vector subtract_times(double factor, Vector x, Vector from) {
  return hn::NegMulAdd(hn::Set(Vectors(), static_cast<float>(factor)), x, from);
}

/// B'.
struct OfInput {
  static constexpr int in = 6, out = 6;
  static HWY_INLINE void apply(const Vector* x, Vector* y) {
    constexpr double pp = winograd_p * winograd_p, qq = winograd_q * winograd_q;
    y[0] = add_times(pp * qq, x[0], subtract_times(pp + qq, x[2], x[4]));
    y[5] = add_times(pp * qq, x[1], subtract_times(pp + qq, x[3], x[5]));
    pair(winograd_p, qq, x, y + 1);
    pair(winograd_q, pp, x, y + 3);
  }

 private:
  static HWY_INLINE void pair(double point, double others, const Vector* x, Vector* y) {
    const Vector even = subtract_times(others, x[2], x[4]), odd = subtract_times(others, x[1], x[3]);
    y[0] = add_times(point, odd, even);
    y[1] = subtract_times(point, odd, even);
  }
};

/// What G has at 0, +-p and +-q, over the polynomial's slope there.
constexpr double winograd_at_0 = 1 / (winograd_p * winograd_p * winograd_q * winograd_q);
constexpr double slope(double point, double other) { return 1 / (2 * point * point * (point * point - other * other)); }
constexpr double winograd_at_p = slope(winograd_p, winograd_q), winograd_at_q = slope(winograd_q, winograd_p);

/// G.
struct OfFilter {
  static constexpr int in = 3, out = 6;
  static HWY_INLINE void apply(const Vector* x, Vector* y) {
    y[0] = times(winograd_at_0, x[0]);
    pair(winograd_p, winograd_at_p, x, y + 1);
    pair(winograd_q, winograd_at_q, x, y + 3);
    y[5] = x[2];
  }

 private:
  static HWY_INLINE void pair(double point, double scale, const Vector* x, Vector* y) {
    const Vector even = add_times(scale, x[0], times(scale * point * point, x[2])), odd = times(scale * point, x[1]);
    y[0] = hn::Add(even, odd);
    y[1] = hn::Sub(even, odd);
  }
};

/// A'.
struct OfProducts {
  static constexpr int in = 6, out = 4;
  static HWY_INLINE void apply(const Vector* x, Vector* y) {
    constexpr double p = winograd_p, q = winograd_q;
    const Vector even = hn::Add(x[1], x[2]), odd = hn::Sub(x[1], x[2]);
    const Vector even2 = hn::Add(x[3], x[4]), odd2 = hn::Sub(x[3], x[4]);
    y[0] = hn::Add(hn::Add(x[0], even), even2);
    y[1] = add_times(q, odd2, times(p, odd));
    y[2] = add_times(q * q, even2, times(p * p, even));
    y[3] = add_times(q * q * q, odd2, add_times(p * p * p, odd, x[5]));
  }
};

/// A.
struct OfGradient {
  static constexpr int in = 4, out = 6;
  static HWY_INLINE void apply(const Vector* x, Vector* y) {
    y[0] = x[0];
    pair(winograd_p, x, y + 1);
    pair(winograd_q, x, y + 3);
    y[5] = x[3];
  }

 private:
  static HWY_INLINE void pair(double point, const Vector* x, Vector* y) {
    const Vector even = add_times(point * point, x[2], x[0]);
    const Vector odd = add_times(point * point * point, x[3], times(point, x[1]));
    y[0] = hn::Add(even, odd);
    y[1] = hn::Sub(even, odd);
  }
};

/// G'.
struct OfSums {
  static constexpr int in = 6, out = 3;
  static HWY_INLINE void apply(const Vector* x, Vector* y) {
    constexpr double p = winograd_p, q = winograd_q, at_p = winograd_at_p, at_q = winograd_at_q;
    const Vector even = hn::Add(x[1], x[2]), odd = hn::Sub(x[1], x[2]);
    const Vector even2 = hn::Add(x[3], x[4]), odd2 = hn::Sub(x[3], x[4]);
    y[0] = add_times(winograd_at_0, x[0], add_times(at_q, even2, times(at_p, even)));
    y[1] = add_times(at_q * q, odd2, times(at_p * p, odd));
    y[2] = add_times(at_q * q * q, even2, add_times(at_p * p * p, even, x[5]));
  }
};

#define HALFTONE_INLINE_LAMBDA HWY_ATTR __attribute__((always_inline))

/// A transform T along both axes: store(i, j, x) for what comes of load(i, j).
template <class T, class Load, class Store>
HWY_INLINE void transform(const Load& load, const Store& store) {
  Vector mid[T::out][T::in];
#pragma GCC unroll 6
  for (int j = 0; j < T::in; ++j) {
    Vector in[T::in], out[T::out];
#pragma GCC unroll 6
    for (int i = 0; i < T::in; ++i) in[i] = load(i, j);
    T::apply(in, out);
#pragma GCC unroll 6
    for (int i = 0; i < T::out; ++i) mid[i][j] = out[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < T::out; ++i) {
    Vector out[T::out];
    T::apply(mid[i], out);
#pragma GCC unroll 6
    for (int j = 0; j < T::out; ++j) store(i, j, out[j]);
  }
}

// Codes as vectors of numbers.
struct AsF32 {
  using Code = float;
  static HWY_INLINE Vector load(const Code* from, std::int64_t count) { return load_first(Vectors(), from, count); }
};
struct AsF16 {
  using Code = std::uint16_t;
  static HWY_INLINE Vector load(const Code* from, std::int64_t count) {
    const hn::Rebind<Code, Vectors> codes;
    const hn::Rebind<hwy::float16_t, Vectors> halves;
    return hn::PromoteTo(Vectors(), hn::BitCast(halves, load_first(codes, from, count)));
  }
};
struct AsBf16 {
  using Code = std::uint16_t;
  static HWY_INLINE Vector load(const Code* from, std::int64_t count) {
    const hn::Rebind<Code, Vectors> codes;
    const hn::RebindToUnsigned<Vectors> words;
    return hn::BitCast(Vectors(), hn::ShiftLeft<16>(hn::PromoteTo(words, load_first(codes, from, count))));
  }
};

/// Calls f(AsF16()) or what else suits the codes of a tensor; f32 is what it is read as where none of them does.
template <class F>
void visit_codes(const Access& tensor, F&& f) {
  if (tensor.plain && tensor.storage.code == DType::f16) return f(AsF16());
  if (tensor.plain && tensor.storage.code == DType::bf16) return f(AsBf16());
  f(AsF32());
}

/// Transforms squares of pixels of a tensor [images, height, width, channels].
class Squares {
 public:
  /// `zeros` [channels].
  Squares(const Access& access, const Memory& memory, std::int64_t height, std::int64_t width, std::int64_t channels,
          const float* zeros)
      : access_(&access),
        input_(access, memory),
        data_(memory.data),
        zeros_(zeros),
        height_(height),
        width_(width),
        channels_(channels) {}

  /// to [points, channels], planes apart, of the square at (y, x) of an image, zero outside of it; buffer [T::in,
  /// T::in, channels] is scratch.
  template <class T>
  void transform_at(std::int64_t image, std::int64_t y, std::int64_t x, float* buffer, float* to,
                    std::int64_t plane) const {
    visit_codes(*access_, [&](auto as) { transform_codes<T, decltype(as)>(image, y, x, buffer, to, plane); });
  }

 private:
  template <class T, class As>
  void transform_codes(std::int64_t image, std::int64_t y, std::int64_t x, float* buffer, float* to,
                       std::int64_t plane) const {
    const typename As::Code* pixel[T::in * T::in];
    find<T::in>(image, y, x, buffer, pixel);
    for (std::int64_t c = 0; c < channels_; c += lanes)
      transform<T>([&](int i, int j)
                       HALFTONE_INLINE_LAMBDA { return As::load(pixel[i * T::in + j] + c, channels_ - c); },
                   [&](int i, int j, Vector out)
                       HALFTONE_INLINE_LAMBDA { hn::StoreU(out, Vectors(), to + (i * T::out + j) * plane + c); });
  }

  template <int size, class Code>
  void find(std::int64_t image, std::int64_t y0, std::int64_t x0, float* buffer, const Code** pixel) const {
    const auto* codes = access_->plain && access_->size == sizeof(Code) ? static_cast<const Code*>(data_) : nullptr;
    const auto* zeros = reinterpret_cast<const Code*>(zeros_);
    const std::int64_t first = std::clamp<std::int64_t>(x0, 0, width_);
    const std::int64_t last = std::clamp<std::int64_t>(x0 + size, first, width_);
    for (std::int64_t i = 0; i < size; ++i) {
      const std::int64_t y = y0 + i;
      const bool inside = y >= 0 && y < height_;
      const std::int64_t from = inside ? ((image * height_ + y) * width_ + first) * channels_ : 0;
      float* to = buffer + i * size * channels_;
      if (inside && !codes) input_.copy(from, (last - first) * channels_, to);
      const Code* row = codes ? codes + from : reinterpret_cast<const Code*>(to);
      for (std::int64_t x = x0; x < x0 + size; ++x, ++pixel)
        *pixel = inside && x >= first && x < last ? row + (x - first) * channels_ : zeros;
    }
  }

  const Access* access_;
  Input input_;  ///< for codes that no vector is loaded from
  const void* data_;
  const float* zeros_;
  std::int64_t height_, width_, channels_;
};

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
