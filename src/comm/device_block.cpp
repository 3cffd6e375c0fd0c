#include "comm/device_block.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "comm/cuda_error.h"

namespace xdit::comm {

DeviceBlock::DeviceBlock(std::int64_t bytes, int device, Use& use)
    : bytes_(static_cast<std::size_t>(bytes)), device_(device), use_(use) {
  check_cuda(cudaMalloc(&data_, bytes_), fmt::format("take {} bytes of GPU {}", bytes_, device));
  use_.take(bytes_);
  static_cast<void>(cudaMemset(data_, 0, bytes_));
  if (const cudaError_t error = cudaDeviceSynchronize()) {
    static_cast<void>(cudaFree(data_));
    use_.give_back(bytes_);
    check_cuda(error, "clear device memory");
  }
}

DeviceBlock::~DeviceBlock() {
  static_cast<void>(cudaSetDevice(device_));
  static_cast<void>(cudaDeviceSynchronize());  // work that was enqueued may still write there
  static_cast<void>(cudaFree(data_));
  use_.give_back(bytes_);
}

}  // namespace xdit::comm
