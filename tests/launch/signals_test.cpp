// The executable as users start it, with signals from outside.
#include <fcntl.h>
#include <signal.h>  // NOLINT: kill is POSIX's
#include <unistd.h>

#include <array>
#include <filesystem>

#include "launch/clock.h"
#include "tests/catch.h"
#include "tests/cli/process.h"
#include "tests/launch/processes.h"
#include "tests/launch/small_run.h"

namespace xdit::launch {
namespace {

namespace fs = std::filesystem;
using test::arguments;

// xdit-gen with three ranks that make pictures for long, started and at work.
struct Running {
  explicit Running(const fs::path& folder) {
    REQUIRE(::pipe2(pipe.data(), O_CLOEXEC) == 0);
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    launcher = cli::start(arguments(folder, {"--steps", "2", "--count", "10000", "--gpus", "3"}),
                          {"OMP_NUM_THREADS=1"}, null, pipe[1], null);
    for (const int descriptor : {null, pipe[1]}) ::close(descriptor);
    char byte = 0;
    REQUIRE(::read(pipe[0], &byte, 1) == 1);  // a picture's path
    ranks = test::children_of(launcher);
    REQUIRE(ranks.size() == 3);
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  ~Running() {
    for (const pid_t child : test::children_of(::getpid()))  // not when it has been waited for
      if (child == launcher) ::kill(child, SIGKILL);
    ::close(pipe[0]);
  }
  // Whether all ranks are gone within so many seconds.
  [[nodiscard]] bool ranks_end(double seconds) const {
    const double until = now_s() + seconds;
    while (!test::all_gone(ranks) && now_s() < until) ::usleep(10'000);
    return test::all_gone(ranks);
  }

  std::array<int, 2> pipe{};
  pid_t launcher = 0;
  std::vector<pid_t> ranks;
};

}  // namespace

TEST_CASE("the launcher killed: no rank stays, no partial file") {
  const cli::Folder folder;
  const Running running(folder.path);
  ::kill(running.launcher, SIGKILL);
  CHECK(cli::wait_for(running.launcher) == 256 + SIGKILL);
  CHECK(running.ranks_end(10));
  CHECK(test::only_whole_pictures(folder.path));
}

TEST_CASE("SIGINT to every process, as Ctrl-C does, and SIGTERM to the launcher: 130 and 143 within 5 s") {
  for (const int signal : {SIGINT, SIGTERM}) {
    CAPTURE(signal);
    const cli::Folder folder;
    const Running running(folder.path);
    const double begun = now_s();
    if (signal == SIGINT)
      for (const pid_t rank : running.ranks) ::kill(rank, signal);
    ::kill(running.launcher, signal);
    CHECK(cli::wait_for(running.launcher) == 128 + signal);
    CHECK(now_s() - begun < 5);
    CHECK(test::all_gone(running.ranks));
    CHECK(test::only_whole_pictures(folder.path));
  }
}

TEST_CASE("Ctrl-C with a rank that hangs: 130 within 5 s; a second one ends at once") {
  const cli::Folder folder;
  SECTION("once") {
    const Running running(folder.path);
    ::kill(running.ranks[1], SIGSTOP);
    const double begun = now_s();
    ::kill(running.launcher, SIGINT);
    CHECK(cli::wait_for(running.launcher) == 130);
    CHECK(now_s() - begun < 5);
    CHECK(test::all_gone(running.ranks));
  }
  SECTION("twice") {
    const Running running(folder.path);
    ::kill(running.ranks[1], SIGSTOP);
    ::kill(running.launcher, SIGINT);
    ::usleep(300'000);
    const double begun = now_s();
    ::kill(running.launcher, SIGINT);
    CHECK(cli::wait_for(running.launcher) == 256 + SIGINT);
    CHECK(now_s() - begun < 1);
    CHECK(running.ranks_end(10));
  }
}

TEST_CASE("a launcher that was stopped for longer than the timeout goes on") {
  const cli::Folder folder;
  const cli::Folder input;
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  const pid_t launcher = cli::start(arguments(folder.path, {"--steps", "300", "--count", "2", "--gpus", "2",
                                                            "--set", "runtime.timeout=2s"}),
                                    {"OMP_NUM_THREADS=1"}, null, null, null);
  ::close(null);
  const double until = now_s() + 10;
  while (test::children_of(launcher).size() < 2 && now_s() < until) ::usleep(10'000);
  const std::vector<pid_t> ranks = test::children_of(launcher);
  REQUIRE(ranks.size() == 2);
  for (const int signal : {SIGSTOP, SIGCONT}) {  // as Ctrl-Z and fg
    for (const pid_t process : {launcher, ranks[0], ranks[1]}) ::kill(process, signal);
    if (signal == SIGSTOP) ::usleep(3'000'000);
  }
  CHECK(cli::wait_for(launcher) == 0);
  CHECK(fs::exists(folder.path / "1.png"));
}

TEST_CASE("ranks that wait for one that failed learn of it even while the launcher is stopped") {
  const cli::Folder folder;
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  const pid_t launcher = cli::start(
      arguments(folder.path / "out", {"--steps", "10", "--count", "4", "--gpus", "2", "--gather", "2"}),
      {"OMP_NUM_THREADS=1"}, null, null, null);
  ::close(null);
  double until = now_s() + 10;
  while (test::children_of(launcher).size() < 2 && now_s() < until) ::usleep(10'000);
  const std::vector<pid_t> ranks = test::children_of(launcher);
  REQUIRE(ranks.size() == 2);
  ::kill(launcher, SIGSTOP);
  static_cast<void>(folder.write("out", "a file"));
  until = now_s() + 30;  // half of runtime.timeout
  while (!test::all_gone(ranks) && now_s() < until) ::usleep(10'000);
  CHECK(test::all_gone(ranks));
  ::kill(launcher, SIGCONT);
  CHECK(cli::wait_for(launcher) == 8);
}

}  // namespace xdit::launch
