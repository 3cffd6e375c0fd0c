#pragma once

/// Over neighbouring lanes and over blocks.
namespace xdit::cuda {

/// Sum over each kLanes neighbouring lanes of a warp, the same in all of them. All lanes of the warp take
/// part.
template <int kLanes>
__device__ inline float sum_over(float x) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffU, x, offset);
  return x;
}

/// Sum over the block's threads, the same in all of them. A multiple of 32 threads, at most 1024.
__device__ inline float block_sum(float x) {
  __shared__ float partial[32];
  x = sum_over<32>(x);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  x = sum_over<32>(threadIdx.x % 32 < blockDim.x / 32 ? partial[threadIdx.x % 32] : 0.0F);
  __syncthreads();
  return x;
}

/// The largest in the block, the same in all its threads; likewise.
__device__ inline float block_max(float x) {
  __shared__ float partial[32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffU, x, offset));
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  x = partial[0];
  for (int i = 1; i < static_cast<int>(blockDim.x / 32); ++i) x = fmaxf(x, partial[i]);
  __syncthreads();
  return x;
}

}  // namespace xdit::cuda
