#include "comm/wait_error.h"

#include <fmt/format.h>

namespace xdit::comm {

Error aborted_wait(int failed, int rank, int peer, const char* operation) {
  const std::string who = failed < 0 ? "the job was ended" : fmt::format("rank {} failed", failed);
  return {ExitCode::kRank, fmt::format("{} while rank {} waited for rank {}", who, rank, peer), operation};
}

Error silent_peer(int rank, int peer, std::chrono::nanoseconds timeout, const char* operation) {
  return {ExitCode::kRank,
          fmt::format("rank {} heard nothing from rank {} for {} s", rank, peer,
                      std::chrono::duration<double>(timeout).count()),
          operation, "see what that rank said last, or raise runtime.timeout if it was only slow"};
}

}  // namespace xdit::comm
