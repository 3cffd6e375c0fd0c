#pragma once
#include <chrono>

#include "core/error.h"

/// What a rank that waited in vain throws, whatever memory it waited on.
namespace xdit::comm {

/// `failed`: the rank that aborted the job, -1 for none.
[[nodiscard]] Error aborted_wait(int failed, int rank, int peer, const char* operation);
[[nodiscard]] Error silent_peer(int rank, int peer, std::chrono::nanoseconds timeout, const char* operation);

}  // namespace xdit::comm
