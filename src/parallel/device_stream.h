#pragma once
#include <c10/core/Device.h>

#include "comm/peer_memory.h"

namespace xdit::parallel {

/// The stream that Torch works on in this thread; null on the CPU.
[[nodiscard]] comm::Stream current_stream(c10::Device device);

}  // namespace xdit::parallel
