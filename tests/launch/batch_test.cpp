#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <thread>

#include "tests/catch.h"
#include "tests/launch/processes.h"
#include "tests/launch/small_run.h"

namespace xdit::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using std::chrono::milliseconds;
using test::contents;

std::vector<std::string> arguments(const std::string& file, const fs::path& output,
                                   const std::vector<std::string>& more = {}) {
  std::vector<std::string> all{
      "batch",   file, "-m", data("flux/tiny-dev"), "--device", "cpu", "--dtype", "fp32", "--size", "32x48",
      "--steps", "2",  "-o", output / "{index}.png"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

std::vector<json> manifest(const fs::path& output) {
  std::vector<json> lines;
  std::ifstream file(output / "batch.jsonl");
  for (std::string line; std::getline(file, line);)
    lines.push_back(json::parse(line, nullptr, /*allow_exceptions=*/false));
  return lines;
}

// Paths that the manifest holds, as often as it does.
std::multiset<std::string> recorded(const fs::path& output) {
  std::multiset<std::string> paths;
  for (const json& line : manifest(output))
    if (line.is_object() && line.contains("path")) paths.insert(line["path"].get<std::string>());
  return paths;
}

std::string listed(const fs::path& output, const std::vector<int>& indexes) {
  std::string lines;
  for (const int index : indexes) lines += (output / (std::to_string(index) + ".png")).string() + "\n";
  return lines;
}

std::vector<std::string> kill_arguments(const std::string& file, const fs::path& output) {
  return arguments(file, output, {"--resume", "--gpus", "2", "--data", "2", "--steps", "8", "--quiet"});
}

const std::string kOneThread = "OMP_NUM_THREADS=1";  // small pictures: more only wait for each other
const Run kAlone{.environment = {kOneThread}};

// Two shapes, a prompt that comes twice, a line of two pictures.
const std::string kLines =
    R"({"prompt": "a fox", "seed": 1}
{"prompt": "an owl", "seed": 2, "height": 32}
{"prompt": "a hare", "seed": "3-4"}
{"prompt": "a fox", "seed": 5}
{"prompt": "a fox", "seed": 6, "image": {"height": 32}}
)";
const std::vector<int> kOrder{0, 4, 2, 3, 1, 5};  // by shape, then by prompt

}  // namespace

TEST_CASE("a batch makes the pictures that generate makes, in the same order on any number of ranks") {
  const Folder folder;
  const std::string file = folder.write("p.jsonl", kLines);
  const Result one = xdit_gen(arguments(file, folder.path / "one"), kAlone);
  INFO(one.err);
  REQUIRE(one.code == 0);
  CHECK(one.out == listed(folder.path / "one", kOrder));
  for (const std::vector<std::string>& grid :
       {std::vector<std::string>{"--gpus", "2", "--data", "2"}, {"--gpus", "2", "--gather", "2"}}) {
    const fs::path other = folder.path / grid.at(2);
    std::vector<std::string> more = grid;
    const Result two = xdit_gen(arguments(file, other, more));
    INFO(two.err);
    REQUIRE(two.code == 0);
    CHECK(two.out == listed(other, kOrder));
    for (int i = 0; i < 6; ++i) {
      const std::string name = std::to_string(i) + ".png";
      CHECK(contents(folder.path / "one" / name) == contents(other / name));
    }
  }
  const Result alone =
      xdit_gen({"-m", data("flux/tiny-dev"), "--device", "cpu", "--dtype", "fp32", "--size", "32x32",
                "--steps", "2", "-p", "a fox", "-s", "6", "-o", folder.path / "alone.png"},
               kAlone);
  REQUIRE(alone.code == 0);
  CHECK(contents(folder.path / "alone.png") == contents(folder.path / "one" / "5.png"));
  CHECK(recorded(folder.path / "one").size() == 6);
}

