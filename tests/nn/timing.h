#pragma once
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <vector>

namespace xdit::test {

/// Median microseconds of f() on the current CUDA stream, warm, over `samples` runs.
template <class F>
double microseconds(F&& f, int samples = 15) {
  std::vector<float> times;
  for (int i = 0; i < samples + 3; ++i) {
    at::cuda::CUDAEvent begin(cudaEventDefault), end(cudaEventDefault);
    begin.record();
    f();
    end.record();
    end.synchronize();
    if (i >= 3) times.push_back(begin.elapsed_time(end));
  }
  std::nth_element(times.begin(), times.begin() + samples / 2, times.end());
  return 1000 * times[static_cast<std::size_t>(samples) / 2];
}

/// The same of one f() among many in a CUDA graph: without the gaps that a host leaves between short kernels.
template <class F>
double captured_microseconds(F&& f) {
  constexpr int kCalls = 20;
  c10::cuda::device_synchronize();  // what f takes was made on another stream
  const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());
  f();  // what a first call loads
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  for (int i = 0; i < kCalls; ++i) f();
  graph.capture_end();
  return microseconds([&] { graph.replay(); }) / kCalls;
}

}  // namespace xdit::test
