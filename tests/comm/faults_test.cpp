#include <fmt/format.h>
#include <sched.h>
#include <signal.h>  // NOLINT: kill is POSIX's
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "comm/group.h"
#include "comm/shared_memory.h"
#include "core/file.h"
#include "tests/catch.h"
#include "tests/comm/memory.h"
#include "tests/comm/ranks.h"
#include "tests/scratch.h"

using namespace xdit::comm;
using namespace xdit::tests;
using namespace std::chrono_literals;

namespace {

// Contexts on a GPU take their time to come and go.
double soon() {
  return on_gpu() ? 20 : 5;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Comes in a rank; its parent waits for it.
class Moment {
 public:
  void come() const { word().store(1); }
  void wait() const {
    while (word().load() == 0) ::usleep(1'000);
  }

 private:
  [[nodiscard]] std::atomic_ref<int> word() const {
    return std::atomic_ref(*reinterpret_cast<int*>(memory_.data()));
  }
  SharedMemory memory_ = SharedMemory::create(sizeof(int));
};

// Gathers until something ends it.
void gather_forever(Group& group, const Moment& under_way) {
  PeerBuffer buffer = group.allocate(group.size());
  std::vector<Range> parts;
  for (const int peer : group.everyone()) parts.push_back({peer, 1});
  const auto mine = hold(std::vector{std::byte{1}});
  while (true) {
    group.all_gather_v(mine.get(), parts, buffer);
    settle(group);
    under_way.come();
  }
}

void expect_fault(const std::string& fault, const std::string& text) {
  INFO(fault);
  CHECK(fault.find(text) != std::string::npos);
}

// Entries of the folder whose names hold `part`.
std::int64_t entries(const char* folder, const std::string& part = {}) {
  std::int64_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().filename().string().find(part) != std::string::npos) ++count;
  }
  return count;
}

std::int64_t mappings() {
  std::ifstream file("/proc/self/maps");
  std::int64_t lines = 0;
  for (std::string line; std::getline(file, line);) ++lines;
  return lines;
}

// What a TCPStore does, over a folder.
class FolderStore : public Store {
 public:
  explicit FolderStore(std::filesystem::path folder) : folder_(std::move(folder)) {}
  void set(const std::string& key, const std::string& value) override {
    const std::filesystem::path file = at(key);
    std::ofstream(file.string() + ".new") << value;
    std::filesystem::rename(file.string() + ".new", file);
  }
  std::string get(const std::string& key) override {
    while (!std::filesystem::exists(at(key))) ::usleep(1000);
    return xdit::read_file(at(key), xdit::ExitCode::kRank);
  }

 private:
  [[nodiscard]] std::filesystem::path at(std::string key) const {
    std::ranges::replace(key, '/', '-');
    return folder_ / key;
  }
  std::filesystem::path folder_;
};

}  // namespace

TEST_CASE("a killed rank is noticed at the timeout, by name") {
  const auto start = std::chrono::steady_clock::now();
  const Moment under_way;
  const auto body = [&](Rank& self) {
    self.group.barrier();
    settle(self.group);
    if (self.group.rank() == 2) ::raise(SIGKILL);
    gather_forever(self.group, under_way);
  };
  const Failures failures = run_ranks(4, body, {.timeout = 700ms});
  REQUIRE(failures.size() == 4);
  CHECK(failures[2] == "2: signal 9");
  int saw = 0;
  for (const int rank : {0, 1, 3}) {
    expect_fault(failures[rank], fmt::format("rank {} heard nothing from rank ", rank));
    expect_fault(failures[rank], "for 0.7 s");
    if (failures[rank].find("from rank 2 ") != std::string::npos) ++saw;
  }
  CHECK(saw >= 1);
  CHECK(seconds_since(start) < soon());
}

