#pragma once
#include <chrono>

namespace xdit::launch {

/// steady_clock in seconds: one clock for all processes of a machine.
[[nodiscard]] inline double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace xdit::launch
