#include "halftone/inspect/watcher.hpp"

#include <algorithm>

namespace halftone {
namespace {

std::string parent(const std::string& name) { return name.substr(0, std::min(name.rfind('.'), name.size())); }

template <class Format>
bool is_lost(float weight, float update) {
  const float stored = Format::decode(Format::encode(weight));
  return Format::decode(Format::encode(stored + update)) == stored;
}

}  // namespace

Watcher::Watcher(const Trainer& trainer) : trainer_(trainer) {
  if (!trainer.options().keep_values) fail("Watcher: the trainer keeps no values (TrainerOptions::keep_values)");
  find_sources();
}

void Watcher::find_sources() {
  const Graph& graph = trainer_.plan().graph();
  graph_ = graph.identity();
  sources_.clear();
  for (const Node& node : graph->nodes) {
    if (node.op->is_view()) continue;
    for (const int id : node.outputs) {
      const ValueInfo& info = graph.info(id);
      if (info.spec.role == Role::input || info.spec.role == Role::exact) continue;
      if (info.store != Store::none && info.store != Store::gradients) continue;  // weights come below
      if (info.spec.storage.code != DType::f32) fail("Watcher: the trainer's precision must be f32");
      const bool of_layer = info.spec.role == Role::activation_gradient || info.spec.role == Role::weight_gradient;
      const std::string layer = of_layer ? parent(node.name) : node.name;
      sources_.push_back({id, tensor_of(layer, name_of(info.spec.role))});
    }
  }
  for (const ParameterInfo& parameter : graph->parameters)
    if (parameter.trainable) sources_.push_back({parameter.value, tensor_of(parent(parameter.name), "weights")});
}

std::size_t Watcher::tensor_of(const std::string& node, const char* role) {
  const auto [known, is_new] = known_.try_emplace({node, role}, tensors_.size());
  if (is_new) tensors_.push_back({node, role});
  return known->second;
}

void Watcher::begin() {
  before_.clear();
  for (const ParameterSlot& slot : trainer_.parameters().entries)
    before_.push_back(trainer_.parameters().truth(slot).read());
}

void Watcher::look() {
  if (trainer_.plan().graph().identity() != graph_) find_sources();
  for (const auto& [value, tensor] : sources_) {
    const TensorView view = trainer_.plan().view(value);
    numbers_.resize(std::max(numbers_.size(), static_cast<std::size_t>(view.spec.shape.elements())));
    const auto numbers = std::span(numbers_).first(static_cast<std::size_t>(view.spec.shape.elements()));
    view.read_into(numbers);
    tensors_[tensor].exponents.add(numbers);
  }
  const auto& slots = trainer_.parameters().entries;
  for (std::size_t i = 0; i < before_.size(); ++i)
    if (slots[i].trainable) look_at_update(slots[i], tensor_of(parent(slots[i].name), "update"), before_[i]);
}

void Watcher::look_at_update(const ParameterSlot& slot, std::size_t tensor, const std::vector<float>& before) {
  std::vector<float> update = trainer_.parameters().truth(slot).read();
  for (std::size_t i = 0; i < update.size(); ++i) update[i] -= before[i];
  Updates& seen = updates_[tensor];
  const std::size_t stride = update.size() / 16384 + 1;  // so many are enough for a share
  for (std::size_t i = 0; i < update.size(); i += stride) {
    if (update[i] == 0) continue;
    ++seen.moved;
    seen.lost_bf16 += is_lost<BF16>(before[i], update[i]);
    seen.lost_f16 += is_lost<F16>(before[i], update[i]);
  }
  tensors_[tensor].exponents.add(update);
  const auto moved = static_cast<double>(std::max<std::int64_t>(seen.moved, 1));
  tensors_[tensor].lost_bf16 = static_cast<double>(seen.lost_bf16) / moved;
  tensors_[tensor].lost_f16 = static_cast<double>(seen.lost_f16) / moved;
}

std::vector<WatchedTensor> Watcher::tensors() const { return tensors_; }

}  // namespace halftone
