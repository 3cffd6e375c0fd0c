#include "nn/fused.h"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>

#include "core/error.h"
#include "cuda/kernels.h"

namespace xdit::nn::fused {
namespace {

cuda::Type type_of(const at::Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat:
      return cuda::Type::kF32;
    case at::kHalf:
      return cuda::Type::kF16;
    case at::kBFloat16:
      return cuda::Type::kBF16;
    default:
      broken_invariant("the tensor is float32, float16 or bfloat16", __FILE__, __LINE__);
  }
}

cudaStream_t stream_of(const at::Tensor& x) {
  return at::cuda::getCurrentCUDAStream(x.get_device());
}

}  // namespace

at::Tensor modulated_layer_norm(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                                double eps) {
  XDIT_ASSERT(x.dim() == 2 && x.stride(1) == 1 && shift.is_contiguous() && scale.is_contiguous());
  XDIT_ASSERT(shift.scalar_type() == x.scalar_type() && scale.scalar_type() == x.scalar_type());
  at::Tensor y = at::empty({x.size(0), x.size(1)}, x.options());
  C10_CUDA_CHECK(cuda::modulated_layer_norm(
      type_of(x), x.const_data_ptr(), x.stride(0), shift.const_data_ptr(), scale.const_data_ptr(),
      y.mutable_data_ptr(), x.size(0), x.size(1), static_cast<float>(eps), stream_of(x)));
  return y;
}

void add_gated(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& y) {
  XDIT_ASSERT(x.dim() == 2 && x.stride(1) == 1 && y.sizes() == x.sizes() && y.stride(1) == 1);
  XDIT_ASSERT(gate.is_contiguous() && gate.scalar_type() == x.scalar_type() &&
              y.scalar_type() == x.scalar_type());
  C10_CUDA_CHECK(cuda::add_gated(type_of(x), x.mutable_data_ptr(), x.stride(0), gate.const_data_ptr(),
                                 y.const_data_ptr(), y.stride(0), x.size(0), x.size(1), stream_of(x)));
}

void norm_and_rotate(const Stream& stream, const at::Tensor& rotary, const at::Tensor& q, const at::Tensor& k,
                     const at::Tensor& v, double eps) {
  const at::Tensor& qkv = stream.qkv;
  XDIT_ASSERT(qkv.dim() == 4 && qkv.stride(3) == 1 && qkv.stride(2) == qkv.size(3) &&
              qkv.stride(1) == qkv.size(2) * qkv.size(3));
  XDIT_ASSERT(q.is_contiguous() && k.is_contiguous() && v.is_contiguous() && rotary.is_contiguous());
  XDIT_ASSERT(rotary.scalar_type() == at::kFloat && rotary.size(0) == qkv.size(0) && qkv.size(3) % 2 == 0);
  const cuda::NormAndRotate arguments{.qkv = qkv.const_data_ptr(),
                                      .token_stride = qkv.stride(0),
                                      .query_norm = stream.query_norm.const_data_ptr(),
                                      .key_norm = stream.key_norm.const_data_ptr(),
                                      .rotary = rotary.const_data_ptr<float>(),
                                      .q = q.mutable_data_ptr(),
                                      .k = k.mutable_data_ptr(),
                                      .v = v.mutable_data_ptr(),
                                      .tokens = qkv.size(0),
                                      .heads = qkv.size(2),
                                      .head_dim = qkv.size(3),
                                      .eps = static_cast<float>(eps)};
  C10_CUDA_CHECK(cuda::norm_and_rotate(type_of(qkv), arguments, stream_of(qkv)));
}

}  // namespace xdit::nn::fused
