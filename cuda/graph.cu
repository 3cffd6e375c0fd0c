#include <cstdint>
#include <vector>

#include "cuda/kernels.h"

namespace xdit::cuda {
namespace {

constexpr std::size_t kSmall = 1U << 16U;  // bytes
constexpr unsigned kThreads = 256;

template <class T>
__global__ void fill_kernel(T* to, unsigned value, std::size_t count) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) to[i] = static_cast<T>(value);
}

void* kernel_of(unsigned element_bytes) {
  switch (element_bytes) {
    case 1:
      return reinterpret_cast<void*>(fill_kernel<std::uint8_t>);
    case 2:
      return reinterpret_cast<void*>(fill_kernel<std::uint16_t>);
    default:
      return reinterpret_cast<void*>(fill_kernel<std::uint32_t>);
  }
}

// The nodes at the other ends of a node's edges.
template <class F>
cudaError_t neighbours(F&& get, std::vector<cudaGraphNode_t>& nodes) {
  std::size_t count = 0;
  cudaError_t error = get(nullptr, nullptr, &count);
  if (error != cudaSuccess || count == 0) return error;
  nodes.resize(count);
  std::vector<cudaGraphEdgeData> edges(count);
  return get(nodes.data(), edges.data(), &count);
}

cudaError_t replace(cudaGraph_t graph, cudaGraphNode_t fill, const cudaMemsetParams& of) {
  std::vector<cudaGraphNode_t> before, after;
  cudaError_t error =
      neighbours([&](auto... to) { return cudaGraphNodeGetDependencies(fill, to...); }, before);
  if (error == cudaSuccess)
    error = neighbours([&](auto... to) { return cudaGraphNodeGetDependentNodes(fill, to...); }, after);
  if (error != cudaSuccess) return error;
  void* to = of.dst;
  unsigned value = of.value;
  std::size_t count = of.width;
  void* arguments[] = {&to, &value, &count};
  cudaKernelNodeParams launch{};
  launch.func = kernel_of(of.elementSize);
  launch.gridDim = dim3(static_cast<unsigned>((count + kThreads - 1) / kThreads));
  launch.blockDim = dim3(kThreads);
  launch.kernelParams = arguments;
  cudaGraphNode_t kernel = nullptr;
  error = cudaGraphAddKernelNode(&kernel, graph, before.data(), before.size(), &launch);
  if (error != cudaSuccess) return error;
  const std::vector<cudaGraphNode_t> from(after.size(), kernel);
  if (!after.empty())
    error = cudaGraphAddDependencies(graph, from.data(), after.data(), nullptr, after.size());
  return error == cudaSuccess ? cudaGraphDestroyNode(fill) : error;
}

}  // namespace

cudaError_t fill_by_kernels(cudaGraph_t graph) {
  std::size_t count = 0;
  cudaError_t error = cudaGraphGetNodes(graph, nullptr, &count);
  if (error != cudaSuccess) return error;
  std::vector<cudaGraphNode_t> nodes(count);
  error = cudaGraphGetNodes(graph, nodes.data(), &count);
  for (const cudaGraphNode_t node : nodes) {
    if (error != cudaSuccess) return error;
    cudaGraphNodeType type{};
    error = cudaGraphNodeGetType(node, &type);
    if (error != cudaSuccess || type != cudaGraphNodeTypeMemset) continue;
    cudaMemsetParams of{};
    error = cudaGraphMemsetNodeGetParams(node, &of);
    if (error == cudaSuccess && of.height == 1 && of.width > 0 && of.width * of.elementSize <= kSmall)
      error = replace(graph, node, of);
  }
  return error;
}

}  // namespace xdit::cuda
