#pragma once
#include <chrono>
#include <memory>

#include "comm/job.h"
#include "comm/peer_memory.h"

namespace xdit::comm {

/// Peer memory of ranks with GPUs of one machine that reach each other; two ranks may share one. Signals and
/// waits are kernels in the order of the stream and can be captured in a graph. `rank` waits at most
/// `timeout` for one signal (time in which it was stopped itself does not count). Each call makes `device`
/// the calling thread's. Error(kDevice) where GPUs do not reach each other, and in a build without CUDA.
[[nodiscard]] std::shared_ptr<PeerMemory> device_memory(const std::shared_ptr<const Job>& job, int rank,
                                                        int device, std::chrono::nanoseconds timeout);

}  // namespace xdit::comm