TEST_CASE("a launcher that aborts the job frees the others at once, whatever the timeout") {
  const auto start = std::chrono::steady_clock::now();
  const Moment under_way;
  const Launch launch{.timeout = 10min, .watch = [&](const Job& job, const std::vector<pid_t>& processes) {
                        under_way.wait();
                        ::kill(processes[1], SIGKILL);
                        siginfo_t ended;
                        ::waitid(P_PID, static_cast<id_t>(processes[1]), &ended, WEXITED | WNOWAIT);
                        job.abort(1);
                        job.abort(-1);  // comes second: the first cause stays
                      }};
  const Failures failures = run_ranks(
      8, [&](Rank& self) { gather_forever(self.group, under_way); }, launch);
  REQUIRE(failures.size() == 8);
  CHECK(failures[1] == "1: signal 9");
  for (const int rank : {0, 2, 3, 4, 5, 6, 7}) {
    expect_fault(failures[rank], fmt::format("rank 1 failed while rank {} waited for rank ", rank));
  }
  CHECK(seconds_since(start) < soon());
}

TEST_CASE("a stopped rank is noticed at the timeout") {
  const Moment under_way;
  const Launch launch{.timeout = 500ms, .watch = [&](const Job& job, const std::vector<pid_t>& processes) {
                        under_way.wait();
                        ::kill(processes[0], SIGSTOP);
                        ::usleep(1'000'000);
                        job.abort(0);
                        ::kill(processes[0], SIGCONT);
                      }};
  const Failures failures = run_ranks(
      2, [&](Rank& self) { gather_forever(self.group, under_way); }, launch);
  REQUIRE(failures.size() == 2);
  expect_fault(failures[1], "rank 1 heard nothing from rank 0 for 0.5 s");
}

