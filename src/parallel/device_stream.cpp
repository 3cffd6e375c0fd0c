#include "parallel/device_stream.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <cstring>

namespace xdit::parallel {

comm::Stream current_stream(c10::Device device) {
  return device.is_cuda() ? c10::cuda::getCurrentCUDAStream(device.index()).stream() : nullptr;
}

struct SideStream::Device {
  Device(c10::DeviceIndex on, bool urgent) : index(on), stream(c10::cuda::getStreamFromPool(urgent, on)) {
    C10_CUDA_CHECK(cudaEventCreateWithFlags(&reached, cudaEventDisableTiming));
    C10_CUDA_CHECK(cudaEventCreateWithFlags(&copied, cudaEventDisableTiming));
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device() {
    static_cast<void>(cudaEventDestroy(reached));
    static_cast<void>(cudaEventDestroy(copied));
  }
  c10::DeviceIndex index;
  c10::cuda::CUDAStream stream;
  cudaEvent_t reached = nullptr;  // the current stream, at begin
  cudaEvent_t copied = nullptr;
};

SideStream::SideStream(c10::Device device, bool urgent)
    : device_(device.is_cuda() ? std::make_unique<Device>(device.index(), urgent) : nullptr) {}
SideStream::~SideStream() = default;

comm::Stream SideStream::stream() const {
  return device_ ? device_->stream.stream() : nullptr;
}

void SideStream::begin() {
  if (!device_) return;
  C10_CUDA_CHECK(cudaEventRecord(device_->reached, c10::cuda::getCurrentCUDAStream(device_->index)));
  C10_CUDA_CHECK(cudaStreamWaitEvent(device_->stream, device_->reached));
}

void SideStream::copy(std::byte* to, const std::byte* from, std::int64_t bytes) {
  const auto size = static_cast<std::size_t>(bytes);
  if (device_)
    C10_CUDA_CHECK(cudaMemcpyAsync(to, from, size, cudaMemcpyDefault, device_->stream));
  else
    std::memcpy(to, from, size);
}

void SideStream::end() {
  if (device_) C10_CUDA_CHECK(cudaEventRecord(device_->copied, device_->stream));
}

void SideStream::wait() {
  if (device_)
    C10_CUDA_CHECK(cudaStreamWaitEvent(c10::cuda::getCurrentCUDAStream(device_->index), device_->copied));
}

}  // namespace xdit::parallel
