#pragma once
#include <gtest/gtest.h>

#include <tuple>

#include "halftone/numeric/formats.hpp"

namespace halftone::test {

template <class... T>
testing::Types<T...> types_of(TypeList<T...>);
template <class... T>
testing::Types<T...> types_of(std::tuple<T...>);

/// A library's list for TYPED_TEST_SUITE.
template <class List>
using TypesOf = decltype(types_of(List{}));

template <class Format>
concept IsSmallFloat = requires {
  Format::largest_code;
};

template <class... Format>
auto small_ones(TypeList<Format...>) {
  return std::tuple_cat(std::conditional_t<IsSmallFloat<Format>, std::tuple<Format>, std::tuple<>>{}...);
}

/// Those of `Formats` that are SmallFloats.
using SmallFormats = TypesOf<decltype(small_ones(Formats{}))>;

/// Whether a SmallFloat has a code beyond its numbers; NaN and infinity become the largest number otherwise.
template <class Format>
constexpr bool has_specials = Format::largest_code < Format::last_code;

}  // namespace halftone::test
