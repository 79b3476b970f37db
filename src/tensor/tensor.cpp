#include "halftone/tensor/tensor.hpp"

#include <fmt/format.h>

#include <cstring>
#include <iterator>

namespace halftone {
std::string to_string(const Shape& shape) {
  return fmt::format("[{}, {}, {}, {}]", shape.n, shape.h, shape.w, shape.c);
}

std::string to_string(const Storage& storage) {
  std::string text = name_of(storage.code);
  if (storage.width > 0 && storage.width != bits_of(storage.code)) text += fmt::format(" of {} bits", storage.width);
  if (storage.scaling == Scaling::constant) text += fmt::format(" x 2^{}", storage.exponent);
  if (storage.scaling == Scaling::range)
    text += fmt::format(" x 2^{} moved by {}", storage.exponent, name_of(storage.controller));
  if (storage.scaling == Scaling::tensor) text += " with a scale";
  if (storage.block > 0) text += fmt::format(" in blocks of {}", storage.block);
  if (storage.rounding == Rounding::stochastic) text += ", stochastic";
  if (storage.rounding == Rounding::toward_zero) text += ", toward zero";
  if (storage.overflow != overflow_of(storage.code))
    text += storage.overflow == Overflow::saturate ? ", saturating" : ", to infinity";
  return text;
}

namespace {
void check_count(const TensorView& tensor, std::size_t count) {
  if (count != static_cast<std::size_t>(tensor.spec.shape.elements()))
    fail(fmt::format("a tensor {} takes {} values, not {}", to_string(tensor.spec.shape), tensor.spec.shape.elements(),
                     count));
}
}  // namespace

float TensorView::scale() const {
  if (!range) return spec.storage.first_scale();
  RangeState state;
  backend->download(&state, range, sizeof state);
  return state.scale;
}

std::vector<float> TensorView::read() const {
  std::vector<float> values(static_cast<std::size_t>(spec.shape.elements()));
  read_into(values);
  return values;
}

void TensorView::read_into(std::span<float> values) const {
  check_count(*this, values.size());
  if (spec.storage == DType::f32) return backend->download(values.data(), data, values.size_bytes());
  const auto raw = read_bytes();
  const float range_scale = scale();
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = read_number(spec.storage, raw.data(), std::ssize(values), static_cast<std::int64_t>(i), range_scale);
}

void TensorView::write(std::span<const float> values, const RandomKey& key, Noticed* noticed) {
  check_count(*this, values.size());
  std::vector<std::byte> raw(spec.bytes());
  write_numbers(spec.storage, raw.data(), std::ssize(values), 0, std::ssize(values), values.data(), key, scale(),
                noticed);
  backend->upload(data, raw.data(), raw.size());
}

std::vector<std::byte> TensorView::read_bytes() const {
  std::vector<std::byte> raw(spec.bytes());
  backend->download(raw.data(), data, raw.size());
  return raw;
}

void TensorView::write_bytes(std::span<const std::byte> bytes) {
  if (bytes.size() != spec.bytes())
    fail(fmt::format("a tensor {} of {} takes {} bytes, not {}", to_string(spec.shape), to_string(spec.storage),
                     spec.bytes(), bytes.size()));
  backend->upload(data, bytes.data(), bytes.size());
}

}  // namespace halftone
