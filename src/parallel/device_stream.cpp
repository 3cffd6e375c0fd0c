#include "parallel/device_stream.h"

#include <c10/cuda/CUDAStream.h>

namespace xdit::parallel {

comm::Stream current_stream(c10::Device device) {
  return device.is_cuda() ? c10::cuda::getCurrentCUDAStream(device.index()).stream() : nullptr;
}

}  // namespace xdit::parallel
