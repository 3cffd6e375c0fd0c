#pragma once
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "comm/job.h"
#include "comm/peer_buffer.h"
#include "comm/peer_memory.h"
#include "comm/rows.h"

namespace xdit::comm {

/// Ranks that exchange bytes. Results land in a PeerBuffer of the group, where peers write them directly; the
/// call is over, in the order of the stream, when this rank's result is there and its source may change.
/// Collectives are called by every rank of the group in the same order. A group of one copies to itself.
/// A wait throws Error(kRank) when the job is aborted or a peer is silent for the timeout (on a device's
/// stream a later call does, or check()); the group is dead then. For a second stream: a second group (split)
/// or a second buffer.
class Group {
 public:
  /// All ranks of the job; returns when all are here. Each makes as many of them, one after the other.
  /// `memory`: that results lie in; null: the host's.
  static Group world(const std::shared_ptr<const Job>& job, int rank, std::chrono::nanoseconds timeout,
                     std::shared_ptr<PeerMemory> memory = nullptr);
  /// The ranks of this group that pass the same colour, in its order. Collective over this group.
  /// `host`: in place of the host's memory, with other waits for share().
  [[nodiscard]] Group split(int colour, std::shared_ptr<PeerMemory> host = nullptr);

  [[nodiscard]] int rank() const noexcept { return control_.rank_; }
  [[nodiscard]] int size() const noexcept { return static_cast<int>(members().size()); }
  /// Ranks in the job.
  [[nodiscard]] const std::vector<int>& members() const noexcept { return control_.members_; }
  [[nodiscard]] const Peers& everyone() const noexcept { return everyone_; }  ///< 0 .. size - 1

  /// Collective; each rank chooses the size of its own part (0 is allowed).
  [[nodiscard]] PeerBuffer allocate(std::int64_t bytes);

  /// Each rank's few bytes (at most kShared) to all, through host memory, ordered on no stream.
  static constexpr std::size_t kShared = 128;
  using Shared = std::array<std::byte, kShared>;
  [[nodiscard]] std::vector<Shared> share(std::span<const std::byte> mine);

  /// All-to-all with uneven, strided parts: every rank's puts to every other.
  void all_to_all_v(std::span<const Put> puts, PeerBuffer& to, Stream stream = nullptr);
  /// Rank p has the bytes parts[p], and all of them get all parts, each at its place.
  void all_gather_v(const void* mine, std::span<const Range> parts, PeerBuffer& to,
                    Stream stream = nullptr) const;
  /// Every rank p gets the rows wanted[p], packed (see put_rows). With with_halo it is the halo exchange of
  /// slabs of any height, one row or none included.
  void gather_rows(const Slab& mine, std::span<const Range> owned, std::span<const Range> wanted,
                   PeerBuffer& to, Stream stream = nullptr) const;
  /// `source` of `root` to the start of every rank's buffer.
  void broadcast(const void* source, std::int64_t bytes, int root, PeerBuffer& to, Stream stream = nullptr);
  /// Rank p gets elements parts[p] of the sum over ranks of `source`, added in the order of ranks whoever
  /// adds: disjoint parts are a reduce-scatter, equal ones an all-reduce.
  /// `staging` holds size * parts[rank].count floats.
  void sum(const float* source, std::span<const Range> parts, PeerBuffer& staging, float* to,
           Stream stream = nullptr);
  /// What every rank had enqueued before it is done before what any of them enqueues after it.
  void barrier(Stream stream = nullptr);
  /// See PeerMemory::check.
  void check() const { memory_->check(); }
  /// See PeerMemory::waited_s.
  [[nodiscard]] double waited_s() const { return memory_->waited_s(); }
  /// Of the memory that results lie in, whatever group of this rank used it.
  [[nodiscard]] Use& use() const { return memory_->use(); }

 private:
  Group(std::shared_ptr<PeerMemory> host, std::shared_ptr<PeerMemory> memory, PeerBuffer control);
  /// `ranks` of this group (this one among them) map each other's parts; all ranks of the group call it.
  [[nodiscard]] PeerBuffer connect(const std::shared_ptr<PeerMemory>& memory, const Peers& ranks,
                                   std::int64_t bytes);
  void finish();  ///< after construction: the descriptors may go, and the barrier gets its signals
  static void exchange(PeerBuffer& buffer, std::span<const Put> puts, const Peers& from, const Peers& to,
                       Stream stream, const char* operation);

  std::shared_ptr<PeerMemory> host_;
  std::shared_ptr<PeerMemory> memory_;
  PeerBuffer control_;                 // in host memory
  std::optional<PeerBuffer> signals_;  // in memory_, for the barrier
  Peers everyone_;
};

}  // namespace xdit::comm
