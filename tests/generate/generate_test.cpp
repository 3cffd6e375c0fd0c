#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <thread>

#include "output/png.h"
#include "tests/catch.h"
#include "tests/cli/process.h"
#include "weights/safetensors.h"

namespace xdit::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

// A run of the small test model on the CPU, small and short unless `more` says else.
std::vector<std::string> arguments(const std::string& output, const std::vector<std::string>& more = {}) {
  std::vector<std::string> all{"-m",       data("flux/tiny-dev"),
                               "--device", "cpu",
                               "--dtype",  "fp32",
                               "--size",   "32x48",
                               "--steps",  "2",
                               "-o",       output};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> files_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder))
    names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

TEST_CASE("paths on stdout, all else on stderr; the same run gives the same bytes; --from-image too") {
  const Folder folder;
  const std::string path = (folder.path / "new" / "{index}.png").string();
  const Result made = xdit_gen(arguments(path, {"-p", "a fox", "-s", "7", "--count", "2"}));
  INFO(made.err);
  REQUIRE(made.code == 0);
  const fs::path first = folder.path / "new" / "0.png";
  const fs::path second = folder.path / "new" / "1.png";
  CHECK(made.out == first.string() + "\n" + second.string() + "\n");
  CHECK_THAT(made.err, ContainsSubstring("2 pictures in"));
  CHECK(files_in(folder.path / "new") == std::vector<std::string>{"0.png", "1.png"});
  CHECK(contents(first) != contents(second));
  CHECK(output::read_png_text(first, ExitCode::kUsage).height == 48);

  const std::string again = (folder.path / "again.png").string();
  const Result repeated = xdit_gen(arguments(again, {"-p", "a fox", "-s", "8", "--quiet"}));
  CHECK(repeated.code == 0);
  CHECK(repeated.err.empty());
  CHECK((contents(again) == contents(second)));  // picture i takes seed + i

  const std::string replay = (folder.path / "replay.png").string();
  const Result replayed = xdit_gen({"-m", data("flux/tiny-dev"), "--device", "cpu", "--from-image",
                                    first.string(), "-o", replay, "--json", "--progress", "off"});
  REQUIRE(replayed.code == 0);
  CHECK((contents(replay) == contents(first)));
  const json line = json::parse(replayed.out);
  CHECK(line.at("path") == replay);
  CHECK(line.at("seed") == 7);
  CHECK(line.at("prompt") == "a fox");
}

TEST_CASE("what SDXL is run with by default: its scheduler, size and guidance, which has two names") {
  const Folder folder;
  const auto made = [&](std::vector<std::string> more) {
    const std::string path = (folder.path / "x.png").string();
    std::vector<std::string> all{"-m",         data("sd/tiny-sdxl"),
                                 "--device",   "cpu",
                                 "--dtype",    "fp32",
                                 "--steps",    "2",
                                 "-s",         "3",
                                 "-p",         "a fox",
                                 "-o",         path,
                                 "--overwrite"};
    all.insert(all.end(), more.begin(), more.end());
    const Result result = xdit_gen(all);
    INFO(result.err);
    CHECK(result.code == 0);
    return contents(path);
  };
  const std::string picture = made({});
  const std::string path = (folder.path / "x.png").string();
  const auto text = output::read_png_text(path, ExitCode::kUsage);
  CHECK(text.width == 128);
  CHECK_THAT(text.chunks.front().text,
             ContainsSubstring("Sampler: Euler, CFG scale: 5, Seed: 3, Size: 128x128"));
  CHECK((made({"--from-image", path}) == picture));
  CHECK((made({"--guidance", "5", "--scheduler", "euler"}) == picture));
  CHECK((made({"--cfg-scale", "5", "--scheduler", "EulerDiscreteScheduler"}) == picture));
  CHECK((made({"--set", "sampling.crop=16x0"}) != picture));
  CHECK((made({"--guidance", "4"}) != picture));
}

