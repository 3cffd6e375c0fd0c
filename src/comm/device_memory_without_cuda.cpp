#include "comm/device_memory.h"
#include "comm/pinned_memory.h"
#include "core/error.h"

namespace xdit::comm {
namespace {

[[noreturn]] void refuse_gpus() {
  throw Error(ExitCode::kDevice, "this build has no CUDA kernels, and ranks on GPUs exchange with them", {},
              "--gpus 1, or a build with -DXDIT_CUDA=ON");
}

}  // namespace

std::shared_ptr<PeerMemory> device_memory(const std::shared_ptr<const Job>& /*job*/, int /*rank*/,
                                          int /*device*/, std::chrono::nanoseconds /*timeout*/) {
  refuse_gpus();
}

std::shared_ptr<PeerMemory> pinned_memory(const std::shared_ptr<const Job>& /*job*/, int /*rank*/,
                                          int /*device*/, std::chrono::nanoseconds /*timeout*/) {
  refuse_gpus();
}

}  // namespace xdit::comm