TEST_CASE("time in which the waiting rank itself was stopped does not count") {
  const Moment under_way;
  const Launch launch{.timeout = 1s, .watch = [&](const Job&, const std::vector<pid_t>& processes) {
                        under_way.wait();
                        ::usleep(100'000);
                        for (const pid_t process : processes) ::kill(process, SIGSTOP);
                        ::usleep(1'500'000);
                        for (const pid_t process : processes) ::kill(process, SIGCONT);
                      }};
  CHECK(run_ranks(
            2,
            [&](Rank& self) {
              if (self.group.rank() == 0) {
                under_way.come();
                for (int i = 0; i < 30; ++i) ::usleep(10'000);
              }
              self.group.barrier();
              settle(self.group);
            },
            launch) == kNone);
}

TEST_CASE("an operation that waits is named") {
  const std::chrono::milliseconds timeout = on_gpu() ? 1000ms : 300ms;
  const std::string silence =
      fmt::format(": rank 0 heard nothing from rank 1 for {} s", on_gpu() ? "1" : "0.3");
  const auto named = [&](const std::function<void(Group&, PeerBuffer&)>& operation) {
    const auto body = [&](Rank& self) {
      PeerBuffer buffer = self.group.allocate(64);
      if (self.group.rank() != 0) return;
      operation(self.group, buffer);
      settle(self.group);
    };
    const Failures failures = run_ranks(2, body, {.timeout = timeout});
    REQUIRE(failures.size() == 1);
    return failures[0].substr(0, failures[0].find(silence));
  };
  const std::vector<Range> parts{{0, 1}, {1, 1}};
  CHECK(named([](Group& group, PeerBuffer&) { group.barrier(); }) == "0: barrier");
  CHECK(named([&](Group& group, PeerBuffer& to) { group.all_gather_v(to.data(), parts, to); }) ==
        "0: all_gather");
  CHECK(named([](Group& group, PeerBuffer& to) { group.all_to_all_v({}, to); }) == "0: all_to_all");
  CHECK(named([](Group& group, PeerBuffer& to) { group.broadcast(nullptr, 1, 1, to); }) == "0: broadcast");
  CHECK(named([&](Group& group, PeerBuffer& to) {
          auto* const values = reinterpret_cast<float*>(to.data());
          group.sum(values, {parts.data(), 2}, to, values);
        }) == "0: sum");
  CHECK(named([](Group& group, PeerBuffer&) { static_cast<void>(group.split(0)); }) == "0: share");
  CHECK(named([](Group&, PeerBuffer& to) { to.put({}, {1}); }) == "0: send");
  CHECK(named([](Group&, PeerBuffer& to) { to.arrive({1}); }) == "0: receive");
}

TEST_CASE("a rank that never comes ends the rendezvous") {
  const std::shared_ptr<Job> job = Job::create(3);
  const Failures failures = run_processes(3, [&](int rank) {
    if (rank == 1) return;
    Group::world(job, rank, 300ms);
  });
  REQUIRE(failures.size() == 2);
  expect_fault(failures[0], "rendezvous: rank 0 heard nothing from rank 1");
}

TEST_CASE("ranks of a job meet again and again, and when it was renewed after a failure") {
  const std::shared_ptr<Job> job = Job::create(3);
  const auto meet = [&](int rank) {
    for (int turn = 0; turn < 3; ++turn) {
      Group group = Group::world(job, rank, 20s);
      PeerBuffer buffer = group.allocate(3);
      const std::byte mine = mark(rank, turn);
      for (int peer = 0; peer < 3; ++peer) expect(buffer.data()[peer] == std::byte{0}, "new memory");
      group.all_gather_v(&mine, std::vector<Range>{{0, 1}, {1, 1}, {2, 1}}, buffer);
      for (int peer = 0; peer < 3; ++peer) expect(buffer.data()[peer] == mark(peer, turn), "gathered");
    }
  };
  CHECK(run_processes(3, meet) == kNone);
  CHECK(job->card(1).ready == 3);
  job->abort(1);
  job->renew();
  CHECK(job->renewals() == 1);
  CHECK_FALSE(job->aborted());
  CHECK(run_processes(3, meet) == kNone);
}

TEST_CASE("ranks without a common parent meet through a store") {
  const Scratch folder;
  FolderStore store(folder.path());
  CHECK(run_processes(3, [&](int rank) {
          Group group = Group::world(Job::join(store, rank, 3), rank, 20s);
          PeerBuffer buffer = group.allocate(3);
          const std::vector<Range> parts{{0, 1}, {1, 1}, {2, 1}};
          const std::byte mine = mark(rank, 0);
          group.all_gather_v(&mine, parts, buffer);
          for (int peer = 0; peer < 3; ++peer) expect(buffer.data()[peer] == mark(peer, 0), "gathered");
        }) == kNone);
}

TEST_CASE("a job is attached to by its descriptor") {
  const std::shared_ptr<Job> job = Job::create(5);
  const std::shared_ptr<Job> again = Job::attach(::dup(job->descriptor()));
  CHECK(again->size() == 5);
  CHECK_FALSE(again->aborted());
  job->abort(-1);
  CHECK(again->aborted() == -1);
  again->abort(4);
  CHECK(job->aborted() == -1);
}

TEST_CASE("another process's descriptor of the same number is refused") {
  const SharedMemory memory = SharedMemory::create(4096);
  SharedMemory::Address address = memory.address();
  CHECK(SharedMemory::open(address, "rank 1").bytes() == 4096);
  ++address.inode;
  REQUIRE_THROWS_AS(SharedMemory::open(address, "rank 1"), xdit::Error);
  address.descriptor = 100'000;
  REQUIRE_THROWS_AS(SharedMemory::open(address, "rank 1"), xdit::Error);
}

TEST_CASE("buffers and groups leave neither descriptors nor mappings nor names") {
  if (on_gpu()) return;  // CUDA keeps both as it likes
  CHECK(run_ranks(3, [](Rank& self) {
          const std::int64_t descriptors = entries("/proc/self/fd");
          const auto round = [&] {
            Group pair = self.group.split(self.group.rank() / 2);
            PeerBuffer one = self.group.allocate(1 << 20);
            PeerBuffer two = pair.allocate(100);
            std::memset(one.data(), 1, 1 << 20);
            expect(entries("/proc/self/fd") == descriptors, "a buffer keeps no descriptor");
            pair.barrier();
            self.group.barrier();
          };
          round();
          const std::int64_t mapped = mappings();
          for (int i = 0; i < 50; ++i) round();
          expect(mappings() <= mapped + 8, "mappings");  // the heap may grow by some
          self.group.barrier();
          ::raise(SIGKILL);
        }) == Failures{"0: signal 9", "1: signal 9", "2: signal 9"});
  CHECK(entries("/dev/shm", "xdit") == 0);
}