TEST_CASE("exit 9: lines that cannot be, and all others made") {
  const Folder folder;
  const std::string file =
      folder.write("p.jsonl",
                   "{\"prompt\": \"a\", \"seed\": 1}\n{\"prompt\": \"b\", \"steps\": 0}\n{\n{}\n"
                   "{\"prompt\": \"c\", \"seed\": 2, \"scheduler\": \"Euler\"}\n"
                   "{\"prompt\": \"d\", \"scheduler\": \"lms\"}\n");
  const Result result = xdit_gen(arguments(file, folder.path / "out"), kAlone);
  CHECK(result.code == 9);
  CHECK(result.out == listed(folder.path / "out", {0, 4}));
  CHECK_THAT(result.err, ContainsSubstring("p.jsonl:2") && ContainsSubstring("p.jsonl:3") &&
                             ContainsSubstring("p.jsonl:4: no prompt") &&
                             ContainsSubstring("lms does not fit a model of flow matching"));
  const std::vector<json> lines = manifest(folder.path / "out");
  CHECK(std::count_if(lines.begin(), lines.end(), [](const json& line) { return line.contains("error"); }) ==
        4);
}

TEST_CASE("a line's guidance is SDXL's cfg_scale, as generate's") {
  const Folder folder;
  const std::vector<std::string> small{"-m",       data("sd/tiny-sdxl"),
                                       "--device", "cpu",
                                       "--dtype",  "fp32",
                                       "--size",   "32x48",
                                       "--steps",  "2",
                                       "-s",       "1"};
  const auto made = [&](std::vector<std::string> all, const std::string& name) {
    all.insert(all.end(), small.begin(), small.end());
    all.insert(all.end(), {"-o", folder.path / name});
    const Result result = xdit_gen(all, kAlone);
    INFO(result.err);
    REQUIRE(result.code == 0);
    return contents(folder.path / name);
  };
  const std::string file = folder.write("p.jsonl", R"({"prompt": "a fox", "guidance": 3})");
  CHECK(made({"batch", file}, "batch.png") == made({"-p", "a fox", "--guidance", "3"}, "alone.png"));
}

TEST_CASE("prompts on stdin, -p for lines without one, and what a batch refuses") {
  const Folder folder;
  const Result text = xdit_gen(arguments("-", folder.path / "text", {"-s", "1"}),
                               {.input = "a fox\nan owl\n", .environment = {kOneThread}});
  INFO(text.err);
  CHECK(text.code == 0);
  CHECK(text.out == listed(folder.path / "text", {0, 1}));
  const Result json_out = xdit_gen(arguments("-", folder.path / "json", {"-p", "a fox", "--json"}),
                                   {.input = "{\"seed\": 7}\n", .environment = {kOneThread}});
  REQUIRE(json_out.code == 0);
  CHECK(json::parse(json_out.out).at("prompt") == "a fox");
  CHECK(json::parse(json_out.out).at("seed") == 7);

  // A pipe that a shell made of <(...).
  const std::string pipe = (folder.path / "pipe").string();
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  std::thread writer([&] { std::ofstream(pipe) << "{\"prompt\": \"a fox\", \"seed\": 7}\n"; });
  const Result piped = xdit_gen(arguments(pipe, folder.path / "pipe-out"), kAlone);
  writer.join();
  CHECK(piped.code == 0);
  CHECK(contents(folder.path / "pipe-out/0.png") == contents(folder.path / "json/0.png"));

  const Result none = xdit_gen(arguments("-", folder.path / "none"), kAlone);
  CHECK(none.code == 0);
  CHECK_THAT(none.err, ContainsSubstring("no prompts in -"));
  CHECK(!fs::exists(folder.path / "none"));
  CHECK(xdit_gen(arguments("-", folder.path / "text", {"-s", "1"}), {.input = "a fox\n"}).code == 8);
  CHECK(xdit_gen(arguments("-", folder.path / "x", {"--dry-run"}), {.input = "a fox\n"}).code == 2);
  CHECK(xdit_gen(arguments((folder.path / "absent.csv").string(), folder.path / "x")).code == 2);
  CHECK(xdit_gen(arguments("-", folder.path / "x", {"--retry", "-1"}), {.input = "a\n"}).code == 2);
}

