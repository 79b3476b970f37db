#pragma once
#include <functional>
#include <string>

#include "halftone/graph/graph.hpp"

namespace halftone {

/// x as `f` stores it; the gradient passes straight through. `f` maps a number to the nearest one that a format holds.
Value quantize(Value x, std::function<float(float)> f, const std::string& name = "quantize");

/// x on a grid; random rounding draws from the step's own stream.
Value quantize(Value x, const Grid& grid);

struct Quantize final : Elementwise {
  Grid grid;
  std::uint32_t stream;
  Quantize(const Grid& the_grid, std::uint32_t the_stream) : grid(the_grid), stream(the_stream) {}
  std::string name() const override { return "quantize"; }
  std::vector<Value> gradient(const GradientRequest& request) const override;
};

}  // namespace halftone
