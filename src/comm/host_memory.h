#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>

#include "comm/job.h"
#include "comm/peer_memory.h"
#include "comm/shared_memory.h"

namespace xdit::comm {

/// Shared memory that peers find by a handle, and a peer's.
[[nodiscard]] SharedMemory create_shared(std::int64_t bytes, Handle* handle);
[[nodiscard]] SharedMemory open_shared(const Handle& handle, int peer);

/// Peer memory of CPU ranks: memfds, memcpy, and futexes on the epochs. Everything is done when the call
/// returns.
class HostMemory : public PeerMemory {
 public:
  /// `rank` waits at most `timeout` for one signal (time in which it was stopped itself does not count).
  HostMemory(std::shared_ptr<const Job> job, int rank, std::chrono::nanoseconds timeout)
      : job_(std::move(job)), rank_(rank), timeout_(timeout) {}

  std::unique_ptr<Block> create(std::int64_t bytes, Handle* handle) override;
  std::unique_ptr<Block> open(const Handle& handle, int peer) override;
  void copy(std::span<const Copy> copies, Stream stream) override;
  void raise(std::span<const Flag> flags, Stream stream) override;
  void await(std::span<const Flag> flags, const char* operation, Stream stream) override;
  void sum(float* to, std::span<const float* const> terms, std::int64_t count, Stream stream) override;

 private:
  void await(const Flag& flag, const char* operation);

  std::shared_ptr<const Job> job_;
  int rank_;
  std::chrono::nanoseconds timeout_;
};

}  // namespace xdit::comm