TEST_CASE("a batch whose manifest is its prompts, or another file: refused, and the file is as it was") {
  const Folder folder;
  const std::string text = R"({"prompt": "a fox", "seed": 1})";
  const std::string prompts = folder.write("batch.jsonl", text);
  const std::string other = folder.write("notes.txt", text);
  fs::create_hard_link(prompts, folder.path / "linked.jsonl");
  for (const char* manner : {"--overwrite", "--resume"}) {
    for (const std::string& manifest :
         {std::string(), prompts, (folder.path / "linked.jsonl").string(), other}) {
      CAPTURE(manner, manifest);
      std::vector<std::string> more{manner};
      if (!manifest.empty()) more.insert(more.end(), {"--manifest", manifest});
      const Result result = xdit_gen(arguments(prompts, folder.path, more), kAlone);
      CHECK(result.code == (manifest == other ? 8 : 2));
      CHECK_THAT(result.err, ContainsSubstring(manifest == other ? "not the manifest of a batch"
                                                                 : "--manifest done.jsonl"));
    }
    const std::string piped =
        "OMP_NUM_THREADS=1 '" XDIT_GEN "' batch - -o '" + folder.path.string() + "/{index}.png' ";
    CHECK(WEXITSTATUS(std::system((piped + "-m '" + data("flux/tiny-dev") + "' --device cpu " + manner +
                                   " <'" + prompts + "' 2>/dev/null")
                                      .c_str())) == 2);
  }
  CHECK(contents(prompts) == text);
  CHECK(contents(other) == text);
  CHECK(!fs::exists(folder.path / "0.png"));
}

TEST_CASE("a batch that is refused begins nothing: the command that is right is taken") {
  const Folder folder;
  const std::string file = folder.write("p.txt", "a fox\nan owl\n");
  const fs::path output = folder.path / "out";
  CHECK(xdit_gen(arguments(file, output, {"-o", output / "x.png"}), kAlone).code == 2);
  CHECK(!fs::exists(output));
  fs::create_directory(output);
  static_cast<void>(folder.write("out/1.png", "mine"));
  CHECK(xdit_gen(arguments(file, output), kAlone).code == 8);
  CHECK(!fs::exists(output / "batch.jsonl"));
  fs::remove(output / "1.png");
  CHECK(xdit_gen(arguments(file, output), kAlone).code == 0);
  CHECK(recorded(output).size() == 2);
  // Nor is an earlier one lost.
  CHECK(xdit_gen(arguments(file, output, {"--overwrite", "-o", output / "x.png"}), kAlone).code == 2);
  CHECK(recorded(output).size() == 2);
}

TEST_CASE("a stdout that is full or closed: exit 8, however often is retried, and the manifest is whole") {
  const Folder folder;
  const std::string file = folder.write("p.jsonl", kLines);
  const auto run = [&](const fs::path& output, const char* standard_output) {
    std::string command = kOneThread;
    std::vector<std::string> all = arguments(file, output, {"--retry", "1"});
    all.insert(all.begin(), XDIT_GEN);
    for (const std::string& word : all) command += " '" + word + "'";
    const int status = std::system((command + " 2>/dev/null " + standard_output).c_str());
    const std::vector<json> lines = manifest(output);
    CHECK(std::none_of(lines.begin(), lines.end(), [](const json& line) { return line.is_discarded(); }));
    return WEXITSTATUS(status);
  };
  CHECK(run(folder.path / "full", ">/dev/full") == 8);
  CHECK(run(folder.path / "closed", ">&-") == 8);
  CHECK(run(folder.path / "all-closed", "<&- >&- 2>&-") == 8);
  CHECK(xdit_gen(arguments(file, folder.path / "closed", {"--resume"}), kAlone).code == 0);
  CHECK(recorded(folder.path / "closed").size() == 6);
}

