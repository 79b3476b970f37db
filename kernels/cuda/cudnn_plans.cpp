#include <fmt/format.h>

#include <map>
#include <mutex>
#include <nlohmann/json.hpp>

#include "kernels/cuda/cudnn_library.hpp"

namespace halftone::cuda {
namespace {

using Int = std::int64_t;

Descriptor device_of(cudnnBackendAttributeName_t attribute, const auto& value) {
  Descriptor device(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, "a device's properties");
  device.set(attribute, value).finalize();
  return device;
}

cudnnDataType_t data_type(DType code) {
  return code == DType::f32 ? CUDNN_DATA_FLOAT : code == DType::f16 ? CUDNN_DATA_HALF : CUDNN_DATA_BFLOAT16;
}

/// Extents are named in the order n, c, h, w wherever they lie; that channels lie innermost is said by the strides.
/// A virtual tensor is in no memory.
Descriptor tensor(Int id, cudnnDataType_t type, Int n, Int c, Int h, Int w, bool is_virtual = false) {
  Descriptor result(CUDNN_BACKEND_TENSOR_DESCRIPTOR, "a tensor");
  result.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, id)
      .set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, is_virtual)
      .set(CUDNN_ATTR_TENSOR_DATA_TYPE, type)
      .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, tensor_alignment)
      .set(CUDNN_ATTR_TENSOR_DIMENSIONS, Ints{n, c, h, w})
      .set(CUDNN_ATTR_TENSOR_STRIDES, Ints{h * w * c, 1, w * c, c})
      .finalize();
  return result;
}

/// Zeros behind the end such that there are `outputs`: as many as before the beginning where that gives them.
Int padding_behind(Int inputs, Int outputs, Int window, Int stride, Int dilation, Int before) {
  const Int extent = dilation * (window - 1) + 1;
  if (inputs + 2 * before >= extent && (inputs + 2 * before - extent) / stride + 1 == outputs) return before;
  return (outputs - 1) * stride + extent - inputs - before;
}

struct OperationNames {
  cudnnBackendDescriptorType_t type;
  cudnnBackendAttributeName_t x, weight, y, convolution, alpha, beta;
};

OperationNames names_of(Direction direction) {
  switch (direction) {
    case Direction::forward:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
    case Direction::d_input:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
    case Direction::d_weight:
      break;
  }
  return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
}

Descriptor pointwise(cudnnPointwiseMode_t mode) {
  Descriptor result(CUDNN_BACKEND_POINTWISE_DESCRIPTOR, "a pointwise operation's attributes");
  result.set(CUDNN_ATTR_POINTWISE_MODE, mode).set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT);
  if (mode == CUDNN_POINTWISE_RELU_FWD) result.set(CUDNN_ATTR_POINTWISE_NAN_PROPAGATION, CUDNN_PROPAGATE_NAN);
  result.finalize();
  return result;
}

Descriptor graph_of(const Convolution& convolution) {
  const ConvProblem& p = convolution.problem;
  const cudnnDataType_t type = data_type(convolution.operands.output.storage.code);
  Descriptor attributes(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, "a convolution's attributes");
  attributes.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT)
      .set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_CROSS_CORRELATION)
      .set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, Int{2})
      .set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, Ints{p.pad_h, p.pad_w})
      .set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, Ints{padding_behind(p.h, p.p, p.r, p.stride_h, p.dilation_h, p.pad_h),
                                                      padding_behind(p.w, p.q, p.s, p.stride_w, p.dilation_w, p.pad_w)})
      .set(CUDNN_ATTR_CONVOLUTION_DILATIONS, Ints{p.dilation_h, p.dilation_w})
      .set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, Ints{p.stride_h, p.stride_w})
      .finalize();
  // Results go on in f32 to the bias and the activation, where there are any.
  const bool has_bias = convolution.operands.inputs.size() > 2, has_activation = convolution.activation.has_value();
  const auto result = [&](TensorId id) {
    return tensor(id, id == tensor_y ? type : CUDNN_DATA_FLOAT, p.n, p.k, p.p, p.q, id != tensor_y);
  };
  const TensorId products = has_bias || has_activation ? tensor_products : tensor_y;
  const TensorId sums = !has_bias ? products : has_activation ? tensor_sums : tensor_y;
  std::vector<Descriptor> operations;
  const OperationNames names = names_of(convolution.direction);
  operations.emplace_back(names.type, "a convolution")
      .set(names.x, tensor(tensor_x, type, p.n, p.c, p.h, p.w))
      .set(names.weight, tensor(tensor_weight, type, p.k, p.c / p.groups, p.r, p.s))  // it tells the groups
      .set(names.y, result(products))
      .set(names.convolution, attributes)
      .set(names.alpha, 1.0f)
      .set(names.beta, 0.0f)
      .finalize();
  if (has_bias) {
    const cudnnDataType_t stored = data_type(convolution.operands.inputs[2].storage.code);
    operations.emplace_back(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, "a bias")
        .set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, pointwise(CUDNN_POINTWISE_ADD))
        .set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, result(products))
        .set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, tensor(tensor_bias, stored, 1, p.k, 1, 1))
        .set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, result(sums))
        .finalize();
  }
  if (has_activation) {
    operations.emplace_back(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, "an activation")
        .set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, pointwise(CUDNN_POINTWISE_RELU_FWD))
        .set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, result(sums))
        .set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, result(tensor_y))
        .finalize();
  }
  std::vector<cudnnBackendDescriptor_t> raw;
  for (const Descriptor& operation : operations) raw.push_back(operation.raw());
  Descriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, "a graph");
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, raw.size(), raw.data()).finalize();
  return graph;
}

