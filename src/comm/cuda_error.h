#pragma once
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <string>

#include "core/error.h"

namespace xdit::comm {

/// Throws Error(kDevice, or kMemory where that is why) "cannot `doing`".
inline void check_cuda(cudaError_t error, const std::string& doing) {
  if (error == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // nobody else is to find it
  throw Error(error == cudaErrorMemoryAllocation ? ExitCode::kMemory : ExitCode::kDevice,
              fmt::format("cannot {}: {}", doing, cudaGetErrorString(error)));
}

}  // namespace xdit::comm
