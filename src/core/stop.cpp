#include "core/stop.h"

#include <csignal>

namespace xdit {

void StopToken::check() const {
  const int received = signal();
  if (received == 0) return;
  if (received == SIGINT) throw Error(ExitCode::kInterrupted, "interrupted");
  throw Error(ExitCode::kTerminated, "terminated");
}

}  // namespace xdit
