#pragma once
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "comm/group.h"
#include "comm/job.h"

namespace xdit::tests {

using comm::Group;
using comm::Job;
using comm::Range;
using Failures = std::vector<std::string>;
inline const Failures kNone;

/// Fails the rank that calls it.
void expect(bool condition, const std::string& what);

struct Rank {
  Group& group;
  const Job& job;
};
struct Launch {
  std::chrono::nanoseconds timeout = std::chrono::seconds(30);
  /// Runs in the parent beside the ranks.
  std::function<void(const Job& job, const std::vector<pid_t>& processes)> watch = nullptr;
};

/// Forks `size` processes, makes the group of all and runs `body` in each. Returns what they threw
/// ("0: message") and how those that a signal ended died ("0: signal 9"), in the order of ranks.
[[nodiscard]] Failures run_ranks(int size, const std::function<void(Rank&)>& body, const Launch& launch = {});

/// Forks `size` processes; what they throw as above.
[[nodiscard]] Failures run_processes(int size, const std::function<void(int rank)>& body,
                                     const std::function<void(const std::vector<pid_t>&)>& watch = {});

/// Cuts `total` into `size` ranges of random lengths, empty ones included. Equal generators cut alike.
[[nodiscard]] std::vector<Range> cut(std::int64_t total, int size, std::mt19937& random);

/// Ranges of these lengths, one after the other.
[[nodiscard]] std::vector<Range> in_a_row(const std::vector<std::int64_t>& lengths);

/// A byte that tells where and when it belongs.
[[nodiscard]] std::byte mark(std::int64_t index, std::int64_t salt);

}  // namespace xdit::tests
