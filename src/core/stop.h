#pragma once
#include <atomic>

#include "core/error.h"

namespace xdit {

/// Set by a signal handler, polled between steps. Lock-free, so safe in a handler.
class StopToken {
 public:
  void request(int signal) noexcept { signal_.store(signal, std::memory_order_relaxed); }
  [[nodiscard]] int signal() const noexcept { return signal_.load(std::memory_order_relaxed); }
  /// Throws Error(kInterrupted or kTerminated) once a stop was requested.
  void check() const;

 private:
  std::atomic<int> signal_{0};
};

}  // namespace xdit
