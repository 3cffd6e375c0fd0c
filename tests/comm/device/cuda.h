#pragma once
#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>

#include "comm/peer_memory.h"

namespace xdit::tests {

inline void must(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

/// What `enqueue` puts on a stream, captured, and the stream that it is launched on.
class Graph {
 public:
  explicit Graph(const std::function<void(comm::Stream)>& enqueue) {
    cudaStream_t stream = nullptr;
    must(cudaStreamCreate(&stream));
    stream_.reset(stream);
    cudaGraph_t graph = nullptr;
    must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    enqueue(stream);
    must(cudaStreamEndCapture(stream, &graph));
    cudaGraphExec_t executable = nullptr;
    must(cudaGraphInstantiate(&executable, graph, 0));
    executable_.reset(executable);
    must(cudaGraphDestroy(graph));
  }
  void launch() const { must(cudaGraphLaunch(executable_.get(), stream_.get())); }
  void synchronise() const { must(cudaStreamSynchronize(stream_.get())); }
  [[nodiscard]] comm::Stream stream() const { return stream_.get(); }

 private:
  template <auto kDestroy>
  struct Destroy {
    void operator()(auto* object) const { static_cast<void>(kDestroy(object)); }
  };
  std::unique_ptr<CUstream_st, Destroy<&cudaStreamDestroy>> stream_;
  std::unique_ptr<CUgraphExec_st, Destroy<&cudaGraphExecDestroy>> executable_;
};

}  // namespace xdit::tests
