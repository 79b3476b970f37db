#include "halftone/nn/models.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

namespace halftone {
namespace {

constexpr Shape digit{1, 28, 28, 1}, small{1, 32, 32, 3}, photo{1, 224, 224, 3};

const Net known[] = {
    {"lenet5", digit, 10, lenet5},      {"gupta", digit, 10, gupta},       {"mlp", digit, 10, mlp},
    {"resnet20", small, 10, resnet20},  {"resnet18", small, 10, resnet18}, {"airbench94", small, 10, airbench94},
    {"resnet50", photo, 1000, resnet50}};

}  // namespace

std::span<const Net> nets() { return known; }

const Net& net_by_name(std::string_view name) {
  std::vector<std::string_view> names;
  for (const Net& net : known) {
    if (name == net.name) return net;
    names.push_back(net.name);
  }
  fail(fmt::format("net {}: known nets are {}", name, fmt::join(names, ", ")));
}

std::int64_t parameter_count(const Graph& graph) {
  std::int64_t count = 0;
  for (const ParameterInfo& parameter : graph->parameters) count += graph.info(parameter.value).spec.shape.elements();
  return count;
}

std::int64_t parameter_count(const Net& net) {
  Graph graph;
  net.build(graph.input("images", net.image), net.classes);
  return parameter_count(graph);
}

}  // namespace halftone
