#pragma once
#include <chrono>
#include <memory>

#include "comm/job.h"
#include "comm/peer_memory.h"

namespace xdit::comm {

/// Peer memory of ranks with GPUs of one machine that do not reach each other: it lies in the host's memory,
/// which every GPU writes and reads, and each rank works in a copy on its own GPU (relay.h). Otherwise as
/// device_memory.
[[nodiscard]] std::shared_ptr<PeerMemory> pinned_memory(const std::shared_ptr<const Job>& job, int rank,
                                                        int device, std::chrono::nanoseconds timeout);

}  // namespace xdit::comm