std::vector<Descriptor> proposed(const Descriptor& graph, const Descriptor& device, cudnnBackendHeurMode_t mode) {
  Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, "the heuristics");
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph)
      .set(CUDNN_ATTR_ENGINEHEUR_MODE, mode)
      .set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, device)
      .finalize();
  const std::size_t most =
      heuristics.get(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, nullptr);  // or fewer
  return heuristics.list(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, "an engine's configuration",
                         most);
}

Descriptor engine_of(const Descriptor& config) {
  auto engines = config.list(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR, "an engine", 1);
  if (engines.empty()) throw Failure("cuDNN: an engine's configuration names no engine");
  return std::move(engines[0]);
}

template <class... Notes>
bool has_numerical_note(const Descriptor& engine, Notes... notes) {
  return engine.has<cudnnBackendNumericalNote_t, CUDNN_NUMERICAL_NOTE_TYPE_COUNT>(
      CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, {notes...});
}

/// Whether its results are what this library promises, by its own notes. Transforms would round numbers in between.
/// Sums that may be of reduced precision are for `Agreement` to see.
bool keeps_promises(const Descriptor& engine) {
  return !has_numerical_note(engine, CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC,
                             CUDNN_NUMERICAL_NOTE_WINOGRAD, CUDNN_NUMERICAL_NOTE_FFT) &&
         !engine.has<cudnnBackendBehaviorNote_t, CUDNN_BEHAVIOR_NOTE_TYPE_COUNT>(
             CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE, {CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION});
}

Descriptor execution_plan(const Descriptor& config, const Descriptor& device) {
  Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, "a plan");
  plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config)
      .set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, device)
      .finalize();
  return plan;
}

ConvolutionPlan numbers_of(const Descriptor& config, const Descriptor& engine, const Descriptor& plan) {
  ConvolutionPlan numbers;
  numbers.engine = engine.number(CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
  numbers.tensor_cores = has_numerical_note(engine, CUDNN_NUMERICAL_NOTE_TENSOR_CORE);
  numbers.workspace = static_cast<std::size_t>(std::max<Int>(plan.number(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE), 0));
  // Asked how many there are, it says none.
  for (const Descriptor& knob : config.list(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR,
                                            "a knob", CUDNN_KNOB_TYPE_COUNTS)) {
    cudnnBackendKnobType_t type{};
    knob.get(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &type);
    numbers.knobs.emplace_back(static_cast<int>(type), knob.number(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE));
  }
  return numbers;
}

Descriptor config_of(const ConvolutionPlan& numbers, const Descriptor& graph, const Descriptor& device) {
  Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR, "an engine");
  engine.set(CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph)
      .set(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, numbers.engine)
      .set(CUDNN_ATTR_ENGINE_DEVICEPROP, device)
      .finalize();
  std::vector<Descriptor> knobs;
  std::vector<cudnnBackendDescriptor_t> raw;
  for (const auto& [type, value] : numbers.knobs) {
    Descriptor& knob = knobs.emplace_back(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, "a knob");
    knob.set(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, static_cast<cudnnBackendKnobType_t>(type))
        .set(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, value)
        .finalize();
    raw.push_back(knob.raw());
  }
  Descriptor config(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, "an engine's configuration");
  config.set(CUDNN_ATTR_ENGINECFG_ENGINE, engine);
  if (!raw.empty())
    config.set(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, raw.size(), raw.data());
  config.finalize();
  return config;
}

}  // namespace

