#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>

namespace xdit::comm {

/// What a rank did with peer memory. Counted and read from any thread.
class Use {
 public:
  void send(std::int64_t bytes) { sent_ += static_cast<std::uint64_t>(bytes); }
  void take(std::uint64_t bytes) {
    const std::uint64_t now = taken_ += bytes;
    std::uint64_t peak = peak_;
    while (peak < now && !peak_.compare_exchange_weak(peak, now)) continue;
  }
  void give_back(std::uint64_t bytes) { taken_ -= bytes; }
  /// Counts bytes anew, and the peak from what is taken.
  void restart() {
    sent_ = 0;
    peak_ = taken_.load();
  }
  void wait(std::chrono::nanoseconds time) { waited_ns_ += static_cast<std::uint64_t>(time.count()); }

  [[nodiscard]] std::uint64_t bytes_sent() const { return sent_; }  ///< to other ranks, or read of theirs
  [[nodiscard]] std::uint64_t peak_device_bytes() const { return peak_; }  ///< of its blocks on a GPU
  /// The host, for signals of other ranks; for a device's stream see PeerMemory::waited_s.
  [[nodiscard]] double waited_s() const { return static_cast<double>(waited_ns_) / 1e9; }

 private:
  std::atomic<std::uint64_t> sent_{0};
  std::atomic<std::uint64_t> taken_{0};
  std::atomic<std::uint64_t> peak_{0};
  std::atomic<std::uint64_t> waited_ns_{0};
};

}  // namespace xdit::comm
