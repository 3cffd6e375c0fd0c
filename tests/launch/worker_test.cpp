// The worker as a service starts it: jobs and results over pipes.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>  // NOLINT: kill is POSIX's
#include <unistd.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "launch/clock.h"
#include "tests/catch.h"
#include "tests/launch/processes.h"
#include "tests/launch/small_run.h"

namespace xdit::launch {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::contents;

const std::string kOneThread = "OMP_NUM_THREADS=1";

// A worker of small pictures on the CPU.
class Worker {
 public:
  explicit Worker(const std::vector<std::string>& more = {}, const std::string& time_zone = "UTC") {
    std::array<int, 2> in{};
    std::array<int, 2> out{};
    REQUIRE(::pipe2(in.data(), O_CLOEXEC) == 0);
    REQUIRE(::pipe2(out.data(), O_CLOEXEC) == 0);
    std::vector<std::string> all{
        "worker",  "-m", cli::data("flux/tiny-dev"), "--device", "cpu", "--dtype", "fp32", "--size", "32x48",
        "--steps", "2"};
    all.insert(all.end(), more.begin(), more.end());
    process = cli::start(all, {kOneThread, "TZ=" + time_zone}, in[0], out[1], STDERR_FILENO);
    ::close(in[0]);
    ::close(out[1]);
    input_ = in[1];
    output_ = out[0];
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker() {
    for (const pid_t child : test::children_of(::getpid()))  // not when it has been waited for
      if (child == process) {
        ::kill(child, SIGKILL);
        static_cast<void>(cli::wait_for(child));
      }
    close_input();
    ::close(output_);
  }

  void say(const std::string& line) const {
    REQUIRE(::write(input_, (line + "\n").data(), line.size() + 1) == static_cast<ssize_t>(line.size() + 1));
  }
  void say(const json& line) const { say(line.dump()); }
  void close_input() {
    if (input_ >= 0) ::close(std::exchange(input_, -1));
  }

  // The next line on stdout.
  json hear() {
    while (text_.find('\n') == std::string::npos) {
      pollfd readable{output_, POLLIN, 0};
      REQUIRE(::poll(&readable, 1, 60'000) == 1);
      std::array<char, 4096> bytes{};
      const ssize_t count = ::read(output_, bytes.data(), bytes.size());
      REQUIRE(count > 0);
      text_.append(bytes.data(), static_cast<std::size_t>(count));
    }
    const std::size_t end = text_.find('\n');
    json line = json::parse(text_.substr(0, end));
    text_.erase(0, end + 1);
    return line;
  }
  // The next line of such an event.
  json hear(const std::string& event) {
    for (;;)
      if (json line = hear(); line.at("event") == event) return line;
  }
  // How the job ends.
  json result() {
    for (;;) {
      json line = hear();
      if (line.at("event") != "progress" && line.at("event") != "warning") return line;
    }
  }
  [[nodiscard]] std::vector<pid_t> ranks() const { return test::children_of(process); }

  pid_t process = 0;

 private:
  int input_ = -1;
  int output_ = -1;
  std::string text_;
};

json job(const json& id, const fs::path& output, const json& more = json::object()) {
  json line{{"id", id}, {"prompt", "a fox"}, {"seed", 1}, {"output", output.string()}};
  line.update(more);
  return line;
}

// The PNG of a generate of its own.
std::string alone(const fs::path& output, const std::vector<std::string>& more = {},
                  const std::string& seed = "1") {
  std::vector<std::string> all{"-m",       cli::data("flux/tiny-dev"),
                               "--device", "cpu",
                               "--dtype",  "fp32",
                               "--size",   "32x48",
                               "--steps",  "2",
                               "-p",       "a fox",
                               "-s",       seed,
                               "-o",       output};
  all.insert(all.end(), more.begin(), more.end());
  const cli::Result result = cli::xdit_gen(all, {.environment = {kOneThread}});
  INFO(result.err);
  REQUIRE(result.code == 0);
  return contents(output);
}

bool loaded(const json& done) {
  return done.at("phases").contains("load");
}

}  // namespace

TEST_CASE("a worker's pictures are generate's, and its second job loads nothing, on the same processes") {
  const cli::Folder folder;
  const std::string expected = alone(folder.path / "alone.png");
  for (const char* gpus : {"1", "2"}) {
    CAPTURE(gpus);
    const fs::path out = folder.path / gpus;
    Worker worker({"--gpus", gpus});
    worker.say(job("a", out / "a.png"));
    const json first = worker.result();
    REQUIRE(first.at("event") == "done");
    CHECK(first.at("id") == "a");
    CHECK(first.at("pictures").at(0).at("path") == (out / "a.png").string());
    CHECK(first.at("pictures").at(0).at("seed") == 1);
    CHECK(loaded(first));
    const std::vector<pid_t> ranks = worker.ranks();
    worker.say(job(7, out / "{index}.png", {{"seed", "1-3"}, {"steps", 2}}));
    const json second = worker.result();
    CHECK(second.at("event") == "done");
    CHECK(second.at("id") == 7);
    CHECK(second.at("pictures").size() == 3);
    CHECK_FALSE(loaded(second));
    CHECK(worker.ranks() == ranks);
    CHECK((contents(out / "a.png") == expected));
    CHECK((contents(out / "0.png") == expected));
    worker.close_input();
    CHECK(cli::wait_for(worker.process) == 0);
    CHECK(test::all_gone(ranks));
  }
}

TEST_CASE("a worker takes another model or profile between jobs and comes back, byte for byte") {
  const cli::Folder folder;
  const std::string schnell = cli::data("flux/tiny-schnell");
  const std::string profile = folder.write("p.yaml", "sampling: {seed: 9}\n");
  Worker worker;
  worker.say(job("a", folder.path / "a.png"));
  worker.say(job("b", folder.path / "b.png", {{"model", schnell}}));
  worker.say(json{
      {"id", "c"}, {"prompt", "a fox"}, {"profile", profile}, {"output", (folder.path / "c.png").string()}});
  worker.say(job("d", folder.path / "d.png"));
  worker.close_input();
  for (const char* id : {"a", "b", "c", "d"}) {
    const json result = worker.result();
    CAPTURE(result.dump());
    CHECK(result.at("id") == id);
    CHECK(result.at("event") == "done");
  }
  CHECK(cli::wait_for(worker.process) == 0);
  CHECK((contents(folder.path / "a.png") == alone(folder.path / "1.png")));
  CHECK((contents(folder.path / "b.png") == alone(folder.path / "2.png", {"-m", schnell})));
  CHECK((contents(folder.path / "c.png") == alone(folder.path / "3.png", {}, "9")));
  CHECK((contents(folder.path / "d.png") == contents(folder.path / "a.png")));
}

TEST_CASE("a job that fails is told, and the next one is made by the same processes") {
  const cli::Folder folder;
  Worker worker({"--gpus", "2"});
  worker.say(job("warm", folder.path / "warm.png"));
  REQUIRE(worker.result().at("event") == "done");
  const std::vector<pid_t> ranks = worker.ranks();
  const fs::path taken = folder.write("taken", "a file");
  const std::vector<std::pair<json, int>> bad{
      {job("key", folder.path / "x.png", {{"stepz", 3}}), 2},
      {job("value", folder.path / "x.png", {{"steps", 0}}), 2},
      {job("model", folder.path / "x.png", {{"model", (folder.path / "none").string()}}), 4},
      {job("there", folder.path / "warm.png"), 8},
      {job("profile", folder.path / "x.png", {{"profile", "none.yaml"}}), 3},
      {job("type", folder.path / "x.png", {{"profile", 3}}), 2},
  };
  for (const auto& [line, code] : bad) {
    worker.say(line);
    const json result = worker.result();
    CAPTURE(result.dump());
    CHECK(result.at("event") == "failed");
    CHECK(result.at("id") == line.at("id"));
    CHECK(result.at("code") == code);
  }
  for (const char* line : {"{\"id\": ", "[1]", "{\"id\": 1, \"id\": 2}", "{\"id\": {}}"}) {
    worker.say(std::string(line));
    const json result = worker.result();
    CHECK(result.at("event") == "failed");
    CHECK(result.at("id").is_null());
    CHECK(result.at("where").get<std::string>().starts_with("stdin:"));
  }
  worker.say(job("good", folder.path / "good.png"));
  const json good = worker.result();
  CAPTURE(good.dump());
  CHECK(good.at("event") == "done");
  CHECK_FALSE(loaded(good));
  CHECK(worker.ranks() == ranks);
}

TEST_CASE("a job that fails on the ranks leaves them and their weights") {
  const cli::Folder folder;
  Worker worker({"--gpus", "2"});
  worker.say(job("a", folder.path / "out" / "a.png", {{"steps", 40}}));
  worker.hear("progress");
  while (worker.hear("progress").at("phase") != "denoise") continue;
  static_cast<void>(fs::remove_all(folder.path / "out"));
  static_cast<void>(folder.write("out", "a file"));  // where the folder was
  const json failed = worker.result();
  CAPTURE(failed.dump());
  CHECK(failed.at("event") == "failed");
  CHECK(failed.at("code") == 8);
  const std::vector<pid_t> ranks = worker.ranks();
  worker.say(job("b", folder.path / "b.png"));
  const json done = worker.result();
  CAPTURE(done.dump());
  CHECK(done.at("event") == "done");
  CHECK_FALSE(loaded(done));
  CHECK(worker.ranks() == ranks);
  CHECK((contents(folder.path / "b.png") == alone(folder.path / "alone.png")));
}

TEST_CASE("jobs are cancelled while they wait and while they run, and the weights stay") {
  const cli::Folder folder;
  Worker worker({"--gpus", "2"});
  worker.say(job("long", folder.path / "long.png", {{"steps", 1000}}));
  worker.say(job("waits", folder.path / "waits.png"));
  worker.say(job("next", folder.path / "next.png"));
  while (worker.hear("progress").value("step", 0) == 0) continue;
  const std::vector<pid_t> ranks = worker.ranks();
  worker.say(json{{"cancel", "nobody"}});
  CHECK(worker.hear("error").at("id") == "nobody");
  worker.say(json{{"cancel", "waits"}});
  worker.say(json{{"cancel", "long"}});
  CHECK(worker.hear("cancelled").at("id") == "waits");
  CHECK(worker.hear("cancelled").at("id") == "long");
  const json next = worker.result();
  CAPTURE(next.dump());
  CHECK(next.at("event") == "done");
  CHECK(next.at("id") == "next");
  CHECK_FALSE(loaded(next));
  CHECK(worker.ranks() == ranks);
  CHECK_FALSE(fs::exists(folder.path / "long.png"));
  CHECK((contents(folder.path / "next.png") == alone(folder.path / "alone.png")));
}

TEST_CASE("a job's guidance is over the worker's scale, and one beside a scale of its own is refused") {
  const cli::Folder folder;
  Worker worker({"-m", cli::data("sd/tiny-sdxl"), "--cfg-scale", "5"});
  worker.say(job("a", folder.path / "a.png", {{"guidance", 3}}));
  CHECK(worker.result().at("event") == "done");
  worker.say(job("b", folder.path / "b.png", {{"guidance", 3}, {"cfg_scale", 4}}));
  CHECK(worker.result().at("code") == 2);
  worker.say(json{{"cancel", "b"}});  // it has ended
  CHECK(worker.hear("error").at("where") == "stdin:3");
}

TEST_CASE("a worker with as many jobs as may wait refuses the next by its name, and hears a cancel") {
  const cli::Folder folder;
  Worker worker;
  worker.say(job("long", folder.path / "{index}.png", {{"steps", 1000}, {"count", 100}}));
  while (worker.hear("progress").value("step", 0) == 0) continue;
  constexpr int kMostWaiting = 10'000;
  std::string waiting;
  for (int i = 0; i < kMostWaiting; ++i)
    waiting += R"({"prompt":"a fox"})"
               "\n";
  worker.say(waiting + json{{"id", "one more"}, {"prompt", "a fox"}}.dump());
  worker.say(json{{"cancel", "long"}});
  const json refused = worker.result();
  CHECK(refused.at("id") == "one more");
  CHECK(refused.at("event") == "failed");
  CHECK(refused.at("error") == "too many jobs wait");
  CHECK(worker.result().at("id") == "long");
}

TEST_CASE("a job that lasts past midnight says where its pictures are") {
  const cli::Folder folder;
  constexpr std::time_t kDay = 86'400;
  constexpr std::time_t kAhead_s = 8;
  const std::time_t midnight = std::time(nullptr) + kAhead_s;
  const std::time_t east = kDay - midnight % kDay;  // of UTC, so that it is the day's end there
  Worker worker({}, fmt::format("XDT-{:02}:{:02}:{:02}", east / 3600, east / 60 % 60, east % 60));
  worker.say(job("a", folder.path / "{date}-{index}.png", {{"count", 10'000}, {"steps", 8}}));
  while (worker.hear("progress").at("made") < 1) continue;
  REQUIRE(std::time(nullptr) < midnight);
  std::int64_t before = 0;  // pictures begun before midnight
  for (bool past = false; !past; past = std::time(nullptr) >= midnight)
    before = worker.hear("progress").at("made").get<std::int64_t>() + 1;
  while (worker.hear("progress").at("made") < before + 2) continue;
  worker.say(json{{"cancel", "a"}});
  const json result = worker.result();
  REQUIRE(result.at("pictures").size() > static_cast<std::size_t>(before));
  for (const json& picture : result.at("pictures")) CHECK(fs::exists(picture.at("path").get<std::string>()));
}

TEST_CASE("jobs of a worker share a preview, which replaces no other file; size is width and height") {
  const cli::Folder folder;
  const std::string live = (folder.path / "live.png").string();
  const std::vector<std::string> flags{"--preview", "1", "--preview-path", live};
  {
    Worker worker(flags);
    for (const char* id : {"a", "b"}) {
      worker.say(job(id, folder.path / (std::string(id) + ".png"), {{"size", "48x32"}}));
      const json result = worker.result();
      CAPTURE(result.dump());
      REQUIRE(result.at("event") == "done");
      CHECK(result.at("pictures").at(0).at("width") == 48);
      CHECK(result.at("pictures").at(0).at("height") == 32);
    }
  }
  Worker worker(flags);
  worker.say(job("c", folder.path / "c.png"));
  const json result = worker.result();
  CHECK(result.at("event") == "failed");
  CHECK(result.at("code") == 8);
}

TEST_CASE("a rank killed between jobs or in one is replaced, once a job") {
  const cli::Folder folder;
  Worker worker({"--gpus", "2"});
  worker.say(job("a", folder.path / "a.png"));
  REQUIRE(worker.result().at("event") == "done");
  ::kill(test::rank_process(worker.process, 1), SIGKILL);
  worker.say(job("b", folder.path / "b.png"));
  CHECK(worker.result().at("event") == "done");

  const json steps{{"steps", 20}};
  worker.say(job("c", folder.path / "c.png", steps));
  while (worker.hear("progress").value("step", 0) == 0) continue;
  ::kill(test::rank_process(worker.process, 0), SIGKILL);
  CHECK_THAT(worker.hear("warning").at("text").get<std::string>(),
             ContainsSubstring("rank 0 died in denoise"));
  CHECK(worker.result().at("event") == "done");
  CHECK((contents(folder.path / "c.png") == alone(folder.path / "alone.png", {"--steps", "20"})));

  worker.say(job("d", folder.path / "d.png", {{"steps", 100}}));
  for (int kill = 0; kill < 2; ++kill) {
    while (worker.hear("progress").value("step", 0) != 1) continue;
    ::kill(test::rank_process(worker.process, 1), SIGKILL);
  }
  const json failed = worker.result();
  CHECK(failed.at("event") == "failed");
  CHECK(failed.at("code") == 7);
  worker.say(job("e", folder.path / "e.png"));
  CHECK(worker.result().at("event") == "done");
  CHECK((contents(folder.path / "e.png") == contents(folder.path / "a.png")));
}

TEST_CASE("SIGTERM: the picture in hand is finished, 143; SIGINT: 130 at once; nothing stays") {
  const cli::Folder folder;
  for (const int signal : {SIGTERM, SIGINT}) {
    CAPTURE(signal);
    const fs::path out = folder.path / std::to_string(signal);
    Worker worker({"--gpus", "2", "--ulysses", "1", "--gather", "2"});
    worker.say(job("a", out / "{index}.png", {{"steps", 20}, {"count", 3}}));
    worker.say(job("b", out / "b.png"));
    while (worker.hear("progress").value("step", 0) == 0) continue;
    const std::vector<pid_t> ranks = worker.ranks();
    REQUIRE(ranks.size() == 2);
    ::kill(worker.process, signal);
    const json first = worker.result();
    CHECK(first.at("event") == "cancelled");
    CHECK(first.at("pictures").size() == (signal == SIGTERM ? 1 : 0));
    CHECK(worker.result().at("id") == "b");
    CHECK(cli::wait_for(worker.process) == 128 + signal);
    CHECK(test::all_gone(ranks));
    CHECK(fs::exists(out / "0.png") == (signal == SIGTERM));
    CHECK_FALSE(fs::exists(out / "1.png"));
  }
}

}  // namespace xdit::launch
