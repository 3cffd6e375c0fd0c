#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "comm/peer_memory.h"
#include "comm/shared_memory.h"

namespace xdit::comm {

/// Where ranks without a common parent meet: c10d's TCPStore, behind an interface without LibTorch.
class Store {
 public:
  Store() = default;
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  virtual ~Store() = default;
  virtual void set(const std::string& key, const std::string& value) = 0;
  virtual std::string get(const std::string& key) = 0;  ///< waits for the key; throws at its own timeout
};

/// What all ranks of a job on one machine share from the start: the abort word and a card a rank, on which it
/// leaves the handle of its first block. Nothing of it has a name.
class Job {
 public:
  /// In the launcher: children inherit the mapping (fork) or descriptor() (exec; it is close-on-exec).
  static std::shared_ptr<Job> create(int size);
  static std::shared_ptr<Job> attach(int descriptor);  ///< takes the descriptor over
  /// Under torchrun, srun or mpirun: rank 0 creates it, the others open it through /proc; it returns when all
  /// have. `store` holds nothing of another job.
  static std::shared_ptr<Job> join(Store& store, int rank, int size);

  [[nodiscard]] int size() const noexcept;
  [[nodiscard]] int descriptor() const noexcept { return memory_.descriptor(); }

  /// Whoever waits throws within 0.1 s. `rank` is the one that failed, -1 for none; the first call wins.
  void abort(int rank) const noexcept;
  [[nodiscard]] std::optional<int> aborted() const noexcept;  ///< the failed rank
  /// Of an aborted job: this rank writes to no peer's memory any more. Returns when that is so of all of
  /// them, or after `patience`.
  void leave(std::chrono::nanoseconds patience) const;
  /// As created but for renewals(), for ranks that have all left or finished. Groups from before are dead.
  void renew() const noexcept;
  [[nodiscard]] std::int64_t renewals() const noexcept;

  struct Card {
    alignas(64) std::uint64_t ready;  ///< raised by 1 once the rest is valid, at each Group::world
    Handle handle;
  };
  [[nodiscard]] Card& card(int rank) const;

 private:
  struct Header;
  explicit Job(SharedMemory memory) : memory_(std::move(memory)) {}
  [[nodiscard]] Header& header() const noexcept;

  SharedMemory memory_;
};

}  // namespace xdit::comm
