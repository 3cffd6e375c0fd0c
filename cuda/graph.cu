#include <algorithm>
#include <cstdint>
#include <set>
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

cudaError_t dependencies_of(cudaGraphNode_t node, std::vector<cudaGraphNode_t>& nodes) {
  return neighbours([&](auto... to) { return cudaGraphNodeGetDependencies(node, to...); }, nodes);
}
cudaError_t dependents_of(cudaGraphNode_t node, std::vector<cudaGraphNode_t>& nodes) {
  return neighbours([&](auto... to) { return cudaGraphNodeGetDependentNodes(node, to...); }, nodes);
}

cudaError_t add_edges(cudaGraph_t graph, const std::vector<cudaGraphNode_t>& from,
                      const std::vector<cudaGraphNode_t>& to) {
  return from.empty() ? cudaSuccess
                      : cudaGraphAddDependencies(graph, from.data(), to.data(), nullptr, from.size());
}

// A kernel that fills `count` elements of `bytes` each, after `before`.
cudaError_t add_fill(cudaGraph_t graph, const std::vector<cudaGraphNode_t>& before, void* to, unsigned value,
                     std::size_t count, unsigned bytes, cudaGraphNode_t& kernel) {
  void* arguments[] = {&to, &value, &count};
  cudaKernelNodeParams launch{};
  launch.func = kernel_of(bytes);
  launch.gridDim = dim3(static_cast<unsigned>((count + kThreads - 1) / kThreads));
  launch.blockDim = dim3(kThreads);
  launch.kernelParams = arguments;
  return cudaGraphAddKernelNode(&kernel, graph, before.data(), before.size(), &launch);
}

cudaError_t replace(cudaGraph_t graph, cudaGraphNode_t fill, const cudaMemsetParams& of) {
  std::vector<cudaGraphNode_t> before, after;
  cudaGraphNode_t kernel = nullptr;
  cudaError_t error = dependencies_of(fill, before);
  if (error == cudaSuccess) error = dependents_of(fill, after);
  if (error == cudaSuccess)
    error = add_fill(graph, before, of.dst, of.value, of.width, of.elementSize, kernel);
  if (error == cudaSuccess)
    error = add_edges(graph, std::vector<cudaGraphNode_t>(after.size(), kernel), after);
  return error == cudaSuccess ? cudaGraphDestroyNode(fill) : error;
}

// What came after `node` comes after what it came after.
cudaError_t drop(cudaGraph_t graph, cudaGraphNode_t node) {
  std::vector<cudaGraphNode_t> before, after, known;
  cudaError_t error = dependencies_of(node, before);
  if (error == cudaSuccess) error = dependents_of(node, after);
  for (std::size_t i = 0; error == cudaSuccess && i < after.size(); ++i) {
    error = dependencies_of(after[i], known);
    std::vector<cudaGraphNode_t> from;
    for (const cudaGraphNode_t one : before)
      if (std::find(known.begin(), known.end(), one) == known.end()) from.push_back(one);
    if (error == cudaSuccess)
      error = add_edges(graph, from, std::vector<cudaGraphNode_t>(from.size(), after[i]));
  }
  return error == cudaSuccess ? cudaGraphDestroyNode(node) : error;
}

// Before everything else.
cudaError_t fill_first(cudaGraph_t graph, void* to, std::size_t bytes) {
  std::size_t count = 0;
  cudaError_t error = cudaGraphGetRootNodes(graph, nullptr, &count);
  std::vector<cudaGraphNode_t> roots(count);
  if (error == cudaSuccess) error = cudaGraphGetRootNodes(graph, roots.data(), &count);
  cudaGraphNode_t kernel = nullptr;
  if (error == cudaSuccess) error = add_fill(graph, {}, to, 0, bytes / 4, 4, kernel);
  return error == cudaSuccess ? add_edges(graph, std::vector<cudaGraphNode_t>(count, kernel), roots) : error;
}

}  // namespace

cudaError_t fill_by_kernels(cudaGraph_t graph, void* counters, std::size_t bytes) {
  std::size_t count = 0;
  cudaError_t error = cudaGraphGetNodes(graph, nullptr, &count);
  if (error != cudaSuccess) return error;
  std::vector<cudaGraphNode_t> nodes(count);
  error = cudaGraphGetNodes(graph, nodes.data(), &count);
  std::set<const void*> filled;  // a second fill of the same words is for another kernel
  for (const cudaGraphNode_t node : nodes) {
    if (error != cudaSuccess) return error;
    cudaGraphNodeType type{};
    error = cudaGraphNodeGetType(node, &type);
    if (error != cudaSuccess || type != cudaGraphNodeTypeMemset) continue;
    cudaMemsetParams of{};
    error = cudaGraphMemsetNodeGetParams(node, &of);
    if (error != cudaSuccess || of.height != 1 || of.width == 0) continue;
    const auto offset = reinterpret_cast<std::uintptr_t>(of.dst) - reinterpret_cast<std::uintptr_t>(counters);
    if (of.value == 0 && offset < bytes && filled.insert(of.dst).second)
      error = drop(graph, node);
    else if (of.width * of.elementSize <= kSmall)
      error = replace(graph, node, of);
  }
  return error == cudaSuccess && bytes > 0 ? fill_first(graph, counters, bytes) : error;
}

}  // namespace xdit::cuda
