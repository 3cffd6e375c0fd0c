#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "config/settings.h"
#include "tests/catch.h"
#include "tests/cli/process.h"

namespace xdit::cli {
namespace {

void check_columns(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    CAPTURE(line);
    CHECK(line.size() <= 80);
  }
}

}  // namespace

TEST_CASE("--help fits a screen and answers in 50 ms") {
  double best_s = 1;
  Result help;
  for (int i = 0; i < 20; ++i) {
    const auto begun = std::chrono::steady_clock::now();
    help = xdit_gen({"--help"});
    best_s =
        std::min(best_s, std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count());
  }
  CHECK(best_s < 0.05);
  CHECK(help.code == 0);
  CHECK(help.err.empty());
  CHECK(std::count(help.out.begin(), help.out.end(), '\n') <= 24);
  check_columns(help.out);
  CHECK(xdit_gen({"-h"}).out == help.out);
  CHECK(xdit_gen({"help"}).out == help.out);
  CHECK(xdit_gen({"generate", "--help", "--nonsense"}).out == help.out);
  CHECK(xdit_gen({"help", "batch"}).out == xdit_gen({"batch", "--help"}).out);
  CHECK(xdit_gen({"help", "btach"}).code == 2);
}

TEST_CASE("help all names every flag and each of its choices") {
  const Result help = xdit_gen({"help", "all"});
  CHECK(help.code == 0);
  check_columns(help.out);
  CHECK_THAT(help.out, ContainsSubstring("flow-match-euler|") && ContainsSubstring("|lcm)"));
  for (const config::Key& key : config::keys()) {
    CAPTURE(key.path);
    CHECK_THAT(help.out, ContainsSubstring(key.flag.empty() ? std::string(key.path) : std::string(key.flag)));
  }
}

TEST_CASE("each command's help fits a screen, with examples; generate's own is xdit-gen --help") {
  for (const char* command : {"batch", "sweep", "bench", "worker", "stop", "plan", "doctor", "inspect",
                              "list", "verify", "completion", "man"}) {
    const Result short_one = xdit_gen({command, "-h"});
    CAPTURE(command, short_one.out);
    CHECK(short_one.code == 0);
    CHECK(std::count(short_one.out.begin(), short_one.out.end(), '\n') <= 24);
    check_columns(short_one.out);
    const std::size_t examples = short_one.out.find("Switches also");
    REQUIRE(examples != std::string::npos);
    CHECK_THAT(short_one.out.substr(examples), ContainsSubstring(std::string("xdit-gen ") + command));
  }
}

TEST_CASE("--version") {
  const Result version = xdit_gen({"--version"});
  CHECK(version.code == 0);
  CHECK(version.out == "xdit-gen " XDIT_VERSION "\n");
}

TEST_CASE("usage errors: exit 2, what was wrong and what to type, nothing on stdout") {
  const std::string model = data("flux/tiny-dev");
  struct Case {
    std::vector<std::string> arguments;
    const char* message;
    const char* fix;
  };
  const std::vector<Case> cases{
      {{}, "error: no prompt", "try: -p "},
      {{"-p", "a fox"}, "error: no model", "try: -m "},
      {{"-p"}, "--prompt needs a value", "xdit-gen --help"},
      {{"--stpes", "4"}, "unknown flag '--stpes'", "try: --steps\n"},
      {{"--num-inference-step=4"}, "unknown flag '--num-inference-step'", "try: --num-inference-steps\n"},
      {{"--wibble-wobble"}, "unknown flag '--wibble-wobble'", "try: xdit-gen --help"},
      {{"-x"}, "unknown flag '-x'", ""},
      {{"inspct"}, "unknown command 'inspct'", "try: xdit-gen inspect\n"},
      {{"a red fox"}, "unknown command 'a red fox'", "try: xdit-gen -p \"a red fox\""},
      {{"-m", model, "-p", "a", "red", "fox"}, "unexpected argument 'red'", "quotes"},
      {{"-m", model, "-p", "a", "--steps", "0"},
       "--steps: sampling.steps: expected an integer 1..1000, found '0'",
       ""},
      {{"-m", model, "-p", "a", "--steps", "010"}, "found '010'", ""},
      {{"-m", model, "-p", "a", "--dtype", "bf61"}, "expected one of bf16|fp16|fp32", "try: --dtype bf16\n"},
      {{"-m", model, "-p", "a", "-W", "1004"}, "expected a multiple of 8", "try: --width 1008\n"},
      {{"-m", model, "-p", "a", "--size", "1024"},
       "--size: expected WIDTHxHEIGHT, found '1024'",
       "--size 1024x1024"},
      {{"-m", model, "-p", "a", "--size", "64x60"}, "--size: image.height: expected a multiple of 8", ""},
      {{"-m", model, "-p", "a", "--size", "100x100x"},
       "--size: expected WIDTHxHEIGHT, found '100x100x'",
       "try: --size 1024x1024\n"},
      {{"-m", model, "-p", "a", "--size", "x64"},
       "expected WIDTHxHEIGHT, found 'x64'",
       "try: --size 1024x1024\n"},
      {{"-m", model, "-p", "a", "--size", "64x100"}, "found '100'", "try: --height 104\n"},
      {{"-m", model, "-p", "a", "--set", "refiner_start=0.5"},
       "unknown key 'refiner_start'",
       "try: --set sampling.refiner_start=...\n"},
      {{"plan", "-m", model, "--machine", "b200"}, "nor h100, h200, a100,", "try: --machine h100x8\n"},
      {{"-m", model, "-p", "-"}, "--prompt -: there is no prompt on stdin", "-p \"\" for an empty prompt"},
      {{"-m", model, "-p", "a", "--seed", "4-1"}, "found '4-1'", "try: --seed 1-4\n"},
      {{"-m", model, "-p", "a", "--metadata=maybe"}, "expected a boolean true|false, found 'maybe'", ""},
      {{"-m", model, "-p", "a", "--progress", "loud"}, "--progress: expected one of auto|plain|off", ""},
      {{"-m", model, "-p", "a", "--set", "sampling.setps=4"},
       "unknown key 'sampling.setps'",
       "sampling.steps"},
      {{"-m", model, "-p", "a", "--set", "steps"}, "expected key=value", ""},
      {{"-m", model, "-p", "-", "-p", "-"}, "stdin can be read once", ""},
      {{"-m", model, "-p", "a", "-p", "b", "--device", "cpu"}, "would both be written to", "{index}"},
      {{"-m", model, "-p", "a", "--from-image", "absent.png"}, "absent.png", ""},
      {{"-m", model, "-p", "a", "--keep", "soon"}, "--keep: expected a duration", "try: --keep 10m\n"},
      {{"worker", "-p", "-"}, "--prompt -: a worker takes no prompt from stdin", ""},
      {{"worker", "--report", "r.json"}, "--report: a worker does not write it", ""},
      {{"batch", "p.txt", "--keep", "1m"}, "unknown flag '--keep'", ""},
      {{"list"}, "xdit-gen list: expected one of models|schedulers|devices", "try: xdit-gen list models\n"},
      {{"list", "devics"}, "found 'devics'", "try: xdit-gen list devices\n"},
      {{"completion", "zhs"}, "expected one of bash|zsh|fish, found 'zhs'", "try: xdit-gen completion "},
      {{"doctor", "--device", "gpu"}, "--device: expected one of cuda|cpu", "try: --device c"},
      {{"batch", "-", "--format", "jsnl"}, "expected one of text|jsonl|csv|yaml", "try: --format jsonl\n"},
      {{"list", "models", "devices"}, "unexpected argument 'devices'", ""},
      {{"inspect"}, "no file to inspect", ""},
  };
  for (const Case& wrong : cases) {
    CAPTURE(wrong.arguments);
    const Result result = xdit_gen(wrong.arguments);
    CHECK(result.code == 2);
    CHECK(result.out.empty());
    CHECK_THAT(result.err, Catch::Matchers::StartsWith("xdit-gen: error: "));
    CHECK_THAT(result.err, ContainsSubstring(wrong.message));
    CHECK_THAT(result.err, ContainsSubstring(wrong.fix));
  }
}

