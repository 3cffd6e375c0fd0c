#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "comm/peer_memory.h"
#include "comm/rows.h"

namespace xdit::comm {

/// Ranks of a group.
using Peers = std::vector<int>;

/// Memory that every rank of a group has and the others can write into, with its own signals, so operations
/// on different buffers never mix. One transfer is three steps, in the order of a stream:
/// - the receiver's post() says "my buffer may be written", as early as it likes;
/// - the sender's put() waits for that post only, copies, and signals;
/// - the receiver's arrive() waits for the signal; it reads until its next post.
/// Ranks that post before they put never deadlock, whoever sends to whom. After an Error the group is dead.
/// Both ends of a pair must agree on the sequence of transfers; a put may carry no bytes.
/// Where memory relays (relay.h) the copies are made by put() and arrive(), of at most Label::kMost extents a
/// transfer and peer and at most Label::kAhead posts ahead.
/// Zeroed at first, aligned to 256 bytes. Destroyed by all ranks of the group between the same two
/// collectives.
class PeerBuffer {
 public:
  [[nodiscard]] std::byte* data() const noexcept { return part(rank_); }  ///< this rank's part
  [[nodiscard]] std::int64_t bytes() const noexcept { return bytes_[rank_]; }
  /// Bytes of a rank's part to be read now. Nothing here orders such reads, and of what its owner wrote
  /// itself the others see what it has published.
  [[nodiscard]] const std::byte* read(int rank, Range bytes) const;
  void publish(Stream stream = nullptr);  ///< all of this rank's part

  void post(const Peers& from, Stream stream = nullptr);
  /// `puts` go to ranks of `to` only. A put onto its own source is left out.
  void put(std::span<const Put> puts, const Peers& to, Stream stream = nullptr,
           const char* operation = "send");
  /// put() in steps. ready() waits for the posts; send(), once or more and perhaps on another stream that has
  /// come after it, copies beside what a third one computes; sent() signals, when all `puts` have been sent.
  void ready(const Peers& to, Stream stream = nullptr, const char* operation = "send");
  void send(std::span<const Put> puts, const Peers& to, Stream stream = nullptr);
  void sent(std::span<const Put> puts, const Peers& to, Stream stream = nullptr);
  void place(std::span<const Put> puts, Stream stream = nullptr);  ///< this rank's own rows, in its part
  void arrive(const Peers& from, Stream stream = nullptr, const char* operation = "receive");

 private:
  friend class Group;
  PeerBuffer(std::shared_ptr<PeerMemory> memory, int rank, std::vector<int> members,
             std::vector<std::int64_t> bytes, std::vector<std::unique_ptr<Block>> blocks);

  /// A block is a header, lines of one word a peer, and the part. Peers write the first two lines of it.
  enum class Line : std::uint8_t { kFull, kFree, kFullRaised, kFreeRaised, kFullSeen, kFreeSeen };
  static constexpr std::int64_t kLines = 6;
  [[nodiscard]] static std::int64_t header_bytes(const PeerMemory& memory, std::size_t size);
  [[nodiscard]] std::uint64_t* word(int owner, Line line, int peer) const;
  [[nodiscard]] Extent* labels(int owner, int sender) const;
  [[nodiscard]] std::byte* part(int peer) const noexcept;  ///< the own one: the copy
  [[nodiscard]] std::byte* shared_part(int peer) const noexcept;
  [[nodiscard]] std::vector<Copy> copies_of(std::span<const Put> puts, const Peers& to) const;
  void label(std::span<const Put> puts, const Peers& to, Stream stream);
  void land(const Peers& from, Stream stream);
  void raise(const Peers& peers, Line line, Line count, Stream stream);
  void await(const Peers& peers, Line line, Line count, Stream stream, const char* operation);

  std::shared_ptr<PeerMemory> memory_;
  int rank_;
  std::vector<int> members_;         // ranks in the job
  std::vector<std::int64_t> bytes_;  // of each rank's part
  std::vector<std::unique_ptr<Block>> blocks_;
  bool relays_;
  std::int64_t header_;
  std::vector<std::int64_t> ahead_;  // posts for each peer whose transfers have not arrived
};

}  // namespace xdit::comm
