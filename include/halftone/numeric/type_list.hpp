#pragma once
#include <cstddef>
#include <optional>
#include <string_view>
#include <utility>
#include <variant>

#include "halftone/numeric/host_device.hpp"

namespace halftone {

/// The table that a family of types is listed in once: visitors, variants and parsers are made from it.
template <class... T>
struct TypeList {
  using Variant = std::variant<T...>;
  static constexpr std::size_t size = sizeof...(T);
};

/// Calls `visitor(T{})` with the type at `index`.
template <class First, class... Rest, class Visitor>
constexpr decltype(auto) visit_type(TypeList<First, Rest...>, std::size_t index, Visitor&& visitor) {
  if constexpr (sizeof...(Rest) > 0) {
    if (index != 0) return visit_type(TypeList<Rest...>{}, index - 1, std::forward<Visitor>(visitor));
  }
  return std::forward<Visitor>(visitor)(First{});
}

/// `std::visit` for host and device.
template <class... T, class Visitor>
HALFTONE_HD constexpr void visit(TypeList<T...>, const std::variant<T...>& variant, const Visitor& visitor) {
  ((std::get_if<T>(&variant) ? void(visitor(*std::get_if<T>(&variant))) : void()), ...);
}

/// The default-made type whose `T::name` is `name`.
template <class... T>
constexpr auto find_type(TypeList<T...>, std::string_view name) {
  std::optional<std::variant<T...>> found;
  ((name == T::name ? void(found = T{}) : void()), ...);
  return found;
}

}  // namespace halftone
