#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <stop_token>
#include <thread>

#include "comm/group.h"
#include "comm/job.h"
#include "comm/peer_memory.h"
#include "comm/rows.h"

struct ncclComm;

namespace xdit::comm {

class NcclWindow;

/// A Group's operations through NCCL: the reference in tests. One GPU a rank. Ordered on the stream; after a
/// first call of its size an operation can be captured. NCCL moves whole messages, so both ends say what goes
/// where. An abort of the job ends what waits.
class NcclGroup {
 public:
  /// Collective over `group`, which carries NCCL's id. `memory` (of `device`) packs rows and adds.
  /// Error(kRank) when NCCL fails or the others have not come within `timeout`.
  NcclGroup(Group& group, std::shared_ptr<const Job> job, std::shared_ptr<PeerMemory> memory, int device,
            std::chrono::nanoseconds timeout);
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;
  ~NcclGroup();  ///< aborts what is not closed
  void close();  ///< collective, after all work

  /// `takes`: what the others put to this rank, in their order; `peer` is who does, `source` is not read.
  void all_to_all_v(std::span<const Put> puts, std::span<const Put> takes, std::byte* to,
                    Stream stream = nullptr);
  /// The others as in Group, with the result at `to` (for sum: `staging`).
  void all_gather_v(const void* mine, std::span<const Range> parts, std::byte* to, Stream stream = nullptr);
  void gather_rows(const Slab& mine, std::span<const Range> owned, std::span<const Range> wanted,
                   std::byte* to, Stream stream = nullptr);
  void broadcast(const void* source, std::int64_t bytes, int root, std::byte* to, Stream stream = nullptr);
  void sum(const float* source, std::span<const Range> parts, std::byte* staging, float* to,
           Stream stream = nullptr);
  /// Within a window of equal parts, part r at r * bytes: everybody gets every rank's own.
  void all_gather(const NcclWindow& window, std::int64_t bytes, Stream stream = nullptr);
  /// Within a window [ranks, count]: part r of all ranks' is added up, in NCCL's order, at rank r's own.
  void reduce_scatter(const NcclWindow& window, std::int64_t count, Stream stream = nullptr);
  /// As Group's: throws what was met so far.
  void check();

 private:
  friend class NcclWindow;
  struct FreeDevice {
    void operator()(std::byte* data) const;
  };

  void exchange(std::span<const Put> puts, std::span<const Put> takes, std::byte* to, Stream stream,
                const char* operation);
  void reserve(std::int64_t bytes);
  /// Asks NCCL for `call`, which returns its result; nothing once the job was aborted: the next check() says
  /// why.
  void ask(const char* operation, const std::function<int(ncclComm*)>& call);
  /// Until NCCL's host side is done with what it was asked. With the lock held.
  void settle(const char* operation);
  void abort() noexcept;  ///< with the lock held
  [[noreturn]] void fail(int result, const char* operation);
  void keep_watch(const std::stop_token& stop);

  std::shared_ptr<const Job> job_;
  std::shared_ptr<PeerMemory> memory_;
  int device_;
  int rank_;
  int size_;
  std::chrono::nanoseconds timeout_;
  std::mutex mutex_;  // the watcher may abort at any time
  ncclComm* communicator_ = nullptr;
  std::unique_ptr<std::byte, FreeDevice> staging_;  // packed rows
  std::int64_t staging_bytes_ = 0;
  std::jthread watcher_;  // ends first
};

}  // namespace xdit::comm