TEST_CASE("a wrong variable of the environment is a usage error that names it") {
  const std::vector<std::string> arguments{"-m",       data("flux/tiny-dev"), "-p", "a", "--device", "cpu",
                                           "--dry-run"};
  const Result unknown = xdit_gen(arguments, {.environment = {"XDIT_GEN_STEP=4"}});
  CHECK(unknown.code == 2);
  CHECK_THAT(unknown.err, ContainsSubstring("'XDIT_GEN_STEP'") && ContainsSubstring("try: XDIT_GEN_STEPS"));
  const Result wrong = xdit_gen(arguments, {.environment = {"XDIT_GEN_STEPS=many"}});
  CHECK(wrong.code == 2);
  CHECK_THAT(wrong.err, ContainsSubstring("XDIT_GEN_STEPS: sampling.steps: expected an integer"));
}

TEST_CASE("list") {
  using nlohmann::json;
  const json models = json::parse(xdit_gen({"list", "models", "--json"}).out);
  CHECK(models.at(0).at("family") == "flux");
  const json schedulers = json::parse(xdit_gen({"list", "schedulers", "--json"}).out);
  CHECK(schedulers.at(0).at("diffusers") == "FlowMatchEulerDiscreteScheduler");
  for (const json& row : schedulers) {
    if (row.at("scheduler") == "flow-match-heun") {
      CHECK(row.at("models") == "flow matching");
      CHECK(row.at("sigmas") == json{"default"});
    }
    if (row.at("scheduler") == "ddim") {
      CHECK(row.at("models") == "noise");
      CHECK(row.at("sigmas") == json{"default", "sgm-uniform", "simple"});
    }
  }
  const json devices = json::parse(xdit_gen({"list", "devices", "--json"}).out);
  REQUIRE(devices.size() == 1);  // no GPU is visible
  CHECK(devices.at(0).at("device") == "cpu");
  CHECK(devices.at(0).at("memory") > 1'000'000);
  const Result table = xdit_gen({"list", "schedulers"});
  CHECK(table.code == 0);
  CHECK_THAT(table.out, ContainsSubstring("flow-match-euler") &&
                            ContainsSubstring("noise          default, sgm-uniform, simple\n"));
}

TEST_CASE("SIGINT and SIGTERM while stdin is awaited: 130 and 143") {
  for (const auto& [signal, code] : {std::pair{SIGINT, 130}, std::pair{SIGTERM, 143}}) {
    std::array<int, 2> pipe{};
    REQUIRE(::pipe2(pipe.data(), O_CLOEXEC) == 0);
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    const pid_t process = start({"-m", data("flux/tiny-dev"), "-p", "-"}, {}, pipe[0], null, null);
    const auto sleeps = [&] {  // in read(): the only place where it waits
      std::ifstream file("/proc/" + std::to_string(process) + "/syscall");
      std::string call;
      std::string descriptor;
      file >> call >> descriptor;
      return call == "0" && descriptor == "0x0";
    };
    for (int i = 0; i < 500 && !sleeps(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ::kill(process, signal);
    CHECK(wait_for(process) == code);
    for (const int descriptor : {pipe[0], pipe[1], null}) ::close(descriptor);
  }
}

}  // namespace xdit::cli
