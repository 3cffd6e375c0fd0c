#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <functional>
#include <nlohmann/json.hpp>
#include <thread>

#include "output/png.h"
#include "tests/catch.h"
#include "tests/launch/small_run.h"

namespace xdit::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::contents;

const std::vector<std::string> kAlone{"OMP_NUM_THREADS=1"};  // small pictures: more only wait for each other

// The model's 3 heads are for 1 and 3 ranks where nothing is gathered.
std::string profile(const Folder& folder, const std::string& sweep) {
  return folder.write("run.yaml", "model: {path: " + data("flux/tiny-dev") +
                                      ", dtype: fp32}\nprompt: a fox\nimage: {width: 32, height: 48}\n"
                                      "sampling: {steps: 2}\nruntime: {device: cpu}\nsweep: " +
                                      sweep + "\n");
}

const std::string kGrids = "{parallel.gpus: [1, 2, 3], parallel.gather: [1]}";

std::vector<std::string> arguments(const std::string& file, const fs::path& output,
                                   const std::vector<std::string>& more = {}) {
  std::vector<std::string> all{"sweep", file, "-o", output.string(), "--format", "json"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

json table(const fs::path& output) {
  return json::parse(contents(output / "table.json"));
}

// Starts the sweep, sends it a signal once `ready`, and returns how it ended.
int cut_short(const std::vector<std::string>& command, int signal, const std::function<bool()>& ready) {
  const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  const pid_t process = start(command, kAlone, nothing, nothing, nothing);
  ::close(nothing);
  for (int i = 0; i < 6000 && !ready(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  ::kill(process, signal);
  return wait_for(process);
}

}  // namespace

TEST_CASE("a sweep killed between and in its points goes on, and says that pictures are equal") {
  const Folder folder;
  const fs::path output = folder.path / "out";
  const std::string file = profile(folder, kGrids);
  const fs::path one = output / "gpus-1_gather-1";
  const fs::path three = output / "gpus-3_gather-1";
  CHECK(cut_short(arguments(file, output), SIGKILL, [&] { return fs::exists(one / "report.json"); }) ==
        256 + SIGKILL);
  const auto made = fs::last_write_time(one / "report.json");
  CHECK(cut_short(arguments(file, output, {"--resume"}), SIGKILL,
                  [&] { return fs::exists(three / "profile.yaml"); }) == 256 + SIGKILL);
  CHECK(!fs::exists(three / "report.json"));

  const Result result = xdit_gen(arguments(file, output, {"--resume"}), {.environment = kAlone});
  INFO(result.err);
  CHECK(result.code == 9);
  CHECK_THAT(result.err, ContainsSubstring("point 1 of 3: parallel.gpus 1, parallel.gather 1: complete") &&
                             ContainsSubstring("error: point 2 of 3: parallel.gpus 2") &&
                             ContainsSubstring("equal, byte for byte (1 compared)") &&
                             ContainsSubstring("1 of 3 points failed"));
  CHECK(fs::last_write_time(one / "report.json") == made);
  CHECK(contents(one / "0.png") == contents(three / "0.png"));

  const json rows = json::parse(result.out);
  CHECK(rows == table(output));
  REQUIRE(rows.size() == 3);
  CHECK(rows[0].at("speed_up") == 1);
  CHECK(rows[0].at("pictures").is_null());
  CHECK(rows[1].at("total_s").is_null());
  CHECK_THAT(rows[1].at("error").get<std::string>(), ContainsSubstring("the degrees multiply to 1"));
  CHECK(rows[2].at("gpus") == 3);
  CHECK(rows[2].at("pictures") == "equal");
  const auto number = [&](std::size_t row, const char* name) { return rows[row].at(name).get<double>(); };
  const double total = number(2, "total_s");
  CHECK(std::abs(number(2, "speed_up") - number(0, "total_s") / total) < 1e-4);
  CHECK(std::abs(number(2, "efficiency") - number(2, "speed_up") / 3) < 1e-4);
  CHECK(number(2, "denoise_s") < total);
  CHECK_THAT(contents(output / "sweep.svg"), ContainsSubstring(">ideal</text>"));
  CHECK_THAT(contents(output / "table.md"), ContainsSubstring("| speed-up |"));
  CHECK_THAT(contents(output / "table.csv"), ContainsSubstring("parallel.gpus,parallel.gather,gpus,load_s"));

  // Each folder holds a profile that makes its picture again.
  const std::string bytes = contents(three / "0.png");
  CHECK(xdit_gen({"--profile", three / "profile.yaml", "-o", (folder.path / "again.png").string(), "--report",
                  (folder.path / "again.json").string()},
                 {.environment = kAlone})
            .code == 0);
  CHECK(contents(folder.path / "again.png") == bytes);

  // A picture that is not the same in an exact mode.
  const std::vector<std::uint8_t> grey(std::size_t{32} * 48 * 3, 128);
  write_file_atomically(three / "0.png", output::encode_png(grey, 32, 48), /*overwrite=*/true);
  const Result differing = xdit_gen(arguments(file, output, {"--resume"}), {.environment = kAlone});
  CHECK(differing.code == 9);
  CHECK_THAT(differing.err, ContainsSubstring("though both are exact: 1 of 1 differ: up to "));
  CHECK(differing.err.find("equal, byte for byte") == std::string::npos);

  // Nothing of another run is touched.
  CHECK(xdit_gen(arguments(file, output)).code == 8);
  const Result other = xdit_gen(arguments(file, output, {"--resume", "--size", "48x48"}));
  CHECK(other.code == 8);
  CHECK_THAT(other.err, ContainsSubstring("a run with other settings is there"));
}

TEST_CASE("a second sweep in a folder where one runs: exit 8, and the first goes on") {
  const Folder folder;
  const fs::path output = folder.path / "out";
  const std::string file = profile(folder, "{sampling.steps: [400]}");
  const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  const pid_t first = start(arguments(file, output), kAlone, nothing, nothing, nothing);
  ::close(nothing);
  for (int i = 0; i < 6000 && !fs::exists(output / "steps-400/profile.yaml"); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  ::kill(first, SIGSTOP);  // however long the second one waits
  for (const char* manner : {"--resume", "--overwrite"}) {
    const Result second = xdit_gen(arguments(file, output, {manner}), {.environment = kAlone});
    CHECK(second.code == 8);
    CHECK_THAT(second.err, ContainsSubstring("another sweep writes there"));
  }
  ::kill(first, SIGCONT);
  CHECK(wait_for(first) == 0);
  CHECK(fs::exists(output / "steps-400/0.png"));
}

TEST_CASE("a sweep that is refused begins nothing: the command that is right is taken") {
  const Folder folder;
  const fs::path output = folder.path / "out";
  const std::string file = profile(folder, "{sampling.steps: [2, 3]}");
  CHECK(xdit_gen(arguments(file, output, {"-m", (folder.path / "none").string()})).code == 4);
  fs::create_directories(output / "steps-2");
  static_cast<void>(folder.write("out/steps-2/0.png", "mine"));
  CHECK(xdit_gen(arguments(file, output)).code == 8);
  fs::remove(output / "steps-2/0.png");
  const std::string live = (folder.path / "live.png").string();  // of all points
  const Result result =
      xdit_gen(arguments(file, output, {"--preview", "1", "--preview-path", live}), {.environment = kAlone});
  INFO(result.err);
  CHECK(result.code == 0);
  CHECK(fs::exists(output / "sweep.json"));
  CHECK(fs::exists(live));
}

TEST_CASE("SIGINT keeps the points that are done: exit 130") {
  const Folder folder;
  const fs::path output = folder.path / "out";
  const std::string file = profile(folder, "{sampling.steps: [1, 1000]}");
  CHECK(cut_short(arguments(file, output), SIGINT,
                  [&] { return fs::exists(output / "steps-1000/profile.yaml"); }) == 130);
  REQUIRE(table(output).size() == 1);
  CHECK(table(output)[0].at("sampling.steps") == 1);
  CHECK(table(output)[0].at("folder") == "steps-1");
}

TEST_CASE("pictures of an approximate point are compared, and may differ: exit 0") {
  const Folder folder;
  const std::string file = profile(folder, "{parallel.pipefusion: [1, 2]}");
  const Result result = xdit_gen(arguments(file, folder.path / "out", {"--gpus", "2", "--steps", "3"}),
                                 {.environment = kAlone});
  INFO(result.err);
  CHECK(result.code == 0);
  CHECK_THAT(json::parse(result.out)[1].at("pictures").get<std::string>(), ContainsSubstring(" dB"));
}

TEST_CASE("verify makes a run with two plans and tells how far apart they are; nothing of it stays") {
  const Folder folder;
  const std::string file =
      folder.write("run.yaml", "model: {path: " + data("flux/tiny-dev") +
                                   ", dtype: fp32}\nprompt: a fox\nimage: {width: 32, height: 48, count: 2}\n"
                                   "sampling: {steps: 3}\nruntime: {device: cpu}\n");
  const auto verify = [&](const char* a, const char* b) {
    std::vector<std::string> environment = kAlone;
    environment.push_back("TMPDIR=" + folder.path.string());
    const Result result =
        xdit_gen({"verify", a, b, "--profile", file, "--json"}, {.environment = environment});
    INFO(result.err);
    for (const fs::directory_entry& left : fs::directory_iterator(folder.path)) CHECK(left.path() == file);
    return std::pair(result.code, json::parse(result.out));
  };
  const auto [same, equal] = verify("gpus=1", "gpus=3 data=1");
  CHECK(same == 0);
  CHECK(equal.at("equal") == true);
  CHECK(equal.at("pictures").size() == 2);
  const auto [other, apart] = verify("gpus=1", "gpus=2 data=1 pipefusion=2");
  CHECK(other == 9);
  CHECK(apart.at("pictures")[1].at("pixels").at("psnr_db") > 10);
}

}  // namespace xdit::cli