std::string cudnn_device_text(int ordinal) {
  return device_of(CUDNN_ATTR_DEVICEPROP_DEVICE_ID, std::int32_t{ordinal})
      .text(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION);
}

struct ConvolutionPlans::Impl {
  Impl(Descriptor the_device, CudnnOptions the_options)
      : device(std::move(the_device)),
        options(std::move(the_options)),
        text(device.text(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION)) {}

  Descriptor device;
  CudnnOptions options;
  std::string text;
  mutable std::mutex mutex;
  mutable std::map<std::string, std::vector<ConvolutionPlan>> known = {};  ///< by description

  bool allows(const ConvolutionPlan& plan, const Convolution& convolution) const {
    const bool f32 = convolution.operands.output.storage.code == DType::f32;
    return plan.workspace <= options.workspace && (options.tf32 || !f32 || !plan.tensor_cores);
  }

  std::vector<ConvolutionPlan> ask(const Convolution& convolution) const {
    const Descriptor graph = graph_of(convolution);
    std::vector<ConvolutionPlan> plans;
    for (const cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
      for (const Descriptor& config : proposed(graph, device, mode)) {
        const Descriptor engine = engine_of(config);
        if (!keeps_promises(engine)) continue;
        try {
          ConvolutionPlan plan = numbers_of(config, engine, execution_plan(config, device));
          if (allows(plan, convolution)) plans.push_back(std::move(plan));
        } catch (const Failure&) {  // what heuristics propose need not be possible
        }
      }
      if (!plans.empty()) break;
    }
    return plans;
  }
};

ConvolutionPlans::ConvolutionPlans(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

ConvolutionPlans::ConvolutionPlans(const std::string& device_text, CudnnOptions options)
    : ConvolutionPlans(std::make_unique<Impl>(
          doing("the description of a device",
                [&] { return device_of(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, device_text); }),
          std::move(options))) {}

ConvolutionPlans ConvolutionPlans::of_handle(void* handle, CudnnOptions options) {
  return ConvolutionPlans(std::make_unique<Impl>(
      device_of(CUDNN_ATTR_DEVICEPROP_HANDLE, static_cast<cudnnHandle_t>(handle)), std::move(options)));
}

ConvolutionPlans::ConvolutionPlans(ConvolutionPlans&&) noexcept = default;
ConvolutionPlans::~ConvolutionPlans() = default;

const std::string& ConvolutionPlans::device_text() const { return impl_->text; }
const CudnnOptions& ConvolutionPlans::options() const { return impl_->options; }

std::string ConvolutionPlans::name() const {
  const auto properties = nlohmann::json::parse(impl_->text);  // cuDNN's own
  return fmt::format("cuDNN {}, {}", cudnn_version(), properties.at("deviceName").get<std::string>());
}

std::vector<ConvolutionPlan> ConvolutionPlans::allowed(const Convolution& convolution) const {
  if (const std::string reason = decline_storages(convolution); !reason.empty()) fail("cuDNN: " + reason);
  const std::string description = description_of(convolution);
  const std::lock_guard lock(impl_->mutex);
  const auto found = impl_->known.find(description);
  if (found != impl_->known.end()) return found->second;
  auto plans = doing(description, [&] { return impl_->ask(convolution); });
  return impl_->known.emplace(description, std::move(plans)).first->second;
}

ConvolutionPlan ConvolutionPlans::rebuilt(const Convolution& convolution, const ConvolutionPlan& plan) const {
  return doing(description_of(convolution), [&] {
    const std::lock_guard lock(impl_->mutex);
    const Descriptor graph = graph_of(convolution), config = config_of(plan, graph, impl_->device);
    return numbers_of(config, engine_of(config), execution_plan(config, impl_->device));
  });
}

Descriptor execution_plan(const ConvolutionPlans& plans, const Convolution& convolution, const ConvolutionPlan& plan) {
  const Descriptor& device = plans.impl_->device;
  return execution_plan(config_of(plan, graph_of(convolution), device), device);
}

}  // namespace halftone::cuda
