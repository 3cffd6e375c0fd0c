#include "nn/cudnn_attention.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cudnn/Handle.h>
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>

#include <array>
#include <bit>
#include <string>
#include <unordered_map>

#include "core/error.h"
#include "nn/counters.h"

namespace xdit::nn::cudnn {
namespace {

namespace graphs = cudnn_frontend::graph;

enum Operand : std::int64_t { kQuery = 1, kKey, kValue, kOut };

constexpr std::int64_t kStep = 8;  // elements of 16 bytes

bool takes(const at::Tensor& x) {
  return x.element_size() == 2 && x.size(3) <= widest_head() && x.size(3) % kStep == 0 && rows_are_aligned(x);
}

}  // namespace

bool rows_are_aligned(const at::Tensor& x) {
  bool are = x.stride(3) == 1 && reinterpret_cast<std::uintptr_t>(x.const_data_ptr()) % 16 == 0;
  for (int i = 0; i < 3; ++i) are = are && (x.size(i) == 1 || x.stride(i) % kStep == 0);
  return are;
}

std::int64_t widest_head() {
  constexpr int kHopper = 9;
  return at::cuda::getCurrentDeviceProperties()->major == kHopper ? 256 : 128;
}

struct Attentions::Built {
  graphs::Graph graph;
  std::int64_t workspace_bytes = 0;
};

Attentions::Attentions() = default;
Attentions::~Attentions() = default;

bool Attentions::operator()(const at::Tensor& out, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, double scale) {
  const std::array<std::pair<Operand, const at::Tensor*>, 4> tensors{
      {{kQuery, &q}, {kKey, &k}, {kValue, &v}, {kOut, &out}}};
  Key key{static_cast<std::int64_t>(q.scalar_type()), std::bit_cast<std::int64_t>(scale)};
  for (const auto& [id, x] : tensors) {
    if (!takes(*x)) return false;
    key.insert(key.end(), x->sizes().begin(), x->sizes().end());
    key.insert(key.end(), x->strides().begin(), x->strides().end());
  }
  // A single query is another kernel's, whose sum depends on the number of heads.
  if (q.size(2) < 2 || k.size(2) < 2 || !at::globalContext().userEnabledCuDNNSDP()) return false;
  const cudnnHandle_t handle = at::native::getCudnnHandle();
  const auto [found, fresh] = built_.try_emplace(key);
  if (fresh) {
    auto built = std::make_unique<Built>();
    const auto type = q.scalar_type() == at::kHalf ? cudnn_frontend::DataType_t::HALF
                                                   : cudnn_frontend::DataType_t::BFLOAT16;
    built->graph.set_io_data_type(type)
        .set_intermediate_data_type(cudnn_frontend::DataType_t::FLOAT)
        .set_compute_data_type(cudnn_frontend::DataType_t::FLOAT);
    const auto describe = [&](Operand id, const at::Tensor& x) {
      return graphs::Tensor_attributes().set_uid(id).set_dim(x.sizes().vec()).set_stride(x.strides().vec());
    };
    const auto input = [&](Operand id, const at::Tensor& x) { return built->graph.tensor(describe(id, x)); };
    const auto outputs = built->graph.sdpa(input(kQuery, q), input(kKey, k), input(kValue, v),
                                           graphs::SDPA_attributes()
                                               .set_name("attention")
                                               .set_generate_stats(false)
                                               .set_attn_scale(static_cast<float>(scale)));
    outputs[0]->set_output(true).set_uid(kOut).set_dim(out.sizes().vec()).set_stride(out.strides().vec());
    if (built->graph.build(handle, {cudnn_frontend::HeurMode_t::A}).is_good() &&
        built->graph.get_workspace_size(built->workspace_bytes).is_good())
      found->second = std::move(built);
  }
  if (!found->second) return false;
  std::unordered_map<std::int64_t, void*> pointers;
  for (const auto& [id, x] : tensors) pointers[id] = x->data_ptr();
  const at::Tensor memory = workspace(found->second->workspace_bytes, q.device());
  auto status = found->second->graph.execute(handle, pointers, memory.data_ptr());
  if (status.is_bad()) throw Error(ExitCode::kInternal, status.get_message(), "cudnn");
  return true;
}

}  // namespace xdit::nn::cudnn
