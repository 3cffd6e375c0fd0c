#pragma once
#include "cuda/kernels.h"

namespace xdit::cuda {

/// q and out [pictures, heads, tokens, head_dim], k and v [pictures, heads, keys, head_dim].
struct PromptAttention {
  /// A head's rows are contiguous; strides are multiples of 8 elements, `data` of 16 bytes.
  struct Operand {
    void* data;
    std::int64_t picture_stride, head_stride, token_stride;
  };
  Operand q, k, v, out;
  std::int64_t pictures, heads, tokens, keys, head_dim;
  float scale;
};
/// The keys and the width of a head that prompt_attention takes at most.
inline constexpr std::int64_t kMostPromptKeys = 80, kWidestPromptHead = 160;

/// out = softmax(q k^T scale) v in 16 bits, for keys so few that a block of threads holds all of a head's. A
/// query row's bits depend on no other row. head_dim is a multiple of 8.
cudaError_t prompt_attention(Type type, const PromptAttention& arguments, cudaStream_t stream);

}  // namespace xdit::cuda
