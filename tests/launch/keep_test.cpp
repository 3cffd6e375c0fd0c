// generate --keep and stop, as a shell loop uses them.
#include <fcntl.h>
#include <signal.h>  // NOLINT: kill is POSIX's
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "launch/clock.h"
#include "launch/private_socket.h"
#include "tests/catch.h"
#include "tests/launch/processes.h"
#include "tests/launch/small_run.h"

namespace xdit::launch {
namespace {

namespace fs = std::filesystem;
using cli::Result;
using test::contents;

// A user's session with small pictures, which leaves nothing behind.
class Session {
 public:
  Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() { static_cast<void>(stop()); }

  [[nodiscard]] Result generate(const std::string& name, const std::vector<std::string>& more = {}) const {
    Result result = cli::xdit_gen(words(name, more), {.environment = environment()});
    INFO(result.err);
    CHECK(result.code == 0);
    return result;
  }
  [[nodiscard]] Result stop() const { return cli::xdit_gen({"stop"}, {.environment = environment()}); }
  [[nodiscard]] std::vector<std::string> words(const std::string& name,
                                               const std::vector<std::string>& more) const {
    std::vector<std::string> all{"-m",       model.string(),
                                 "--device", "cpu",
                                 "--dtype",  "fp32",
                                 "--size",   "32x48",
                                 "--steps",  "2",
                                 "-p",       "a fox",
                                 "-s",       "1",
                                 "-o",       (folder.path / name).string()};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  [[nodiscard]] std::vector<std::string> environment() const {
    return {"OMP_NUM_THREADS=1", "XDG_RUNTIME_DIR=" + folder.path.string()};
  }
  // The process that keeps ranks; 0 when there is none.
  [[nodiscard]] pid_t keeper() const {
    if (!fs::exists(runtime)) return 0;
    const std::string place = folder.path.string();
    const auto variable = [&](const char* name) {
      return std::strcmp(name, "XDG_RUNTIME_DIR") == 0 ? place.c_str() : nullptr;
    };
    const std::optional<File> connection = PrivateSocket(variable, false).connect();
    return connection ? peer_process(*connection) : 0;
  }
  [[nodiscard]] std::vector<pid_t> ranks() const { return test::children_of(keeper()); }
  [[nodiscard]] bool is_there(const std::string& name) const { return fs::exists(folder.path / name); }
  [[nodiscard]] std::string picture(const std::string& name) const { return contents(folder.path / name); }

  cli::Folder folder;
  fs::path runtime = folder.path / "xdit-gen";
  fs::path model = cli::data("flux/tiny-dev");
};

const std::vector<std::string> kKeep{"--keep", "60s"};

bool loaded(const Result& result) {
  return result.err.find(" load ") != std::string::npos;  // among the phases of the summary
}

bool end_within(const std::vector<pid_t>& processes, double seconds) {
  const double until = now_s() + seconds;
  while (!test::all_gone(processes) && now_s() < until) ::usleep(10'000);
  return test::all_gone(processes);
}

mode_t mode_of(const fs::path& path) {
  struct stat status {};
  REQUIRE(::lstat(path.c_str(), &status) == 0);
  return status.st_mode & 07777U;
}

}  // namespace

TEST_CASE("a generate joins the ranks that the one before left: the same bytes, no load; stop ends them") {
  const Session session;
  CHECK(loaded(session.generate("alone.png")));
  CHECK(session.keeper() == 0);
  const std::string words = session.folder.path.string();
  const Result first = session.generate("a.png", kKeep);
  CHECK(first.out == words + "/a.png\n");
  CHECK(loaded(first));
  const std::vector<pid_t> ranks = session.ranks();
  REQUIRE(ranks.size() == 1);
  CHECK(mode_of(session.runtime) == 0700);
  CHECK(mode_of(session.runtime / "kept") == 0600);

  const Result second =
      session.generate("b.png", {"--keep", "60s", "--report", session.folder.path / "report.json"});
  CHECK_FALSE(loaded(second));
  const Result third = session.generate("c.png");  // needs no flag
  CHECK_FALSE(loaded(third));
  CHECK(session.ranks() == ranks);
  for (const char* name : {"a.png", "b.png", "c.png"})
    CHECK(session.picture(name) == session.picture("alone.png"));
  const nlohmann::json report = nlohmann::json::parse(session.picture("report.json"));
  CHECK(report.at("ranks").size() == 1);

  const Result failed =
      cli::xdit_gen(session.words("d.png", {"--steps", "0"}), {.environment = session.environment()});
  CHECK(failed.code == 2);
  CHECK(session.stop().code == 0);
  CHECK(test::all_gone(ranks));
  CHECK_FALSE(fs::exists(session.runtime / "kept"));
  const Result again = session.stop();
  CHECK(again.code == 0);
  CHECK_THAT(again.out, ContainsSubstring("no ranks stay"));
}

TEST_CASE("what kept ranks exchange through stays with them for pictures of one size") {
  const Session session;
  const std::vector<std::string> two{"--keep", "60s", "--gpus", "2", "--gather", "2"};
  static_cast<void>(session.generate("a.png", two));
  const std::vector<pid_t> ranks = session.ranks();
  REQUIRE(ranks.size() == 2);
  const std::set<std::string> before = test::shared_memory(ranks[0]);
  static_cast<void>(session.generate("b.png", two));
  CHECK(test::shared_memory(ranks[0]) == before);
  CHECK(session.picture("b.png") == session.picture("a.png"));
  std::vector<std::string> larger = two;
  larger.insert(larger.end(), {"--size", "48x48"});
  static_cast<void>(session.generate("c.png", larger));
  CHECK(session.ranks() == ranks);
  CHECK(test::shared_memory(ranks[0]) != before);
}

TEST_CASE("ranks of another grid or of other files do not serve: others take their place") {
  Session session;
  session.model = session.folder.path / "model";
  fs::copy(cli::data("flux/tiny-dev"), session.model, fs::copy_options::recursive);
  static_cast<void>(session.generate("a.png", kKeep));
  const std::vector<pid_t> one = session.ranks();
  REQUIRE(one.size() == 1);

  CHECK(loaded(session.generate("own.png", {"--gpus", "2"})));  // not asked to stay: by itself
  CHECK(session.ranks() == one);

  CHECK(loaded(session.generate("b.png", {"--gpus", "2", "--keep", "60s"})));
  const std::vector<pid_t> two = session.ranks();
  CHECK(two.size() == 2);
  CHECK(test::all_gone(one));
  CHECK_FALSE(loaded(session.generate("c.png", {"--gpus", "2"})));

  fs::last_write_time(session.model / "vae/diffusion_pytorch_model.safetensors",
                      fs::file_time_type::clock::now());
  CHECK(loaded(session.generate("d.png", {"--gpus", "2", "--keep", "60s"})));
  CHECK(test::all_gone(two));
  for (const char* name : {"own.png", "b.png", "c.png", "d.png"})
    CHECK(session.picture(name) == session.picture("a.png"));

  CHECK(loaded(session.generate("e.png", {"--dtype", "bf16", "--keep", "60s"})));
  const std::vector<pid_t> wide = session.ranks();
  CHECK(loaded(session.generate("f.png", {"--dtype", "bf16", "--quantize", "fp8", "--keep", "60s"})));
  CHECK(test::all_gone(wide));
  CHECK(session.picture("e.png") != session.picture("f.png"));
}

TEST_CASE("nor do those whose refiner has become another's: its configuration is read again") {
  Session session;
  session.model = cli::data("sd/tiny-sdxl");
  const fs::path refiner = session.folder.path / "refiner";
  fs::copy(cli::data("sd/tiny-refiner"), refiner, fs::copy_options::recursive);
  const std::vector<std::string> refined{"--refiner", refiner.string(), "--cfg-scale", "3"};
  std::vector<std::string> kept = refined;
  kept.insert(kept.end(), kKeep.begin(), kKeep.end());
  static_cast<void>(session.generate("a.png", kept));
  CHECK_FALSE(loaded(session.generate("b.png", kept)));

  nlohmann::json config = nlohmann::json::parse(contents(refiner / "vae/config.json"));
  config["scaling_factor"] = 0.5;
  std::ofstream(refiner / "vae/config.json") << config;
  static_cast<void>(session.generate("c.png", kept));
  static_cast<void>(session.stop());
  static_cast<void>(session.generate("d.png", refined));
  CHECK(session.picture("b.png") == session.picture("a.png"));
  CHECK(session.picture("c.png") != session.picture("a.png"));
  CHECK(session.picture("c.png") == session.picture("d.png"));
}

TEST_CASE("dead ranks and a dead keeper are replaced") {
  const Session session;
  static_cast<void>(session.generate("a.png", kKeep));
  const pid_t keeper = session.keeper();
  const std::vector<pid_t> ranks = session.ranks();
  REQUIRE(ranks.size() == 1);
  ::kill(ranks[0], SIGKILL);
  CHECK(loaded(session.generate("b.png", kKeep)));
  CHECK(session.keeper() == keeper);
  const std::vector<pid_t> others = session.ranks();
  CHECK(others != ranks);
  ::kill(keeper, SIGKILL);
  CHECK(end_within(others, 10));
  CHECK(loaded(session.generate("c.png", kKeep)));
  CHECK(session.keeper() != keeper);
  CHECK(session.picture("b.png") == session.picture("a.png"));
  CHECK(session.picture("c.png") == session.picture("a.png"));
}

TEST_CASE("idle ranks end by themselves") {
  const Session session;
  static_cast<void>(session.generate("a.png", {"--keep", "1s"}));
  std::vector<pid_t> all = session.ranks();
  REQUIRE(all.size() == 1);
  all.push_back(session.keeper());
  CHECK(end_within(all, 10));
  CHECK_FALSE(fs::exists(session.runtime / "kept"));
}

TEST_CASE("Ctrl-C of a joined generate: 130, the ranks stay; so they do when it is killed") {
  const Session session;
  static_cast<void>(session.generate("a.png", {"--gpus", "2", "--keep", "60s"}));
  const std::vector<pid_t> ranks = session.ranks();
  for (const int signal : {SIGINT, SIGKILL}) {
    CAPTURE(signal);
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    const int error =
        ::open((session.folder.path / "err").c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const pid_t client =
        cli::start(session.words("long.png", {"--gpus", "2", "--steps", "1000", "--progress", "plain"}),
                   session.environment(), null, null, error);
    const double until = now_s() + 20;
    while (session.picture("err").find("denoise") == std::string::npos && now_s() < until) ::usleep(20'000);
    const double begun = now_s();
    ::kill(client, signal);
    CHECK(cli::wait_for(client) == (signal == SIGINT ? 130 : 256 + SIGKILL));
    CHECK(now_s() - begun < 5);
    for (const int descriptor : {null, error}) ::close(descriptor);
    const Result next = session.generate("next.png", {"--gpus", "2", "--overwrite"});
    CHECK_FALSE(loaded(next));
    CHECK(session.ranks() == ranks);
    CHECK_FALSE(session.is_there("long.png"));
    CHECK(session.picture("next.png") == session.picture("a.png"));
  }
}

TEST_CASE("a stopped keeper ends a generate that it works for; one without --keep has ranks of its own") {
  const Session session;
  const std::vector<std::string> brief{"--set", "runtime.timeout=2s"};
  std::vector<std::string> kept = brief;
  kept.insert(kept.end(), kKeep.begin(), kKeep.end());
  static_cast<void>(session.generate("a.png", kept));
  const pid_t keeper = session.keeper();
  REQUIRE(keeper > 0);
  const auto start = [&](std::vector<std::string> more, const char* error_name) {
    more.insert(more.end(), {"--progress", "plain", "--overwrite"});
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    const int error = ::open((session.folder.path / error_name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    const pid_t client = cli::start(session.words("b.png", more), session.environment(), null, null, error);
    for (const int descriptor : {null, error}) ::close(descriptor);
    return client;
  };
  const auto says = [&](const char* name, const char* text) {
    const double until = now_s() + 30;
    while (session.picture(name).find(text) == std::string::npos && now_s() < until) ::usleep(20'000);
    return session.picture(name).find(text) != std::string::npos;
  };

  std::vector<std::string> endless = brief;
  endless.insert(endless.end(), {"--steps", "1000"});
  const pid_t works = start(endless, "works");
  CHECK(says("works", "denoise"));
  const pid_t waits = start(brief, "waits");
  CHECK(says("waits", "waits for its turn"));
  ::usleep(6'000'000);  // longer than it waits for one that is silent: this one lives
  CHECK(session.picture("waits").find("silent") == std::string::npos);

  ::kill(keeper, SIGSTOP);
  const double begun = now_s();
  CHECK(cli::wait_for(works) == 7);
  CHECK(now_s() - begun < 10);
  CHECK_THAT(session.picture("works"), ContainsSubstring("process " + std::to_string(keeper)));
  CHECK(cli::wait_for(waits) == 0);
  CHECK_THAT(session.picture("waits"), ContainsSubstring("silent"));
  CHECK(session.picture("b.png") == session.picture("a.png"));
  CHECK(cli::wait_for(start(kept, "keeps")) == 7);
  CHECK_THAT(session.picture("keeps"), ContainsSubstring("kill -9 " + std::to_string(keeper)));
  ::kill(keeper, SIGCONT);
  CHECK_FALSE(loaded(session.generate("c.png", brief)));
  CHECK(session.picture("c.png") == session.picture("a.png"));
}

TEST_CASE("files are written as if this process wrote them: its folder and its umask") {
  const Session session;
  const fs::path before = fs::current_path();
  const mode_t mask = ::umask(022);
  for (const char* name : {"first", "second"}) {
    const fs::path here = session.folder.path / name;
    fs::create_directory(here);
    fs::current_path(here);
    if (std::string(name) == "second") ::umask(077);
    std::vector<std::string> words = session.words("", kKeep);
    *std::find(words.begin(), words.end(), (session.folder.path / "").string()) = "out/p.png";
    const Result result = cli::xdit_gen(words, {.environment = session.environment()});
    CHECK(result.code == 0);
    CHECK(result.out == "out/p.png\n");
  }
  ::umask(mask);
  fs::current_path(before);
  CHECK(mode_of(session.folder.path / "first/out/p.png") == 0644);
  CHECK(mode_of(session.folder.path / "second/out/p.png") == 0600);
}

TEST_CASE("a folder that others can enter is no place for ranks") {
  const Session session;
  fs::create_directory(session.runtime);
  REQUIRE(::chmod(session.runtime.c_str(), 0755) == 0);
  const Result refused = cli::xdit_gen(session.words("a.png", kKeep), {.environment = session.environment()});
  CHECK(refused.code == 8);
  CHECK_THAT(refused.err, ContainsSubstring("0700"));
  CHECK_FALSE(session.is_there("a.png"));
  static_cast<void>(session.generate("b.png"));
}

}  // namespace xdit::launch
