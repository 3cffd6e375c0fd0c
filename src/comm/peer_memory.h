#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "comm/relay.h"
#include "comm/use.h"

struct CUstream_st;  // cudaStream_t points to one

namespace xdit::comm {

using Stream = CUstream_st*;  ///< null: the default stream; of no meaning on the CPU

/// What another process of this machine needs to map a block. Plain bytes.
using Handle = std::array<std::byte, 96>;

/// Memory of this rank that the peers map, or a peer's as mapped here. Unmapped on destruction.
class Block {
 public:
  Block() = default;
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  virtual ~Block() = default;
  [[nodiscard]] virtual std::byte* data() const noexcept = 0;  ///< what its owner and the peers reach
  /// Where its owner works; where memory relays, a copy of its own.
  [[nodiscard]] virtual std::byte* local() const noexcept { return data(); }
  virtual void opened() {}  ///< every peer has opened it: what served that only may go
};

struct Copy {
  const std::byte* from;
  std::byte* to;
  std::int64_t rows;
  std::int64_t row_bytes;
  std::int64_t from_stride;
  std::int64_t to_stride;
};

/// One direction of a pair's signals. `word` has one writer, who raises it to its own ++count; the waiter
/// waits until it has reached the waiter's ++count. Both lie in peer memory, so a captured graph can replay.
struct Flag {
  std::uint64_t* word;
  std::uint64_t* count;
  int peer;  ///< rank in the job, for errors
};

/// One kind of memory, and what is done in it in the order of a stream.
class PeerMemory {
 public:
  PeerMemory() = default;
  PeerMemory(const PeerMemory&) = delete;
  PeerMemory& operator=(const PeerMemory&) = delete;
  virtual ~PeerMemory() = default;

  /// Zeroed, aligned to 256 bytes at least. `handle`: for the peers; null where there are none.
  [[nodiscard]] virtual std::unique_ptr<Block> create(std::int64_t bytes, Handle* handle) = 0;
  [[nodiscard]] virtual std::unique_ptr<Block> open(const Handle& handle, int peer) = 0;

  virtual void copy(std::span<const Copy> copies, Stream stream) = 0;
  /// The same beside kernels on other streams: a device's copy engines take none of its multiprocessors.
  virtual void copy_beside(std::span<const Copy> copies, Stream stream) { copy(copies, stream); }
  /// What was copied before is seen by whoever sees the flag.
  virtual void raise(std::span<const Flag> flags, Stream stream) = 0;
  /// Error(kRank) naming `operation` (a literal) and the peer when the job is aborted or the timeout has
  /// passed. On a device's stream it comes from a later call, or from check().
  virtual void await(std::span<const Flag> flags, const char* operation, Stream stream) = 0;
  /// to = ((terms[0] + terms[1]) + terms[2]) ..., each of `count` elements.
  virtual void sum(float* to, std::span<const float* const> terms, std::int64_t count, Stream stream) = 0;
  /// Throws what a wait on a stream has met so far. Bytes that came over a stream are good when check()
  /// returns after that stream was synchronised.
  virtual void check() const {}
  /// Seconds of waits for others' signals: the others' copies before a signal are in them, this rank's own
  /// are not. On a device: of what its streams have done, so call it when they are synchronised. Waits of two
  /// streams at once are added up: await on the one that computes.
  [[nodiscard]] virtual double waited_s() const { return use_.waited_s(); }

  /// Blocks with a handle have a copy that is their owner's (relay.h).
  [[nodiscard]] virtual bool relays() const { return false; }
  virtual void label(std::span<const Label> /*labels*/, Stream /*stream*/) {}     ///< before raise
  virtual void land(std::span<const Landing> /*landings*/, Stream /*stream*/) {}  ///< after await

  [[nodiscard]] Use& use() { return use_; }

 private:
  Use use_;
};

}  // namespace xdit::comm
