#include "halftone/tensor/tensor.hpp"

#include <fmt/format.h>

namespace halftone {

std::string to_string(const Shape& shape) {
  return fmt::format("[{}, {}, {}, {}]", shape.n, shape.h, shape.w, shape.c);
}

std::vector<float> TensorView::read() const {
  std::vector<float> values(static_cast<std::size_t>(spec.shape.elements()));
  std::vector<std::byte> raw(spec.bytes());
  backend->download(raw.data(), data, raw.size());
  visit_format(spec.dtype, [&](auto format) {
    const auto* stored = reinterpret_cast<const typename decltype(format)::Storage*>(raw.data());
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = decltype(format)::decode(stored[i]);
  });
  return values;
}

void TensorView::write(std::span<const float> values) const {
  if (static_cast<std::int64_t>(values.size()) != spec.shape.elements())
    fail(fmt::format("a tensor {} takes {} values, not {}", to_string(spec.shape), spec.shape.elements(),
                     values.size()));
  std::vector<std::byte> raw(spec.bytes());
  visit_format(spec.dtype, [&](auto format) {
    auto* stored = reinterpret_cast<typename decltype(format)::Storage*>(raw.data());
    for (std::size_t i = 0; i < values.size(); ++i) stored[i] = decltype(format)::encode(values[i]);
  });
  backend->upload(data, raw.data(), raw.size());
}

void TensorView::write_bytes(std::span<const std::byte> bytes) const {
  if (bytes.size() != spec.bytes())
    fail(fmt::format("a tensor {} of {} takes {} bytes, not {}", to_string(spec.shape), name_of(spec.dtype),
                     spec.bytes(), bytes.size()));
  backend->upload(data, bytes.data(), bytes.size());
}

}  // namespace halftone
