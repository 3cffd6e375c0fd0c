#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

namespace xdit::weights {

/// Bytes of a file and where they go (host or device memory, the Destination decides).
struct Read {
  std::int32_t file = 0;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  std::byte* to = nullptr;
  std::int32_t memory = 0;  ///< reads of one number go to one allocation: small neighbours move together
};

/// One reading thread's way to the destination memory. `stage` returns where to put `bytes` bytes meant for
/// `to` (for host memory: `to` itself; for a device: a pinned buffer that is free again), `commit` says that
/// they are there.
class Destination {
 public:
  Destination() = default;
  Destination(const Destination&) = delete;
  Destination& operator=(const Destination&) = delete;
  virtual ~Destination() = default;
  [[nodiscard]] virtual std::byte* stage(std::byte* to, std::size_t bytes) = 0;
  virtual void commit(std::byte* to, std::size_t bytes) = 0;
  /// Returns when everything committed has arrived. Not called after an error: then the destructor waits.
  virtual void finish() = 0;
};

/// Host memory: bytes are read where they belong.
[[nodiscard]] std::unique_ptr<Destination> host_destination();

/// Largest piece that `stage` is asked for.
inline constexpr std::size_t kChunkBytes = std::size_t{8} << 20U;

/// Reads all pieces with pread, one thread a destination, in chunks of at most kChunkBytes that the threads
/// take in the order of the files' bytes. A file that ends early is Error(kModel) naming it (never SIGBUS).
/// The first error ends the other threads and is thrown.
void read_all(std::span<const std::filesystem::path> files, std::span<const Read> reads,
              std::span<const std::unique_ptr<Destination>> threads);

}  // namespace xdit::weights
