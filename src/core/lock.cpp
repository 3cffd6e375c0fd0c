#include "core/lock.h"

#include <sys/file.h>

#include <cerrno>
#include <chrono>
#include <thread>

namespace xdit {

void lock_alone(const File& file, const std::filesystem::path& path, const std::string& busy,
                const std::string& fix) {
  constexpr auto kWait = std::chrono::seconds(3);
  const auto until = std::chrono::steady_clock::now() + kWait;
  while (::flock(file.descriptor(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return;
    if (std::chrono::steady_clock::now() > until) throw Error(ExitCode::kOutput, busy, path.string(), fix);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace xdit
