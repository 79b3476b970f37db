#include "halftone/inspect/doctor.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>
#include <set>
#include <sstream>

#include "halftone/halftone.hpp"
#include "src/inspect/judge.hpp"

namespace ht = halftone;

namespace halftone {
namespace {

/// Two dense layers on drawn digits.
struct Task {
  Loader train;
  Graph graph;
  Inputs in;
  Value logits, loss;

  Task()
      : train(std::make_shared<Dataset>(rendered_digits(Split::train, 600)), {.batch = 50}),
        in(inputs(graph, train)),
        logits(dense(relu(dense(in.images, 32)), 10)),
        loss(cross_entropy(logits, in.labels)) {}

  Diagnosis diagnose(const std::vector<std::string>& systems, float stress = 1, float rate = 0.05f,
                     const Device& device = cpu_device({.threads = 2})) const {
    DoctorOptions options;
    options.trainer.device = device;
    options.trainer.schedule = Schedule::constant(rate);
    options.trainer.stress = stress;
    options.steps = 80;
    for (const std::string& name : systems) options.systems.push_back(precision_by_name(name));
    if (!systems.empty() && systems[0] == "f16") options.systems[0].loss_scale = LossScale::none();
    return halftone::diagnose(loss, train, options);
  }
};

std::map<std::string, Verdict> verdicts(const Diagnosis& found) {
  std::map<std::string, Verdict> result;
  for (const Prognosis& p : found.systems) result[p.precision.name + " " + p.loss_scale] = p.verdict;
  return result;
}

TEST(Doctor, ForetellsWhatStressDoesAndMovesTheSafeScalesWithIt) {
  const Task task;
  const std::vector<std::string> systems = {"f16", "f16", "bf16"};
  const Diagnosis plain = task.diagnose(systems), stressed = task.diagnose(systems, 0x1p-22f);
  EXPECT_EQ(verdicts(plain),
            (std::map<std::string, Verdict>{
                {"f16 none", Verdict::fine}, {"f16 dynamic", Verdict::fine}, {"bf16 none", Verdict::fine}}));
  std::string reasons;
  for (const Prognosis& p : stressed.systems) reasons += p.reason + '\n';
  EXPECT_EQ(verdicts(stressed),
            (std::map<std::string, Verdict>{
                {"f16 none", Verdict::fails}, {"f16 dynamic", Verdict::fine}, {"bf16 none", Verdict::fine}}))
      << reasons;
  EXPECT_GT(plain.loss_scale.lowest, 0);
  EXPECT_EQ(stressed.loss_scale.lowest, plain.loss_scale.lowest * 0x1p22);
  EXPECT_EQ(stressed.loss_scale.highest, plain.loss_scale.highest * 0x1p22);
  EXPECT_EQ(plain.losses, stressed.losses);
}

TEST(Doctor, SeesUpdatesThatAreLostWithoutMasters) {
  const Task task;
  const Diagnosis found = task.diagnose({"bf16_pure:nearest", "bf16_pure:kahan", "bf16"}, 1, 2e-4f);
  const auto seen = verdicts(found);
  EXPECT_NE(seen.at("bf16_pure:nearest none"), Verdict::fine);
  EXPECT_EQ(seen.at("bf16_pure:kahan none"), Verdict::fine);
  EXPECT_EQ(seen.at("bf16 none"), Verdict::fine);
  EXPECT_LT(found.systems[0].fidelity.retained, 0.8);
  EXPECT_NEAR(found.systems[1].fidelity.retained, 1, 0.01);
  for (const WatchedTensor& tensor : found.tensors)
    if (std::string(tensor.role) == "update") {
      EXPECT_GT(tensor.lost_bf16, 0.3) << tensor.node;
      EXPECT_LT(tensor.lost_f16, tensor.lost_bf16) << tensor.node;
    }
}

TEST(Doctor, WatchesEveryLayerAndRole) {
  const Task task;
  const Diagnosis found = task.diagnose({"bf16"});
  std::set<std::string> seen;
  for (const WatchedTensor& tensor : found.tensors) {
    EXPECT_TRUE(seen.insert(tensor.node + " " + tensor.role).second);
    const auto in_it = [&](const auto& named) { return in_scope(named.name, tensor.node); };
    EXPECT_TRUE(std::ranges::any_of(task.graph->nodes, in_it) || std::ranges::any_of(task.graph->parameters, in_it))
        << tensor.node << ' ' << tensor.role << " is no scope for Precision::except";
    EXPECT_GT(tensor.exponents.numbers(), 0);
    EXPECT_EQ(tensor.exponents.nonfinite(), 0);
  }
  for (const char* layer : {"dense1", "dense2"})
    for (const char* role : {"activations", "weights", "weight_gradients", "update"})
      EXPECT_TRUE(seen.contains(std::string(layer) + " " + role)) << layer << ' ' << role;
  EXPECT_TRUE(seen.contains("dense2 activation_gradients"));
  EXPECT_EQ(found.suggested.size(), found.tensors.size());
  EXPECT_EQ(found.losses.size(), 80u);
}

TEST(Doctor, ItsSuggestionTrains) {
  const Task task;
  const Diagnosis found = task.diagnose({"bf16"});
  Trainer trainer(task.loss, {.device = cpu_device({.threads = 2}), .precision = found.suggestion.precision});
  trainer.epoch(task.train);
  EXPECT_LT(trainer.epoch(task.train).loss, 2);
  EXPECT_NE(found.suggestion.code.find("ht::Precision precision = ht::Precision::"), std::string::npos);
}

/// Neither a loss next to 0 nor one that never fell says that a number system fails.
TEST(Doctor, RehearsalsTellNothingFromNothing) {
  const auto verdict = [](double first, double f32, double own, double nonfinite = 0) {
    Prognosis p;
    p.precision = Precision::bf16();
    p.fidelity = {.arrives = 0.9, .nonfinite = nonfinite};
    p.rehearsal = rehearsal(first, f32, own);
    decide(p, {1, 1});
    return p.verdict;
  };
  EXPECT_EQ(verdict(2.3, 2.2990, 2.3005), Verdict::risky);
  EXPECT_EQ(verdict(2.3, 2.2990, 2.2960), Verdict::risky);
  EXPECT_EQ(verdict(2.3, 0.0005, 0.0025), Verdict::risky);
  EXPECT_EQ(verdict(2.3, 0, 0), Verdict::fine);
  EXPECT_EQ(verdict(2.3, 0.3, 0.3), Verdict::fine);
  EXPECT_EQ(verdict(2.3, 0.3, 2.2), Verdict::fails);
  EXPECT_EQ(verdict(2.3, 0.3, INFINITY), Verdict::fails);
  EXPECT_EQ(verdict(-1, -3, -2.9), Verdict::fine);
  EXPECT_EQ(verdict(-1, -3, -1), Verdict::fails);
}

TEST(Doctor, SaysThatStepsOverflow) {
  Prognosis p;
  p.fidelity = {.nonfinite = 0.125};
  decide(p, {1, 1});
  EXPECT_EQ(p.verdict, Verdict::risky);
  EXPECT_NE(p.reason.find("12.5 % of the steps overflow"), std::string::npos) << p.reason;
}

TEST(Doctor, HoldsOneNumberSystemAtATime) {
  const Task task;
  const auto peak = [&](const std::vector<std::string>& systems) {
    const Device device = cpu_device({.threads = 2});
    task.diagnose(systems, 1, 0.05f, device);
    return device.peak();
  };
  EXPECT_EQ(peak({"bf16", "bf16", "bf16", "bf16"}), peak({"bf16"}));
}

TEST(Doctor, RefusesWhatItCannotTell) {
  const Task task;
  EXPECT_THROW(task.diagnose({"binary"}), Error);
  EXPECT_THROW(task.diagnose({"bf16"}, 1, 1e30f), Error) << "f32 itself fails";
  DoctorOptions few;
  few.steps = 10;
  EXPECT_THROW(diagnose(task.loss, task.train, few), Error);
}

/// The example of docs/guide.md.
TEST(Doctor, TakesFewLines) {
  const Task task;
  const ht::Value loss = task.loss;
  const ht::Loader& train = task.train;
  std::ostringstream out;
  {
    const ht::Diagnosis found = ht::diagnose(
        loss, train,
        {.trainer = {.schedule = ht::Schedule::constant(0.05f)}, .steps = 80, .systems = {ht::Precision::f16()}});
    for (const ht::Prognosis& p : found.systems)
      out << p.precision.name << ": " << ht::name_of(p.verdict) << ", " << p.reason << '\n';
    out << found.loss_scale.lowest << " to " << found.loss_scale.highest << '\n' << found.suggestion.code;
  }
  EXPECT_EQ(out.str().rfind("f16: fine, ", 0), 0u) << out.str();
}

}  // namespace
}  // namespace halftone
