#pragma once
#include <ATen/cuda/CUDAEvent.h>
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

}  // namespace xdit::test
