#include "nn/cudnn_convolution.h"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/Sleep.h>
#include <ATen/cudnn/Handle.h>
#include <ATen/cuda/CUDAGraphsUtils.cuh>
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend_ExecutionPlan.h>
#include <cudnn_frontend_Heuristics.h>
#include <cudnn_frontend_VariantPack.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <utility>

#include "core/error.h"
#include "nn/counters.h"

namespace xdit::nn::cudnn {
namespace {

namespace fe = cudnn_frontend;
using Sizes = std::array<std::int64_t, 4>;  // [N, C, H, W]

enum Id : std::int64_t { kX = 1, kWeight, kBias, kPicture, kY, kConvolved, kWithBias };

cudnnDataType_t data_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return CUDNN_DATA_FLOAT;
    case at::kHalf:
      return CUDNN_DATA_HALF;
    case at::kBFloat16:
      return CUDNN_DATA_BFLOAT16;
    default:
      broken_invariant("the picture is float32, float16 or bfloat16", __FILE__, __LINE__);
  }
}

// Channels-last; a virtual tensor is an intermediate value, in float32.
fe::Tensor_v8 tensor(Id id, const Sizes& sizes, at::ScalarType type, bool is_virtual = false) {
  const auto [n, c, h, w] = sizes;
  const Sizes strides{h * w * c, 1, w * c, c};
  return fe::TensorBuilder_v8()
      .setDim(4, sizes.data())
      .setStride(4, strides.data())
      .setId(id)
      .setAlignment(16)
      .setDataType(is_virtual ? CUDNN_DATA_FLOAT : data_type(type))
      .setVirtual(is_virtual)
      .build();
}

// x * weight, + bias, + picture, rounded once.
fe::OperationGraph_v8 graph_of(const Shape& shape, const Extent& extent) {
  const std::array<std::int64_t, 2> padding{0, shape.kernel / 2}, ones{1, 1},
      strides{shape.stride, shape.stride};
  const fe::ConvDesc_v8 convolution = fe::ConvDescBuilder_v8()
                                          .setComputeType(CUDNN_DATA_FLOAT)
                                          .setMathMode(CUDNN_CROSS_CORRELATION)
                                          .setSpatialDimCount(2)
                                          .setSpatialStride(2, strides.data())
                                          .setPrePadding(2, padding.data())
                                          .setPostPadding(2, padding.data())
                                          .setDilation(2, ones.data())
                                          .build();
  const auto [rows, pictures] = extent;
  const Sizes result{pictures, shape.outputs, rows, shape.output_columns()};
  const bool bias = shape.epilogue != Epilogue::kNone, picture = shape.epilogue == Epilogue::kBiasAndPicture;
  fe::Tensor_v8 sum = tensor(bias ? kConvolved : kY, result, shape.result, bias);
  std::vector<fe::Operation_v8> operations;
  operations.push_back(
      fe::OperationBuilder_v8(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR)
          .setxDesc(tensor(kX, {pictures, shape.inputs, shape.input_rows(rows), shape.columns}, shape.type))
          .setwDesc(tensor(kWeight, {shape.outputs, shape.inputs, shape.kernel, shape.kernel}, shape.type))
          .setyDesc(sum)
          .setcDesc(convolution)
          .setAlpha(1.0F)
          .setBeta(0.0F)
          .build());
  const auto add = [&](const fe::Tensor_v8& term, fe::Tensor_v8 to) {
    const fe::PointWiseDesc_v8 addition =
        fe::PointWiseDescBuilder_v8().setMode(CUDNN_POINTWISE_ADD).setComputeType(CUDNN_DATA_FLOAT).build();
    operations.push_back(fe::OperationBuilder_v8(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)
                             .setxDesc(sum)
                             .setbDesc(term)
                             .setyDesc(to)
                             .setpwDesc(addition)
                             .build());
    sum = std::move(to);
  };
  if (bias)
    add(tensor(kBias, {1, shape.outputs, 1, 1}, shape.result),
        tensor(picture ? kWithBias : kY, result, shape.result, picture));
  if (picture) add(tensor(kPicture, result, shape.result), tensor(kY, result, shape.result));
  return fe::OperationGraphBuilder_v8()
      .setHandle(at::native::getCudnnHandle())
      .setOperationGraph(operations)
      .build();
}

void require(cudnnStatus_t status, const char* what) {
  if (status != CUDNN_STATUS_SUCCESS) throw fe::cudnnException(what, status);
}

// The configuration of that name: "eng62_k24=17_k25=1".
fe::ManagedOpaqueDescriptor config_of(const fe::OperationGraph_v8& graph, const std::string& name) {
  long long index = 0, knob = 0, value = 0;
  int at = 0, read = 0;
  if (std::sscanf(name.c_str(), "eng%lld%n", &index, &at) != 1)
    throw fe::cudnnException("not a plan's name", CUDNN_STATUS_BAD_PARAM);
  const fe::Engine_v8 engine =
      fe::EngineBuilder_v8().setGlobalEngineIdx(index).setOperationGraph(graph).build();
  std::vector<fe::ManagedOpaqueDescriptor> choices;
  std::vector<cudnnBackendDescriptor_t> pointers;
  for (; std::sscanf(name.c_str() + at, "_k%lld=%lld%n", &knob, &value, &read) == 2; at += read) {
    choices.push_back(fe::make_shared_backend_pointer(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR));
    const cudnnBackendDescriptor_t choice = pointers.emplace_back(choices.back()->get_backend_descriptor());
    const auto type = static_cast<cudnnBackendKnobType_t>(knob);
    const std::int64_t setting = value;
    require(
        cudnnBackendSetAttribute(choice, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &type),
        "knob");
    require(
        cudnnBackendSetAttribute(choice, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &setting),
        "value of a knob");
    require(cudnnBackendFinalize(choice), "choice of a knob");
  }
  fe::ManagedOpaqueDescriptor config = fe::make_shared_backend_pointer(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  const cudnnBackendDescriptor_t to = config->get_backend_descriptor();
  const cudnnBackendDescriptor_t from = engine.get_desc()->get_backend_descriptor();
  require(cudnnBackendSetAttribute(to, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &from),
          "engine");
  require(cudnnBackendSetAttribute(to, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                   static_cast<std::int64_t>(pointers.size()), pointers.data()),
          "knobs");
  require(cudnnBackendFinalize(to), "engine with these knobs");
  return config;
}

}  // namespace

