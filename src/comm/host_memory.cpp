#include "comm/host_memory.h"

#include <fmt/format.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <climits>
#include <cstring>
#include <ctime>
#include <thread>
#include <type_traits>
#include <utility>

#include "comm/wait_error.h"

namespace xdit::comm {
namespace {

using std::chrono::nanoseconds;

constexpr int kYields = 32;                                    // before the first sleep: a few microseconds
constexpr nanoseconds kSlice = std::chrono::milliseconds(50);  // how soon an abort is seen

class HostBlock : public Block {
 public:
  explicit HostBlock(SharedMemory memory) : memory_(std::move(memory)) {}
  [[nodiscard]] std::byte* data() const noexcept override { return memory_.data(); }
  void opened() override { memory_.close_descriptor(); }

 private:
  SharedMemory memory_;
};

// A futex is 32 bits wide: it sleeps on the low half of an epoch.
static_assert(std::endian::native == std::endian::little);
static_assert(std::atomic_ref<std::uint64_t>::is_always_lock_free);

void futex_wait(std::uint64_t* word, std::uint64_t seen, nanoseconds timeout) {
  const timespec time{static_cast<std::time_t>(timeout.count() / 1'000'000'000),
                      timeout.count() % 1'000'000'000};
  ::syscall(SYS_futex, word, FUTEX_WAIT, static_cast<std::uint32_t>(seen), &time, nullptr, 0);
}

void futex_wake(std::uint64_t* word) {
  ::syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace

SharedMemory create_shared(std::int64_t bytes, Handle* handle) {
  SharedMemory memory = SharedMemory::create(bytes);
  const SharedMemory::Address address = memory.address();
  static_assert(std::is_trivially_copyable_v<SharedMemory::Address> && sizeof address <= sizeof *handle);
  if (handle != nullptr)
    std::memcpy(handle->data(), &address, sizeof address);
  else
    memory.close_descriptor();
  return memory;
}

SharedMemory open_shared(const Handle& handle, int peer) {
  SharedMemory::Address address{};
  std::memcpy(&address, handle.data(), sizeof address);
  SharedMemory memory = SharedMemory::open(address, fmt::format("rank {}", peer));
  memory.close_descriptor();
  return memory;
}

std::unique_ptr<Block> HostMemory::create(std::int64_t bytes, Handle* handle) {
  return std::make_unique<HostBlock>(create_shared(bytes, handle));
}

std::unique_ptr<Block> HostMemory::open(const Handle& handle, int peer) {
  return std::make_unique<HostBlock>(open_shared(handle, peer));
}

void HostMemory::copy(std::span<const Copy> copies, Stream) {
  for (const Copy& copy : copies) {
    const auto row = static_cast<std::size_t>(copy.row_bytes);
    if (copy.from_stride == copy.row_bytes && copy.to_stride == copy.row_bytes) {
      std::memcpy(copy.to, copy.from, row * static_cast<std::size_t>(copy.rows));
      continue;
    }
    for (std::int64_t i = 0; i < copy.rows; ++i) {
      std::memcpy(copy.to + i * copy.to_stride, copy.from + i * copy.from_stride, row);
    }
  }
}

void HostMemory::raise(std::span<const Flag> flags, Stream) {
  for (const Flag& flag : flags) {
    std::atomic_ref(*flag.word).store(++*flag.count, std::memory_order_release);
    futex_wake(flag.word);
  }
}

void HostMemory::await(std::span<const Flag> flags, const char* operation, Stream) {
  for (const Flag& flag : flags) await(flag, operation);
}

void HostMemory::await(const Flag& flag, const char* operation) {
  const std::uint64_t epoch = ++*flag.count;
  const std::atomic_ref word(*flag.word);
  if (word.load(std::memory_order_acquire) >= epoch) return;
  const auto begun = std::chrono::steady_clock::now();
  nanoseconds waited{0};
  for (int turn = 0;; ++turn) {
    const std::uint64_t seen = word.load(std::memory_order_acquire);
    if (seen >= epoch) return use().wait(std::chrono::steady_clock::now() - begun);
    if (turn < kYields) {
      std::this_thread::yield();
      continue;
    }
    if (const auto failed = job_->aborted()) throw aborted_wait(*failed, rank_, flag.peer, operation);
    if (waited >= timeout_) throw silent_peer(rank_, flag.peer, timeout_, operation);
    const auto start = std::chrono::steady_clock::now();
    const nanoseconds slice = std::min(kSlice, timeout_ - waited);
    futex_wait(flag.word, seen, slice);
    waited += std::min<nanoseconds>(slice, std::chrono::steady_clock::now() - start);
  }
}

void HostMemory::sum(float* to, std::span<const float* const> terms, std::int64_t count, Stream) {
  std::copy_n(terms[0], count, to);
  for (const float* const term : terms.subspan(1)) {
    for (std::int64_t i = 0; i < count; ++i) to[i] += term[i];
  }
}

}  // namespace xdit::comm
