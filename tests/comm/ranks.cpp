#include "tests/comm/ranks.h"

#include <fmt/format.h>
#include <signal.h>  // NOLINT: SIGKILL and prctl are POSIX's
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <exception>
#include <stdexcept>

#include "tests/comm/memory.h"

namespace xdit::tests {

void expect(bool condition, const std::string& what) {
  if (!condition) throw std::runtime_error(what);
}

Failures run_processes(int size, const std::function<void(int)>& body,
                       const std::function<void(const std::vector<pid_t>&)>& watch) {
  std::vector<pid_t> processes;
  std::vector<int> ends;
  const pid_t parent = ::getpid();
  for (int rank = 0; rank < size; ++rank) {
    std::array<int, 2> pipe{};
    if (::pipe(pipe.data()) != 0) throw std::runtime_error("no pipe");
    const pid_t process = ::fork();
    if (process < 0) throw std::runtime_error("no process");
    if (process == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() != parent) ::_exit(2);
      std::string said;
      try {
        body(rank);
      } catch (const std::exception& error) {
        said = error.what();
      }
      const bool told = ::write(pipe[1], said.data(), said.size()) == static_cast<ssize_t>(said.size());
      ::_exit(told ? 0 : 3);
    }
    ::close(pipe[1]);
    processes.push_back(process);
    ends.push_back(pipe[0]);
  }
  if (watch) watch(processes);

  Failures failures;
  for (int rank = 0; rank < size; ++rank) {
    std::string said;
    std::array<char, 4096> bytes{};
    for (ssize_t count = 0; (count = ::read(ends[rank], bytes.data(), bytes.size())) > 0;) {
      said.append(bytes.data(), static_cast<std::size_t>(count));
    }
    ::close(ends[rank]);
    int status = 0;
    ::waitpid(processes[rank], &status, 0);
    if (WIFSIGNALED(status)) said += fmt::format("signal {}", WTERMSIG(status));
    if (WIFEXITED(status) && WEXITSTATUS(status) != 0) said += fmt::format("exit {}", WEXITSTATUS(status));
    if (!said.empty()) failures.push_back(fmt::format("{}: {}", rank, said));
  }
  return failures;
}

Failures run_ranks(int size, const std::function<void(Rank&)>& body, const Launch& launch) {
  const std::shared_ptr<Job> job = Job::create(size);
  const std::shared_ptr<Job> start = Job::create(size);
  const auto one = [&](int rank) {
    const std::shared_ptr<comm::PeerMemory> memory = tested_memory(job, rank, launch.timeout);
    if (on_gpu())
      Group::world(start, rank, std::chrono::minutes(2));  // all GPUs are up before any timeout counts
    Group group = Group::world(job, rank, launch.timeout, memory);
    Rank self{group, *job};
    body(self);
  };
  return run_processes(size, one, [&](const std::vector<pid_t>& processes) {
    if (launch.watch) launch.watch(*job, processes);
  });
}

std::vector<Range> in_a_row(const std::vector<std::int64_t>& lengths) {
  std::vector<Range> ranges;
  ranges.reserve(lengths.size());
  for (std::int64_t first = 0; const std::int64_t length : lengths) {
    ranges.push_back({first, length});
    first += length;
  }
  return ranges;
}

std::vector<Range> cut(std::int64_t total, int size, std::mt19937& random) {
  std::vector<std::int64_t> ends(static_cast<std::size_t>(size), total);
  for (int i = 0; i + 1 < size; ++i) ends[i] = static_cast<std::int64_t>(random() % (total + 1));
  std::ranges::sort(ends);
  std::vector<Range> result;
  for (std::int64_t first = 0; const std::int64_t end : ends) {
    result.push_back({first, end - first});
    first = end;
  }
  return result;
}

std::byte mark(std::int64_t index, std::int64_t salt) {
  const std::uint64_t mixed = static_cast<std::uint64_t>(index * 31 + salt * 1009 + 7) * 0x9e3779b97f4a7c15U;
  return static_cast<std::byte>(mixed >> 56U);
}

}  // namespace xdit::tests
