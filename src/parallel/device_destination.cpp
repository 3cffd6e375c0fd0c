#include "parallel/device_destination.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <array>

namespace xdit::parallel {
namespace {

class PinnedBuffer {
 public:
  PinnedBuffer() {
    C10_CUDA_CHECK(cudaHostAlloc(&bytes_, weights::kChunkBytes, cudaHostAllocDefault));
    C10_CUDA_CHECK(cudaEventCreateWithFlags(&copied_, cudaEventDisableTiming));
  }
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  ~PinnedBuffer() {
    static_cast<void>(cudaEventDestroy(copied_));
    static_cast<void>(cudaFreeHost(bytes_));
  }
  [[nodiscard]] std::byte* wait() const {
    C10_CUDA_CHECK(cudaEventSynchronize(copied_));
    return static_cast<std::byte*>(bytes_);
  }
  void copy_to(std::byte* to, std::size_t bytes, cudaStream_t stream) const {
    C10_CUDA_CHECK(cudaMemcpyAsync(to, bytes_, bytes, cudaMemcpyHostToDevice, stream));
    C10_CUDA_CHECK(cudaEventRecord(copied_, stream));
  }

 private:
  void* bytes_ = nullptr;
  cudaEvent_t copied_ = nullptr;
};

class DeviceDestination final : public weights::Destination {
 public:
  explicit DeviceDestination(c10::Device device)
      : stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index())) {}
  DeviceDestination(const DeviceDestination&) = delete;
  DeviceDestination& operator=(const DeviceDestination&) = delete;
  ~DeviceDestination() override { static_cast<void>(cudaStreamSynchronize(stream_)); }

  std::byte* stage(std::byte* /*to*/, std::size_t /*bytes*/) override {
    next_ = (next_ + 1) % buffers_.size();
    return buffers_[next_].wait();
  }
  void commit(std::byte* to, std::size_t bytes) override { buffers_[next_].copy_to(to, bytes, stream_); }
  void finish() override { C10_CUDA_CHECK(cudaStreamSynchronize(stream_)); }

 private:
  c10::cuda::CUDAStream stream_;
  std::array<PinnedBuffer, 2> buffers_;
  std::size_t next_ = 0;
};

}  // namespace

std::unique_ptr<weights::Destination> device_destination(c10::Device device) {
  return std::make_unique<DeviceDestination>(device);
}

struct LoadingStream::Guard {
  explicit Guard(c10::cuda::CUDAStream on) : stream(on) {}
  c10::cuda::CUDAStreamGuard stream;
};

LoadingStream::LoadingStream(c10::Device device) {
  if (!device.is_cuda()) return;
  const c10::cuda::CUDAGuard on(device);
  C10_CUDA_CHECK(cudaDeviceSynchronize());
  guard_ = std::make_unique<Guard>(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index()));
}

LoadingStream::~LoadingStream() = default;

void LoadingStream::synchronise() const {
  if (guard_) C10_CUDA_CHECK(cudaStreamSynchronize(guard_->stream.current_stream()));
}

}  // namespace xdit::parallel
