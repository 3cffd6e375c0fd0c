// The supervisor over processes that do as a test wants: no rank library.
#include "launch/supervisor.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>

#include "launch/clock.h"
#include "launch/messages.h"
#include "tests/catch.h"

namespace xdit::launch {
namespace {

using nlohmann::json;
using Life = std::function<void(Channel& channel)>;

struct Heard final : pipeline::Listener {
  void begin(std::string_view phase, std::int64_t /*steps*/) override { phases.emplace_back(phase); }
  void advance(std::int64_t done) override {
    if (done == stop_at) stop.request(SIGINT);
  }
  void finish() override {}
  void picture(std::int64_t index) override { pictures.push_back(index); }
  void warn(std::string_view line) override {
    if (line == "throw") throw Error(ExitCode::kOutput, "nobody reads");
    warnings.emplace_back(line);
  }
  void tick() override { ++ticks; }
  int ticks = 0;
  std::vector<std::string> phases, warnings;
  std::vector<std::int64_t> pictures;
  std::int64_t stop_at = -1;
  StopToken stop;
};

struct Ended {
  ExitCode code = ExitCode::kOk;
  std::string what;
  double seconds = 0;
  output::Report report;
};

// A process for each life; a life that returns has ended without a word.
Ended supervise(const std::vector<Life>& lives, Heard& heard, double timeout_s = 60) {
  Ended ended;
  const double begun = now_s();
  try {
    Supervisor supervisor(timeout_s, /*stay=*/false);
    for (const Life& life : lives)
      supervisor.start([&](Channel channel, pid_t) {
        ::alarm(30);                    // nothing outlives the test for long
        std::signal(SIGSEGV, SIG_DFL);  // Catch2 handles it
        life(channel);
        ::_exit(3);
      });
    supervisor.wait(heard, heard.stop, ended.report);
  } catch (const Error& error) {
    ended.code = error.code();
    ended.what = error.what();
  }
  ended.seconds = now_s() - begun;
  const bool childless = ::waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD;
  CHECK(childless);  // nothing runs on, nothing is left to reap
  return ended;
}

// Speaks ten times a second until it hears of a stop.
void live(Channel& channel) {
  std::vector<json> messages;
  while (channel.receive(messages) && messages.empty()) {
    channel.send(json::object());
    ::usleep(100'000);
  }
}
void work(Channel& channel) {
  channel.send({{"begin", "denoise"}, {"steps", 9}});
  live(channel);
}
Life report(std::int64_t rank) {
  return [rank](Channel& channel) {
    output::Report part;
    part.phases.push_back({"step", 0.5, 1.5, rank, 0, 1});
    part.ranks.emplace_back().rank = rank;
    part.ranks.back().bytes_read = 7;
    channel.send(report_message(part));
    ::_exit(0);
  };
}

TEST_CASE(
    "what ranks tell: progress of rank 0, pictures and warnings of all, phases and use in ranks' order") {
  Heard heard;
  const auto life = [](std::int64_t rank) {
    return [rank](Channel& channel) {
      channel.send({{"begin", "of " + std::to_string(rank)}, {"steps", 1}});
      channel.send({{"picture", rank}});
      channel.send({{"warn", "cut \xff"}});  // not UTF-8
      channel.send({{"warn", std::string(1'000'000, 'x')}});
      if (rank == 0) ::usleep(100'000);
      report(rank)(channel);
    };
  };
  const Ended ended = supervise({life(0), life(1), life(2)}, heard);
  REQUIRE(ended.what.empty());
  CHECK(heard.phases == std::vector<std::string>{"of 0"});
  std::sort(heard.pictures.begin(), heard.pictures.end());
  CHECK(heard.pictures == std::vector<std::int64_t>{0, 1, 2});
  CHECK(heard.warnings.size() == 2);
  CHECK(heard.warnings.at(1).size() == 1'000'000);
  REQUIRE(ended.report.ranks.size() == 3);
  for (std::int64_t rank = 0; rank < 3; ++rank) {
    CHECK(ended.report.ranks.at(static_cast<std::size_t>(rank)).rank == rank);
    CHECK(ended.report.ranks.at(static_cast<std::size_t>(rank)).bytes_read == 7);
    CHECK(ended.report.phases.at(static_cast<std::size_t>(rank)).rank == rank);
    CHECK(ended.report.phases.at(static_cast<std::size_t>(rank)).end_s == 1.5);
  }
}

TEST_CASE("a death in any phase ends the others and is named") {
  for (const char* phase : {"load", "text_encode", "denoise", "decode"})
    for (const int signal : {SIGKILL, SIGSEGV, SIGTERM}) {
      CAPTURE(phase, signal);
      Heard heard;
      const auto dies = [&](Channel& channel) {
        channel.send({{"begin", phase}, {"steps", 0}});
        ::kill(::getpid(), signal);
      };
      const Ended ended = supervise({work, dies, work}, heard);
      CHECK(ended.code == ExitCode::kRank);
      CHECK_THAT(ended.what, ContainsSubstring("rank 1 died in " + std::string(phase) + " (signal " +
                                               std::to_string(signal) + ")"));
      CHECK_THAT(ended.what, ContainsSubstring("try: "));
      CHECK(ended.seconds < 2);
    }
}

TEST_CASE("a rank that ends without a word, before any phase") {
  Heard heard;
  const Ended ended = supervise({[](Channel&) {}}, heard);
  CHECK(ended.code == ExitCode::kRank);
  CHECK_THAT(ended.what, ContainsSubstring("rank 0 died in start (exit status 3)"));
}

TEST_CASE("a rank's own Error ends the others, in its words; with one rank, in these alone") {
  const auto fails = [](Channel& channel) {
    channel.send({{"begin", "load"}, {"steps", 0}});
    channel.send(error_message(Error(ExitCode::kModel, "torn", "a.safetensors", "get it again")));
    ::_exit(4);
  };
  Heard heard;
  const Ended of_two = supervise({work, fails}, heard);
  CHECK(of_two.code == ExitCode::kModel);
  CHECK(of_two.what == "a.safetensors: rank 1 in load: torn\n  try: get it again");
  CHECK(of_two.seconds < 2);
  CHECK(supervise({fails}, heard).what == "a.safetensors: torn\n  try: get it again");
}

TEST_CASE("the first cause wins over what it causes") {
  Heard heard;
  const auto dies = [](Channel& channel) {
    channel.send({{"begin", "denoise"}, {"steps", 1}});
    ::kill(::getpid(), SIGKILL);
  };
  const auto notices = [](Channel& channel) {
    ::usleep(300'000);
    channel.send(error_message(Error(ExitCode::kInternal, "a peer is gone")));
    ::_exit(70);
  };
  CHECK_THAT(supervise({notices, dies, notices}, heard).what, ContainsSubstring("rank 1 died in denoise"));

  const auto follows = [](Channel& channel) {
    json message = error_message(Error(ExitCode::kRank, "rank 1 failed while rank 0 waited"));
    message["after"] = 1;
    channel.send(message);
    ::_exit(7);
  };
  const auto fails = [](Channel& channel) {
    ::usleep(300'000);
    channel.send(error_message(Error(ExitCode::kModel, "torn")));
    ::_exit(4);
  };
  CHECK(supervise({follows, fails, follows}, heard).what == "rank 1 in start: torn");
}

TEST_CASE("a stopped rank is found by its silence, and one that ignores TERM is killed") {
  Heard heard;
  const auto stops = [](Channel& channel) {
    channel.send({{"begin", "decode"}, {"steps", 0}});
    ::kill(::getpid(), SIGSTOP);
    live(channel);
  };
  const auto stubborn = [](Channel& channel) {
    std::signal(SIGTERM, SIG_IGN);
    for (;;) live(channel);
  };
  const Ended ended = supervise({work, stops, stubborn}, heard, 1);
  CHECK(ended.code == ExitCode::kRank);
  CHECK_THAT(ended.what, ContainsSubstring("rank 1 was silent in decode for 1 s"));
  CHECK_THAT(ended.what, ContainsSubstring("runtime.timeout"));
  CHECK(ended.seconds > 1);
  CHECK(ended.seconds < 5);
}

TEST_CASE("a stop reaches ranks between their steps; who does not heed it is killed within 5 s") {
  const auto first = [](Channel& channel) {
    channel.send({{"begin", "denoise"}, {"steps", 9}});
    channel.send({{"advance", 1}});
    live(channel);
    channel.send({{"picture", 5}});
    channel.send(error_message(Error(ExitCode::kInterrupted, "interrupted")));
    ::_exit(130);
  };
  Heard heard;
  heard.stop_at = 1;
  const Ended heeded = supervise({first, work}, heard);
  CHECK(heeded.code == ExitCode::kInterrupted);
  CHECK(heard.pictures == std::vector<std::int64_t>{5});
  CHECK(heeded.seconds < 2);

  Heard again;
  again.stop_at = 1;
  const auto deaf = [](Channel& channel) {
    std::signal(SIGTERM, SIG_IGN);
    for (;;) {
      channel.send(json::object());
      ::usleep(100'000);
    }
  };
  const Ended ended = supervise({first, deaf}, again);
  CHECK(ended.code == ExitCode::kInterrupted);
  CHECK(ended.seconds > 2);
  CHECK(ended.seconds < 5);
}

TEST_CASE("a stop that comes too late changes nothing") {
  Heard heard;
  heard.stop_at = 1;
  const auto life = [](Channel& channel) {
    channel.send({{"advance", 1}});
    live(channel);
    report(0)(channel);
  };
  const Ended ended = supervise({life}, heard);
  CHECK(ended.code == ExitCode::kOk);
  CHECK(ended.report.ranks.size() == 1);
}

TEST_CASE("a listener learns that time passes in a phase that tells nothing") {
  Heard heard;
  const auto life = [](Channel& channel) {
    channel.send({{"begin", "decode"}, {"steps", 0}});
    ::usleep(1'500'000);
    report(0)(channel);
  };
  CHECK(supervise({life}, heard).code == ExitCode::kOk);
  CHECK(heard.ticks >= 5);
}

TEST_CASE("a listener that cannot go on ends the ranks") {
  Heard heard;
  const auto warns = [](Channel& channel) {
    channel.send({{"warn", "throw"}});
    live(channel);
  };
  const Ended ended = supervise({warns, work}, heard);
  CHECK(ended.code == ExitCode::kOutput);
  CHECK(ended.seconds < 2);
}

}  // namespace
}  // namespace xdit::launch