TEST_CASE("a batch killed at any moment goes on: nothing lost, nothing made twice, drawn seeds the same") {
  constexpr int kKills = 50;
  constexpr int kPictures = 24;
  std::string lines;
  for (int i = 0; i < kPictures; ++i) lines += "prompt " + std::to_string(i % 5) + "\n";
  std::mt19937 random(7);  // NOLINT(*-msc51-cpp): the same moments each time, as far as time allows
  const Folder timed;
  const auto begun = std::chrono::steady_clock::now();
  REQUIRE(xdit_gen(kill_arguments(timed.write("p.txt", lines), timed.path / "out"), kAlone).code == 0);
  const auto whole = std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - begun);
  std::uniform_int_distribution<int> wait_ms(0, static_cast<int>(whole.count()));
  int kills = 0;
  while (kills < kKills) {
    const Folder folder;
    const fs::path output = folder.path / "out";
    const std::vector<std::string> command = kill_arguments(folder.write("p.txt", lines), output);
    std::map<std::string, fs::file_time_type> made;  // when each file was first seen whole
    for (bool ended = false; !ended;) {
      const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
      const pid_t process = start(command, {kOneThread}, nothing, nothing, STDERR_FILENO);
      ::close(nothing);
      if (kills < kKills) {
        std::this_thread::sleep_for(milliseconds(wait_ms(random)));
        ::kill(process, SIGKILL);
      }
      const int code = wait_for(process);
      ended = code == 0;
      kills += ended ? 0 : 1;
      if (!ended) REQUIRE(code == 256 + SIGKILL);
      if (fs::exists(output))
        for (const fs::directory_entry& file : fs::directory_iterator(output))
          if (file.path().extension() == ".png") made.emplace(file.path().string(), file.last_write_time());
    }
    const std::multiset<std::string> paths = recorded(output);
    CHECK(paths.size() == kPictures);
    CHECK(std::set<std::string>(paths.begin(), paths.end()).size() == kPictures);
    REQUIRE(made.size() == kPictures);
    for (const auto& [path, when] : made) CHECK(fs::last_write_time(path) == when);
  }
  CHECK(kills >= kKills);
}

TEST_CASE("a picture without metadata that was written and not recorded is recorded, not made again") {
  const Folder folder;
  const std::string file = folder.write("p.jsonl", kLines);
  const fs::path output = folder.path / "out";
  const std::vector<std::string> command = arguments(file, output, {"--no-metadata", "--resume"});
  REQUIRE(xdit_gen(command, kAlone).code == 0);
  const std::string whole = contents(output / "batch.jsonl");
  const std::size_t last = whole.rfind('\n', whole.size() - 2) + 1;
  fs::resize_file(output / "batch.jsonl", last);
  const fs::file_time_type made = fs::last_write_time(output / "5.png");
  const Result again = xdit_gen(command, kAlone);
  CHECK_THAT(again.err, ContainsSubstring("0 of 6 pictures left"));
  CHECK(fs::last_write_time(output / "5.png") == made);
  CHECK(recorded(output).size() == 6);
  fs::resize_file(output / "batch.jsonl", last);
  std::vector<std::string> other = command;
  other.insert(other.end(), {"--steps", "3"});  // which the file does not tell
  CHECK_THAT(xdit_gen(other, kAlone).err, ContainsSubstring("6 of 6 pictures left"));
}