TEST_CASE("a model and its refiner as one file each make the folders' picture, also on two ranks") {
  const Folder folder;
  const auto made = [&](const std::string& name, std::vector<std::string> more) {
    const std::string path = (folder.path / name).string();
    for (const char* last :
         {"--device", "cpu", "--dtype", "fp32", "--size", "56x40", "--steps", "3", "-s", "3", "-p", "a fox",
          "--set", "output.metadata=false", "--set", "sampling.refiner_start=0.5", "-o"})
      more.emplace_back(last);
    more.push_back(path);
    const Result result = xdit_gen(more);
    INFO(result.err);
    REQUIRE(result.code == 0);
    return contents(path);
  };
  const std::string sdxl = data("sd/tiny-sdxl");
  const std::string refiner = data("sd/tiny-refiner");
  const std::string file = XDIT_SINGLE_FILES "/tiny-refiner.safetensors";
  const std::string folders = made("folders.png", {"-m", sdxl, "--refiner", refiner});
  CHECK((made("file.png", {"-m", sdxl, "--refiner", file, "--base", refiner, "--gpus", "2"}) == folders));
  // Each file in a folder with the configs that it lacks.
  fs::copy(refiner, folder.path / "own", fs::copy_options::recursive);
  fs::copy(file, folder.path / "own/file.safetensors");
  CHECK((made("files.png", {"-m", XDIT_SINGLE_FILES "/tiny-sdxl.safetensors", "--base", sdxl, "--refiner",
                            folder.path / "own/file.safetensors"}) == folders));
}

TEST_CASE("--report and --trace") {
  const Folder folder;
  const std::string report = (folder.path / "r.json").string();
  const std::string trace = (folder.path / "t.safetensors").string();
  const Result made =
      xdit_gen(arguments((folder.path / "x.png").string(), {"-p", "a", "-s", "1", "--report", report,
                                                            "--trace", trace, "--no-metadata", "-v"}));
  INFO(made.err);
  REQUIRE(made.code == 0);
  const json about = json::parse(contents(report));
  CHECK(about.at("settings").at("sampling.steps") == "2");
  CHECK(about.at("seconds").contains("decode"));
  const weights::TensorTable tensors = weights::read_safetensors(trace);
  for (const char* name : {"noise", "latents.1", "latents.2", "image", "prompt_embeds"}) {
    CAPTURE(name);
    CHECK(tensors.tensors.count(name) == 1);
  }
  CHECK(output::read_png_text(folder.path / "x.png", ExitCode::kUsage).chunks.empty());
}

TEST_CASE("a picture that is there is not touched") {
  const Folder folder;
  const std::string there = folder.write("1.png", "old");
  CHECK(xdit_gen(arguments(there, {"-p", "a", "-s", "1"})).code == 8);
  CHECK(contents(there) == "old");
  CHECK(xdit_gen(arguments(there, {"-p", "a", "-s", "1", "--overwrite"})).code == 0);
  CHECK(contents(there) != "old");
  for (const char* flag : {"--report", "--trace"}) {  // before any work
    const std::string other = (folder.path / "2.png").string();
    CHECK(xdit_gen(arguments(other, {"-p", "a", "-s", "1", flag, there})).code == 8);
    CHECK(xdit_gen(arguments(other, {"-p", "a", "-s", "1", flag, "/dev/null/r"})).code == 8);
    CHECK(!fs::exists(other));
  }
}

TEST_CASE(
    "SIGINT and SIGTERM during a run: 130 and 143 within 5 s, finished pictures stay, no partial file") {
  for (const auto& [signal, code] : {std::pair{SIGINT, 130}, std::pair{SIGTERM, 143}}) {
    const Folder folder;
    std::array<int, 2> pipe{};
    REQUIRE(::pipe2(pipe.data(), O_CLOEXEC) == 0);
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    const fs::path out = folder.path / "out";
    const pid_t process =
        start(arguments((out / "{index}.png").string(), {"-p", "a", "-s", "1", "--count", "10000"}), {}, null,
              pipe[1], null);
    ::close(pipe[1]);
    char byte = 0;
    CHECK(::read(pipe[0], &byte, 1) == 1);  // the first path: a picture is finished
    ::kill(process, signal);
    const auto begun = Clock::now();
    CHECK(wait_for(process) == code);
    CHECK(Clock::now() - begun < std::chrono::seconds(5));
    const std::vector<std::string> files = files_in(out);
    CHECK(!files.empty());
    for (const std::string& name : files) {
      CAPTURE(name);
      CHECK(name.ends_with(".png"));
      CHECK(output::read_png_text(out / name, ExitCode::kUsage).width == 32);  // whole, to the last byte
    }
    for (const int descriptor : {pipe[0], null}) ::close(descriptor);
  }
}

}  // namespace xdit::cli
