#pragma once
#include <cuda_runtime_api.h>

namespace xdit::cuda {

/// Makes kernels of a captured graph's small fills: between two kernels a memory node costs some 8 us, a
/// kernel 1.5, and cuBLASLt and cuDNN ask for one before each of theirs that deals out its tiles.
cudaError_t fill_by_kernels(cudaGraph_t graph);

}  // namespace xdit::cuda