std::vector<std::string> plan_names(const Shape& shape, const Extent& extent) {
  std::vector<std::string> names;
  try {
    fe::OperationGraph_v8 graph = graph_of(shape, extent);
    for (const cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
      fe::EngineHeuristics_v8 heuristics =
          fe::EngineHeuristicsBuilder_v8().setOperationGraph(graph).setHeurMode(mode).build();
      for (const auto& config : heuristics.getEngineConfig(heuristics.getEngineConfigCount()))
        names.push_back(fe::detail::get_engine_tag(config));
    }
  } catch (const fe::cudnnException&) {  // it has none for such a shape
  }
  return names;
}

struct Plan::Built {
  Shape shape;
  Extent extent;
  fe::ExecutionPlan_v8 plan;
};

Plan::Plan(std::unique_ptr<Built> built) : built_(std::move(built)) {}
Plan::~Plan() = default;

std::int64_t Plan::workspace_bytes() const {
  return built_->plan.getWorkspaceSize();
}

std::unique_ptr<Plan> Plan::build(const Shape& shape, const Extent& extent, const std::string& name,
                                  std::string* why) {
  try {
    const fe::OperationGraph_v8 graph = graph_of(shape, extent);
    fe::ExecutionPlan_v8 plan = fe::ExecutionPlanBuilder_v8()
                                    .setHandle(at::native::getCudnnHandle())
                                    .setEngineConfig(config_of(graph, name), graph.getTag())
                                    .build();
    return std::unique_ptr<Plan>(new Plan(std::make_unique<Built>(Built{shape, extent, std::move(plan)})));
  } catch (const fe::cudnnException& error) {
    if (why != nullptr) *why = error.what();
    return nullptr;
  }
}

void Plan::operator()(const Arguments& arguments) const {
  const auto& [y, x, weight, bias, picture] = arguments;
  const auto& [shape, extent, plan] = *built_;
  const auto [rows, pictures] = extent;
  const auto channels_last = at::MemoryFormat::ChannelsLast;
  XDIT_ASSERT(x.sizes() == at::IntArrayRef({pictures, shape.inputs, shape.input_rows(rows), shape.columns}));
  XDIT_ASSERT(x.scalar_type() == shape.type && x.is_contiguous(channels_last));
  XDIT_ASSERT(weight.scalar_type() == shape.type && weight.is_contiguous(channels_last));
  XDIT_ASSERT(y.sizes() == at::IntArrayRef({pictures, shape.outputs, rows, shape.output_columns()}));
  XDIT_ASSERT(y.scalar_type() == shape.result && y.is_contiguous(channels_last));
  std::vector<std::int64_t> ids{kX, kWeight, kY};
  std::vector<void*> pointers{x.data_ptr(), weight.data_ptr(), y.data_ptr()};
  if (shape.epilogue != Epilogue::kNone) {
    XDIT_ASSERT(bias.numel() == shape.outputs && bias.is_contiguous());
    ids.push_back(kBias);
    pointers.push_back(bias.data_ptr());
  }
  if (shape.epilogue == Epilogue::kBiasAndPicture) {
    XDIT_ASSERT(picture.sizes() == y.sizes() && picture.is_contiguous(channels_last));
    ids.push_back(kPicture);
    pointers.push_back(picture.data_ptr());
  }
  const at::Tensor memory = workspace(workspace_bytes(), x.device());
  const fe::VariantPack_v8 pack =
      fe::VariantPackBuilder_v8()
          .setDataPointers(static_cast<std::int64_t>(pointers.size()), pointers.data())
          .setUids(static_cast<std::int64_t>(ids.size()), ids.data())
          .setWorkspacePointer(memory.data_ptr())
          .build();
  const cudnnStatus_t status =
      cudnnBackendExecute(at::native::getCudnnHandle(), plan.get_raw_desc(), pack.get_raw_desc());
  if (status != CUDNN_STATUS_SUCCESS) throw Error(ExitCode::kInternal, cudnnGetErrorString(status), "cudnn");
}

bool is_faster(const Plan& a, const Plan& b, const Arguments& arguments) {
  if (at::cuda::currentStreamCaptureStatusMayInitCtx() != at::cuda::CaptureStatus::None) return false;
  constexpr std::int64_t kCycles = 1'000'000;  // while they are launched the GPU waits
  constexpr int kRuns = 5, kRounds = 2;
  const auto milliseconds = [&](const Plan& plan) {
    at::cuda::CUDAEvent begin(cudaEventDefault), end(cudaEventDefault);
    plan(arguments);
    at::cuda::sleep(kCycles);
    begin.record();
    for (int i = 0; i < kRuns; ++i) plan(arguments);
    end.record();
    end.synchronize();
    return begin.elapsed_time(end);
  };
  std::array<float, 2> least{INFINITY, INFINITY};  // of rounds that nothing held up
  for (int round = 0; round < kRounds; ++round) {
    least[0] = std::min(least[0], milliseconds(a));
    least[1] = std::min(least[1], milliseconds(b));
  }
  return least[0] < least[1];
}

}  // namespace xdit::nn::cudnn
