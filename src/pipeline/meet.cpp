#include "pipeline/meet.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <string>
#include <thread>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <vector>

#include "core/error.h"

namespace xdit::pipeline {
namespace {

using std::chrono::milliseconds;

constexpr const char* kMeetingFix =
    "one MASTER_ADDR and MASTER_PORT for all ranks, of a port that nobody else uses";

c10d::TCPStoreOptions store_options(const Meeting& meeting, bool serves, milliseconds timeout) {
  c10d::TCPStoreOptions options;
  options.port = meeting.port;
  options.isServer = serves;
  options.waitWorkers = false;
  options.timeout = timeout;
  return options;
}

class TcpStore final : public comm::Store {
 public:
  TcpStore(const Meeting& meeting, int rank, milliseconds timeout, const StopToken& stop)
      : place_(fmt::format("{}:{}", meeting.host, meeting.port)),
        timeout_(timeout),
        stop_(stop),
        store_(meeting.host, store_options(meeting, rank == 0 && !meeting.served, timeout)) {
    // torchrun's store outlives a run: every rank counts those that it has seen.
    const std::string attempt = fmt::format("xdit-gen/{}/", meeting.attempt);
    run_ = attempt + std::to_string(store_.add(fmt::format("{}runs/{}", attempt, rank), 1)) + '/';
  }

  void set(const std::string& key, const std::string& value) override {
    store_.set(run_ + key, std::vector<std::uint8_t>(value.begin(), value.end()));
  }

  // c10d's own wait hears of no Ctrl-C.
  std::string get(const std::string& key) override {
    const auto until = std::chrono::steady_clock::now() + timeout_;
    while (!store_.check({run_ + key})) {
      stop_.check();
      if (std::chrono::steady_clock::now() > until)
        throw Error(ExitCode::kRank,
                    fmt::format("the ranks did not meet within {} s: nobody told '{}'",
                                std::chrono::duration<double>(timeout_).count(), key),
                    place_, kMeetingFix);
      std::this_thread::sleep_for(milliseconds(5));
    }
    const std::vector<std::uint8_t> value = store_.get(run_ + key);
    return {value.begin(), value.end()};
  }

 private:
  std::string place_;
  milliseconds timeout_;
  const StopToken& stop_;
  c10d::TCPStore store_;
  std::string run_;
};

}  // namespace

std::shared_ptr<const comm::Job> meet(const Meeting& meeting, int rank, int size, milliseconds timeout,
                                      const StopToken& stop) {
  try {
    TcpStore store(meeting, rank, timeout, stop);
    return comm::Job::join(store, rank, size);
  } catch (const c10::Error& error) {
    throw Error(ExitCode::kRank, error.what_without_backtrace(),
                fmt::format("{}:{}", meeting.host, meeting.port), kMeetingFix);
  }
}

}  // namespace xdit::pipeline
