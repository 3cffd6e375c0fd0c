// The executable as a rank that another launcher has started.
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>  // NOLINT: kill is POSIX's
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

#include "launch/clock.h"
#include "tests/catch.h"
#include "tests/launch/processes.h"
#include "tests/launch/small_run.h"

namespace xdit::launch {
namespace {

namespace fs = std::filesystem;
using test::arguments;
using test::contents;

std::string quoted(const std::vector<std::string>& run) {
  std::string command = XDIT_GEN;
  for (const std::string& argument : run) command += " '" + argument + "'";
  return command;
}

void check_alike(const fs::path& one, const fs::path& two, int pictures) {
  for (int i = 0; i < pictures; ++i) {
    const std::string name = std::to_string(i) + ".png";
    CAPTURE(name);
    CHECK((contents(two / name) == contents(one / name)));
  }
}

void run_alone(const fs::path& folder, const std::vector<std::string>& more) {
  REQUIRE(cli::xdit_gen(arguments(folder, more), {.environment = {"OMP_NUM_THREADS=1"}}).code == 0);
}

const std::string kTorchrun = XDIT_SOURCE "/.venv/bin/torchrun";

// `command` in each of `ranks` processes that torchrun starts.
void run_under_torchrun(int ranks, const std::string& command) {
  const cli::Folder folder;
  const std::string script = folder.write("script", command);
  const std::string out = folder.path / "out";
  const int status =
      std::system(("OMP_NUM_THREADS=1 " + kTorchrun + " --no-python --nproc_per_node " +
                   std::to_string(ranks) + " --standalone sh -e " + script + " >" + out + " 2>&1")
                      .c_str());
  INFO(contents(out));
  CHECK(status == 0);
}

int free_port() {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  REQUIRE(::bind(socket, any, size) == 0);
  REQUIRE(::getsockname(socket, any, &size) == 0);
  ::close(socket);
  return ntohs(address.sin_port);
}

// The ranks of a job that nobody watches, as srun starts them.
class Ranks {
 public:
  Ranks(int size, int port, const std::vector<std::string>& run) {
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int rank = 0; rank < size; ++rank) {
      const int error = ::open(said(rank).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
      processes.push_back(cli::start(
          run,
          {"OMP_NUM_THREADS=1", "RANK=" + std::to_string(rank), "WORLD_SIZE=" + std::to_string(size),
           "MASTER_ADDR=localhost", "MASTER_PORT=" + std::to_string(port)},
          null, null, error));
      ::close(error);
    }
    ::close(null);
  }
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;
  ~Ranks() {
    for (const pid_t child : test::children_of(::getpid())) ::kill(child, SIGKILL);
  }
  // The code of a rank that has ended within so many seconds; -1 for none.
  [[nodiscard]] int code(std::size_t rank, double seconds) const {
    const double until = now_s() + seconds;
    while (!test::is_gone(processes[rank]) && now_s() < until) ::usleep(10'000);
    return test::is_gone(processes[rank]) ? cli::wait_for(processes[rank]) : -1;
  }
  [[nodiscard]] std::string said(int rank) const { return folder_.path / std::to_string(rank); }

  std::vector<pid_t> processes;

 private:
  cli::Folder folder_;
};

}  // namespace

TEST_CASE("under torchrun: two processes are two ranks and start none") {
  if (!fs::exists(kTorchrun)) return;
  const cli::Folder one;
  const cli::Folder two;
  const std::vector<std::string> run{"--steps", "2", "--count", "3"};
  run_alone(one.path, run);
  run_under_torchrun(2,
                     quoted(arguments(two.path, run)) + " --report " + (two.path / "report.json").string());
  check_alike(one.path, two.path, 3);
  CHECK_THAT(contents(two.path / "report.json"), ContainsSubstring("\"parallel.gpus\": \"2\""));
}

TEST_CASE("under torchrun: ranks share pictures, in two runs one after the other") {
  if (!fs::exists(kTorchrun)) return;
  const cli::Folder one;
  const cli::Folder two;
  const cli::Folder again;
  run_alone(one.path, {"--steps", "2", "--count", "2"});
  const std::vector<std::string> shared{"--steps", "2", "--count", "2", "--data", "1"};
  run_under_torchrun(3, quoted(arguments(two.path, shared)) + "\n" + quoted(arguments(again.path, shared)));
  check_alike(one.path, two.path, 2);
  check_alike(one.path, again.path, 2);
}

TEST_CASE("ranks that nobody serves meet at rank 0, again and again on one port") {
  const cli::Folder one;
  run_alone(one.path, {"--steps", "2"});
  const int port = free_port();
  for (int turn = 0; turn < 2; ++turn) {
    CAPTURE(turn);
    const cli::Folder two;
    const Ranks ranks(2, port, arguments(two.path, {"--steps", "2"}));
    for (const int rank : {0, 1}) {
      CHECK(ranks.code(static_cast<std::size_t>(rank), 60) == 0);
      CHECK(contents(ranks.said(rank)).find("socket") == std::string::npos);
    }
    check_alike(one.path, two.path, 1);
  }
}

TEST_CASE("a joined rank that ends tells its peers, long before their timeout") {
  const cli::Folder folder;
  const Ranks ranks(2, free_port(),
                    arguments(folder.path, {"--steps", "2", "--count", "10000", "--data", "1"}));
  const double until = now_s() + 30;
  while (!fs::exists(folder.path / "0.png") && now_s() < until) ::usleep(10'000);
  REQUIRE(fs::exists(folder.path / "0.png"));
  ::kill(ranks.processes[0], SIGINT);
  CHECK(ranks.code(0, 10) == 130);
  CHECK(ranks.code(1, 10) == 7);
  CHECK_THAT(contents(ranks.said(1)), ContainsSubstring("rank 0 failed while rank 1 waited for rank 0"));
  CHECK(test::only_whole_pictures(folder.path));
}

TEST_CASE("ranks that cannot meet say where, within the timeout") {
  const cli::Folder folder;
  std::vector<std::string> run = arguments(folder.path, {"--steps", "2", "--set", "runtime.timeout=1s"});
  const std::string port = std::to_string(free_port());
  for (const char* rank : {"RANK=0", "RANK=1"}) {
    CAPTURE(rank);
    const cli::Result alone = cli::xdit_gen(
        run, {.environment = {"WORLD_SIZE=2", "MASTER_ADDR=localhost", "MASTER_PORT=" + port, rank}});
    CHECK(alone.code == 7);
    CHECK_THAT(alone.err, ContainsSubstring("localhost:" + port) && ContainsSubstring("MASTER_PORT"));
  }
}

TEST_CASE("a seed that every joined process would draw by itself is refused, with one to type") {
  const cli::Folder folder;
  const cli::Result result =
      cli::xdit_gen(arguments(folder.path, {"-s", "-1"}), {.environment = {"RANK=0", "WORLD_SIZE=2"}});
  CHECK(result.code == 2);
  CHECK_THAT(result.err, Catch::Matchers::Matches("[^]*--seed: [^]*try: -s [0-9]+[^]*"));
}

}  // namespace xdit::launch
