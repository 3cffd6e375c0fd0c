#include "nn/side_stream.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <cstring>
#include <optional>

namespace xdit::nn {

struct SideStream::Made {
  Made(c10::DeviceIndex on, Priority priority)
      : index(on), stream(c10::cuda::getStreamFromPool(static_cast<int>(priority), on)) {
    const c10::cuda::CUDAGuard guard(on);
    C10_CUDA_CHECK(cudaEventCreateWithFlags(&reached, cudaEventDisableTiming));
    C10_CUDA_CHECK(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
  }
  Made(const Made&) = delete;
  Made& operator=(const Made&) = delete;
  ~Made() {
    static_cast<void>(cudaEventDestroy(reached));
    static_cast<void>(cudaEventDestroy(done));
  }
  c10::DeviceIndex index;
  c10::cuda::CUDAStream stream;
  cudaEvent_t reached = nullptr;  // the current stream, at mark
  cudaEvent_t done = nullptr;
};

SideStream::SideStream() = default;
SideStream::SideStream(c10::Device device, Priority priority) : device_(device), priority_(priority) {}
SideStream::~SideStream() = default;

CUstream_st* SideStream::stream() const {
  return made_ ? made_->stream.stream() : nullptr;
}

void SideStream::mark() {
  if (!device_.is_cuda()) return;
  if (!made_) made_ = std::make_unique<Made>(device_.index(), priority_);
  C10_CUDA_CHECK(cudaEventRecord(made_->reached, c10::cuda::getCurrentCUDAStream(made_->index)));
}

void SideStream::follow() {
  if (made_) C10_CUDA_CHECK(cudaStreamWaitEvent(made_->stream, made_->reached));
}

c10::OptionalStreamGuard SideStream::enter() const {
  return c10::OptionalStreamGuard(made_ ? std::optional<c10::Stream>(made_->stream.unwrap()) : std::nullopt);
}

void SideStream::copy(std::byte* to, const std::byte* from, std::int64_t bytes) {
  const auto size = static_cast<std::size_t>(bytes);
  if (made_)
    C10_CUDA_CHECK(cudaMemcpyAsync(to, from, size, cudaMemcpyDefault, made_->stream));
  else
    std::memcpy(to, from, size);
}

void SideStream::end() {
  if (made_) C10_CUDA_CHECK(cudaEventRecord(made_->done, made_->stream));
}

void SideStream::wait() {
  if (made_) C10_CUDA_CHECK(cudaStreamWaitEvent(c10::cuda::getCurrentCUDAStream(made_->index), made_->done));
}

}  // namespace xdit::nn
