#include "halftone/graph/precision.hpp"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <set>

#include "halftone/halftone.hpp"
#include "halftone/tensor/text.hpp"

namespace halftone {
namespace {

/// A small residual net with everything that stores tensors of its own.
Value small_net(Graph& g) {
  const Value x = normalize(g.input("x", {4, 8, 8, 3}, DType::u8), {0.5f, 0.5f, 0.5f}, {1, 1, 1});
  const Value labels = g.input("labels", {4, 1, 1, 1}, DType::i32);
  Value y = relu(batch_norm(conv2d(x, 8, 3)));
  y = relu(batch_norm(conv2d(y, 8, 3)) + y);
  {
    Scope scope(g, "head");
    y = dense(dropout(global_avg_pool(max_pool2d(y, 2)), 0.1f), 10);
  }
  return cross_entropy(y, labels);
}

std::map<Role, std::set<std::string>> storages_by_role(const Graph& g) {
  std::map<Role, std::set<std::string>> storages;
  for (const Node& node : g->nodes)
    for (int id : node.outputs) storages[g.info(id).spec.role].insert(to_string(g.info(id).spec.storage));
  for (const auto& p : g->parameters) storages[Role::weight].insert(to_string(g.info(p.value).spec.storage));
  return storages;
}

TEST(Narrow, EveryRoleGetsItsOwnStorage) {
  Graph g;
  const Value loss = small_net(g);
  Precision precision;
  precision.storage = {DType::f16, DType::bf16, DType::e4m3, DType::e5m2};
  differentiate(g, loss);
  narrow(g, precision);
  const auto storages = storages_by_role(g);
  EXPECT_EQ(storages.at(Role::activation), std::set<std::string>{"f16"});
  EXPECT_EQ(storages.at(Role::activation_gradient), std::set<std::string>{"bf16"});
  EXPECT_EQ(storages.at(Role::weight), std::set<std::string>{"e4m3"});
  EXPECT_EQ(storages.at(Role::weight_gradient), std::set<std::string>{"e5m2"});
  EXPECT_EQ(storages.at(Role::exact), std::set<std::string>{"f32"});
}

TEST(Narrow, LogitsAndTheirGradientAreNotKeptWide) {
  Graph g;
  const Value loss = small_net(g);
  const Node cross_entropy_node = g->nodes.back();
  differentiate(g, loss);
  narrow(g, Precision::f16());
  EXPECT_EQ(g.info(cross_entropy_node.inputs[0]).spec.storage, DType::f16);
  for (const Node& node : g->nodes)
    if (node.op->name() == "softmax_cross_entropy_gradient") {
      EXPECT_EQ(g.info(node.outputs[0]).spec.storage, DType::f16);
    }
}

TEST(Narrow, ALossMadeOfLossesStaysExact) {
  Graph g;
  const Value x = relu(g.input("x", {4, 2, 2, 3}));
  const Value loss = scale(mean_squared_error(x, scale(x, 0.5f)), 2) + mean_squared_error(x, conv2d(x, 3, 1));
  differentiate(g, loss);
  narrow(g, Precision::f16());
  for (const auto& value : g->values)
    if (value.spec.shape.elements() == 1) {
      EXPECT_EQ(value.spec.storage, DType::f32) << value.name;
    }
}

TEST(Narrow, ExceptionsGoByScope) {
  Graph g;
  const Value loss = small_net(g);
  differentiate(g, loss);
  narrow(g, Precision::f16().except("head.", RoleStorage::all(DType::f32)));
  for (const auto& p : g->parameters) {
    const DType expected = p.name.starts_with("head.") ? DType::f32 : DType::f16;
    EXPECT_EQ(g.info(p.value).spec.storage, expected) << p.name;
    EXPECT_EQ(g.info(p.gradient).spec.storage, expected) << p.name;
  }
}

TEST(Narrow, AScopeIsAWholeName) {
  EXPECT_TRUE(in_scope("conv1.weight", "conv1"));
  EXPECT_TRUE(in_scope("conv1.weight", "conv1."));
  EXPECT_TRUE(in_scope("conv1", "conv1"));
  EXPECT_TRUE(in_scope("conv1", ""));
  EXPECT_FALSE(in_scope("conv10.weight", "conv1"));
}

TEST(Narrow, AnActivationGradientIsNotMadeAWeightGradient) {
  Graph g;
  const Value x = conv2d(g.input("x", {2, 4, 4, 3}), 4, 3);
  const Value loss = mean_squared_error(x + g.parameter("p", x.shape(), constant(0), 4), scale(x, 0.5f));
  Precision precision = Precision::f16();
  precision.storage.weight_gradients = DType::f32;
  differentiate(g, loss);
  narrow(g, precision);
  const auto storages = storages_by_role(g);
  EXPECT_EQ(storages.at(Role::weight_gradient), std::set<std::string>{"f32"});
  EXPECT_EQ(storages.at(Role::activation_gradient), std::set<std::string>{"f16"});
}

/// The storage of the only max pool and the only slice, behind x stored so.
std::array<Storage, 2> behind(const Storage& x, const Precision& precision, Role role = Role::activation) {
  Graph g;
  const Value pooled = max_pool2d(cast(relu(g.input("x", {2, 4, 4, 16})), x), 2);
  const Value slice = g.add_one(std::make_shared<Slice>(0, 8), {pooled});
  g.info(pooled.id()).spec.role = g.info(slice.id()).spec.role = role;
  narrow(g, precision);
  return {g.info(pooled.id()).spec.storage, g.info(slice.id()).spec.storage};
}

TEST(Narrow, WhatSelectsFromSignsIsSigns) {
  Storage noticed = DType::sign;
  noticed.noticed = true;
  const Storage signs = DType::sign, numbers;
  EXPECT_EQ(behind(DType::sign, Precision::binary()), (std::array{signs, signs}));
  EXPECT_EQ(behind(DType::sign, Precision::binary().noticing()), (std::array{noticed, noticed}));
  EXPECT_EQ(behind({DType::sign, Rounding::stochastic}, Precision::binary()), (std::array{signs, signs}));
  EXPECT_EQ(behind(Storage::scaled(DType::sign), Precision::binary()), (std::array{numbers, numbers}));
  EXPECT_EQ(behind(DType::sign, Precision::binary(), Role::exact), (std::array{numbers, numbers}));
  EXPECT_EQ(behind(DType::sign, Precision::binary().except("max_pool2d1", RoleStorage::all(DType::bf16))),
            (std::array<Storage, 2>{DType::bf16, DType::f32}));
}

TEST(Presets, HaveTheNamesByWhichTheyAreFound) {
  std::vector<std::string> names = {"bf16_pure:kahan", "fixed:6.10:stochastic"};
  const std::string all = precision_names();
  for (const std::string_view part : parts(all, ',')) {
    const std::string name(part.substr(part.find_first_not_of(' ')));
    if (name.find(':') == std::string::npos) names.push_back(name);
  }
  EXPECT_GE(names.size(), 5u);
  for (const std::string& name : names) EXPECT_EQ(precision_by_name(name).name, name);
}

TEST(Presets, MayTakeRolesAndScopesFromOthers) {
  const std::string name = "fixed:6.10:nearest+activation_gradients=f32+slots=bf16_pure+conv1=bf16";
  const Precision mixed = precision_by_name(name);
  EXPECT_EQ(mixed.name, name);
  const Storage fixed = Storage::fixed(6, 10);
  EXPECT_EQ(mixed.storage.activation_gradients, Storage(DType::f32));
  EXPECT_EQ(mixed.storage.optimizer_slots, Storage(DType::bf16));
  for (const Storage& kept :
       {mixed.storage.activations, mixed.storage.weights, mixed.storage.weight_gradients, mixed.storage.update})
    EXPECT_EQ(kept, fixed);
  EXPECT_EQ(mixed.at("conv1.weight").weights, Storage(DType::bf16));
  EXPECT_EQ(mixed.at("conv1.weight").update, Storage(DType::f32));
  EXPECT_EQ(mixed.at("conv10.weight").weights, fixed);
  EXPECT_FALSE(precision_by_name("f32+activations=dynamic_fixed:10/12").fuses);
  EXPECT_EQ(precision_by_name("f32+activations=dynamic_fixed:10/12").range_steps, 200);
  for (const char* bad :
       {"f32+d2=binary", "f16+", "f16+update", "f16+=f32", "f16+update=", "f16+update=f33", "+update=f32"})
    EXPECT_THROW(precision_by_name(bad), Error) << bad;
}

TEST(Parameters, MastersExistOnlyWhereWeightsAreNarrow) {
  Graph g;
  const Value loss = small_net(g);
  differentiate(g, loss);
  Graph narrow_graph = g.clone();
  narrow(narrow_graph, Precision::bf16());
  const Device device = cpu_device({.threads = 1});
  const Parameters wide(g, device, {.slot_count = 1}), narrow_ones(narrow_graph, device, {.slot_count = 1});
  EXPECT_EQ(wide.bytes(Store::masters), 0u);
  EXPECT_EQ(narrow_ones.bytes(Store::masters), wide.bytes(Store::weights));
  for (const auto& slot : narrow_ones.entries) {
    const ParameterSlot& twin = wide.find(slot.name);
    for (const Store store : {Store::weights, Store::gradients})
      EXPECT_EQ(2 * narrow_ones.view(store, slot).spec.bytes(), wide.view(store, twin).spec.bytes()) << slot.name;
    EXPECT_EQ(slot.truth(), Store::masters);
    EXPECT_EQ(twin.truth(), Store::weights);
    EXPECT_EQ(narrow_ones.truth(slot).read(), wide.truth(twin).read()) << slot.name;
  }
  EXPECT_EQ(narrow_ones.bytes(Store::slot0), wide.bytes(Store::slot0));
  EXPECT_THROW(wide.find("nobody"), Error);
}

TEST(Parameters, AStoreThatHoldsNothingHasNoView) {
  Graph g;
  differentiate(g, small_net(g));
  const Parameters parameters(g, cpu_device({.threads = 1}), {});
  const ParameterSlot& slot = parameters.find("conv1.weight");
  EXPECT_EQ(parameters.view(Store::weights, slot).spec.shape, slot.shape);  // the control
  for (const Store store : {Store::masters, Store::accumulated, Store::slot0, Store::compensation, Store::average}) {
    try {
      parameters.view(store, slot);
      ADD_FAILURE() << name_of(store);
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(std::string("conv1.weight has no ") + name_of(store)), std::string::npos)
          << error.what();
    }
  }
}

TEST(Plan, HalfTheBytesForActivationsInSixteenBits) {
  Graph g;
  Value y = relu(conv2d(g.input("x", {8, 16, 16, 16}), 32, 3));
  for (int i = 0; i < 4; ++i) y = relu(conv2d(y, 32, 3));
  const Value loss = mean_squared_error(y, scale(y, 0));
  const Device device = cpu_device({.threads = 1});
  std::map<DType, std::size_t> bytes;
  for (DType dtype : {DType::f32, DType::f16}) {
    Precision precision;
    precision.storage = RoleStorage::all(dtype);
    const Graph training = for_training(g, loss.id(), {.device = device, .precision = precision});
    const Parameters parameters(training, device, {});
    bytes[dtype] = Plan(training, parameters).arena_bytes() - 8 * 16 * 16 * 16 * 4;  // less the input, which stays f32
  }
  EXPECT_NEAR(static_cast<double>(bytes[DType::f16]) / static_cast<double>(bytes[DType::f32]), 0.5, 0.01);
}

}  // namespace
}  // namespace halftone