TEST_CASE("a rank that dies is replaced as often as --retry says, after 1 s, then 2 s") {
  const Folder folder;
  const std::string file = folder.write("p.jsonl", kLines);
  // Kills rank 1 `kills` times, each time as soon as `output` holds more than so many pictures.
  const auto run = [&](const fs::path& output, const std::vector<std::string>& more, int kills,
                       int pictures) {
    std::vector<std::string> all = arguments(file, output, {"--gpus", "2", "--data", "2", "--steps", "20"});
    all.insert(all.end(), more.begin(), more.end());
    const fs::path log = output.string() + ".log";
    const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    const int error = ::open(log.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    const int paths = ::open((output.string() + ".out").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    const pid_t process = start(all, {kOneThread}, nothing, paths, error);
    for (const int descriptor : {nothing, paths, error}) ::close(descriptor);
    std::set<pid_t> killed;
    while (static_cast<int>(killed.size()) < kills && !test::is_gone(process)) {
      std::this_thread::sleep_for(milliseconds(5));
      if (static_cast<int>(recorded(output).size()) < pictures) continue;
      for (const pid_t child : test::children_of(process))
        if (test::proc(child, "comm") == "xdit-rank-1\n" && killed.insert(child).second)
          ::kill(child, SIGKILL);
    }
    const int code = wait_for(process);
    return std::pair(code, contents(log));
  };

  const auto [code, log] = run(folder.path / "out", {"--retry", "1"}, 1, 1);
  INFO(log);
  CHECK(code == 0);
  CHECK_THAT(log, ContainsSubstring("rank 1 died") && ContainsSubstring("again in 1 s") &&
                      !ContainsSubstring("has failed"));
  const std::multiset<std::string> paths = recorded(folder.path / "out");
  CHECK(paths.size() == 6);
  CHECK(std::set<std::string>(paths.begin(), paths.end()).size() == 6);
  CHECK(contents(folder.path / "out.out") == listed(folder.path / "out", kOrder));  // also before the death

  const auto begun = std::chrono::steady_clock::now();
  const auto [failed, why] = run(folder.path / "never", {"--retry", "2"}, 3, 0);
  INFO(why);
  CHECK(failed == 7);
  CHECK_THAT(why, ContainsSubstring("again in 1 s") && ContainsSubstring("again in 2 s") &&
                      ContainsSubstring("rank 1 has failed 2 times") &&
                      ContainsSubstring("rank 1 has failed 3 times"));
  CHECK(std::chrono::steady_clock::now() - begun >= std::chrono::seconds(3));
  CHECK(recorded(folder.path / "never").empty());

  CHECK(run(folder.path / "once", {}, 1, 0).first == 7);  // without --retry
}

TEST_CASE("a batch on a full disk: exit 8, nothing half-written; with room again it goes on") {
  const Folder folder;
  const std::string file = folder.write("p.jsonl", kLines);
  const fs::path whole = folder.path / "whole";
  REQUIRE(xdit_gen(arguments(file, whole), kAlone).code == 0);
  const fs::path output = folder.path / "out";
  fs::create_directory(output);
  if (::mount("tmpfs", output.c_str(), "tmpfs", 0, "size=24k") != 0) {
    WARN("no right to mount a tmpfs: not tested");
    return;
  }
  const Result full = xdit_gen(arguments(file, output), kAlone);
  std::size_t kept = 0;
  bool same = true;
  for (const fs::directory_entry& made : fs::directory_iterator(output))
    if (made.path().filename() != "batch.jsonl") {
      ++kept;
      same = same && contents(made.path()) == contents(whole / made.path().filename());
    }
  const bool remounted = ::mount("tmpfs", output.c_str(), "tmpfs", MS_REMOUNT, "size=1m") == 0;
  const Result rest = xdit_gen(arguments(file, output, {"--resume"}), kAlone);
  for (int i = 0; i < 6; ++i) {
    const std::string name = std::to_string(i) + ".png";
    same = same && fs::exists(output / name) && contents(output / name) == contents(whole / name);
  }
  const std::size_t paths = recorded(output).size();
  ::umount2(output.c_str(), MNT_DETACH);
  INFO(full.err << rest.err);
  CHECK(full.code == 8);
  CHECK_THAT(full.err, ContainsSubstring("No space left"));
  CHECK((kept > 0 && kept < 6));
  CHECK(same);
  CHECK(remounted);
  CHECK(rest.code == 0);
  CHECK(paths == 6);
}

}  // namespace xdit::cli
